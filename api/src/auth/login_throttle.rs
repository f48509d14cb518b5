//! Passwords are not guessed: after a few that were wrong, the next has to wait.
//!
//! Tries are counted in the database, under keys:
//!
//! - **the account and the place**, for who comes from a place where the owner has
//!   signed in before. 5 are free.
//! - **the account**, for all strangers together. 5 are free.
//! - **the place**, for strangers, whichever accounts they try. 20 are free.
//!
//! A place is an address, or its network of 64 bits for IPv6: whoever has one
//! address of it has all. After what is free each further failure in a row costs
//! a delay, which doubles from a second to five minutes; after a day without a
//! try all is forgotten.
//!
//! **Nobody is locked out for good.** A stranger who guesses away delays other
//! strangers, but not the owner where they have signed in within 90 days, for
//! that is counted apart; sessions that are open go on as they are. Nor does the
//! delay of a place hold up those who have signed in from it: one guest in an
//! office must not close it to all. An owner who comes from a new place while
//! somebody guesses waits five minutes at most for a turn, in which they may be
//! outrun; it ends when the guessing does. What guessing brings is bounded all
//! the same: a try in five minutes for an account, from all places together that
//! it does not know.
//!
//! **While one has to wait no password is verified**, not even the right one.
//! Otherwise guesses could go on at full speed: only the right one would be
//! answered differently.
//!
//! **Nothing tells which accounts exist.** Names that nobody has are counted as
//! those that somebody has. What was typed is not stored, for people type
//! passwords where names belong; it is hashed under the server's secret.
//!
//! Failures go into the audit trail, and requests that have to wait don't: so the
//! trail grows no faster than passwords can be guessed.

use std::time::Duration;

use chrono::TimeDelta;
use entity::audit::Action;
use entity::login_throttle::{self, Counter, Decision};
use entity::user;
use sea_orm::{DatabaseTransaction, DbErr};
use serde_json::json;
use shared::database::Database;
use tracing::Instrument;

use crate::auth::tokens::SigningKeys;
use crate::error::{Error, Result};
use crate::extract::client_info::ClientInfo;
use crate::middleware::client_ip::ip_prefix;

const FREE_FAILURES_PER_ACCOUNT: i32 = 5;
const FREE_FAILURES_PER_NETWORK: i32 = 20;

/// For so long a place is one where the owner has signed in.
const KNOWN_LOCATION_TTL: TimeDelta = TimeDelta::days(90);

/// Somebody at a place who names an account, and is to prove that it is theirs.
#[derive(Clone, Debug)]
pub struct LoginThrottle {
    /// Is there if the owner has signed in at this place.
    known_location: String,
    account_at_known_location: Counter,
    account: Counter,
    network: Counter,
    client: ClientInfo,
}

/// A try that was let through. It is counted, so that of many at once no more get
/// through than of as many one after the other, but only as long as it goes on: if
/// it ends without [`PasswordCheck::Wrong`] it has not failed.
#[derive(Clone, Debug)]
pub struct AdmittedAttempt {
    visitor: LoginThrottle,
    /// What it counts under, and how that stands with it.
    counted: Vec<(Counter, login_throttle::Model)>,
}

/// What came of a try.
#[derive(Debug)]
pub enum PasswordCheck<T> {
    /// It was the right password.
    Right(T),
    /// It was not, or of no use: that counts, and the client is told so.
    Wrong(Error),
}

impl LoginThrottle {
    /// Who names `username` from where `client` is.
    pub fn new(keys: &SigningKeys, username: &str, client: &ClientInfo) -> Self {
        let place = client.ip.map(ip_prefix);
        let place = place.map_or("unknown".to_owned(), |network| network.to_string());
        let name = user::username_key(username);
        let here = keys.throttle_tag(format!("{place}/{name}").as_bytes());
        let account = keys.throttle_tag(name.as_bytes());
        let counter = |key, free| Counter {
            key,
            free_failures: free,
        };
        LoginThrottle {
            known_location: format!("home:{here}"),
            account_at_known_location: counter(format!("owner:{here}"), FREE_FAILURES_PER_ACCOUNT),
            account: counter(format!("account:{account}"), FREE_FAILURES_PER_ACCOUNT),
            network: counter(format!("address:{place}"), FREE_FAILURES_PER_NETWORK),
            client: client.clone(),
        }
    }

    /// Lets them try a password. That goes on to its end even if the client goes
    /// away: nobody knows before whether it has failed.
    ///
    /// # Errors
    /// [`Error::RateLimited`] if they have to wait, what `prove` says of a wrong
    /// password, and what it fails with.
    pub async fn attempt<T, F>(
        self,
        db: Database,
        prove: impl FnOnce(AdmittedAttempt) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<PasswordCheck<T>>> + Send,
    {
        let attempt = async move {
            let attempt = self.check_and_count(&db).await?;
            match prove(attempt.clone()).await {
                Ok(PasswordCheck::Right(proved)) => Ok(proved),
                Ok(PasswordCheck::Wrong(error)) => Err(error),
                Err(error) => {
                    attempt.undo(&db).await;
                    Err(error)
                }
            }
        };
        let ended = tokio::spawn(attempt.in_current_span()).await;
        ended.map_err(Error::internal)?
    }

    async fn check_and_count(self, db: &Database) -> Result<AdmittedAttempt> {
        let [owner, account, place] = [
            &self.account_at_known_location,
            &self.account,
            &self.network,
        ];
        let keys = [&self.known_location, &owner.key, &account.key, &place.key].map(String::as_str);
        let rows = login_throttle::Entity::find_active(db.read(), &keys).await?;
        let row = |key: &str| rows.iter().find(|row| row.key == key);
        let counters = match row(&self.known_location) {
            Some(_) => vec![owner.clone()],
            None => vec![account.clone(), place.clone()],
        };
        // So that a flood of those who have to wait writes nothing.
        let waits = counters
            .iter()
            .filter_map(|counter| row(&counter.key)?.wait());
        if let Some(wait) = waits.max() {
            return Err(too_many_attempts(wait));
        }
        let admission = db
            .transaction(async move |tx| {
                login_throttle::Entity::check_and_count(tx, counters).await
            })
            .await?;
        match admission {
            Decision::Wait(wait) => Err(too_many_attempts(wait)),
            Decision::Counted(counted) => Ok(AdmittedAttempt {
                visitor: self,
                counted,
            }),
        }
    }

    /// From now on they are at home here.
    pub async fn remember_location(&self, tx: &DatabaseTransaction) -> Result<()> {
        login_throttle::Entity::upsert(tx, &self.known_location, KNOWN_LOCATION_TTL).await?;
        Ok(())
    }
}

fn too_many_attempts(wait: Duration) -> Error {
    Error::RateLimited(wait.as_secs() + 1)
}

impl AdmittedAttempt {
    /// It was the right password: what was counted for the account begins anew.
    /// What others at the same place have failed at stays.
    pub async fn record_success(&self, tx: &DatabaseTransaction) -> Result<()> {
        for (counter, row) in &self.counted {
            if *counter == self.visitor.network {
                login_throttle::Entity::undo(tx, row).await?;
            } else {
                login_throttle::Entity::delete(tx, &counter.key).await?;
            }
        }
        self.visitor.remember_location(tx).await
    }

    /// Nobody knows whether it was: hashing was too busy, or the database away.
    async fn undo(self, db: &Database) {
        let take_back = db.transaction(async move |tx| {
            for (_, row) in &self.counted {
                login_throttle::Entity::undo(tx, row).await?;
            }
            Ok::<_, DbErr>(())
        });
        if let Err(error) = take_back.await {
            tracing::warn!(%error, "a sign-in that did not end counts as failed");
        }
    }

    /// It was not: that is written down. `subject` is whose account it is, if it is
    /// anyone's, and `actor` who is signed in, if somebody is.
    pub async fn record_failure(
        &self,
        db: &Database,
        actor: Option<&user::Model>,
        subject: Option<&user::Model>,
    ) -> Result<()> {
        // How long the next one has to wait.
        let counted = self.counted.iter();
        let delay = counted.filter_map(|(counter, row)| counter.delay(row.failures));
        let seconds = delay.max().map_or(0, |delay| delay.as_secs());
        let details = Some(json!({ "delay_seconds": seconds }));
        let client = &self.visitor.client;
        let event = client.audit_event(Action::LoginFailed, actor, subject, details);
        db.transaction(async move |tx| event.insert(tx).await)
            .await?;
        Ok(())
    }
}
