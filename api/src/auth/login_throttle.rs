//! Login throttling: exponential delays after failed password attempts.
//!
//! Attempts are counted in the database, under keys:
//!
//! - **account and location**, from where the owner has signed in before: 5 free failures.
//! - **account**, for all unknown locations together: 5 free failures.
//! - **location**, for unknown locations, whichever accounts are tried: 20 free failures.
//!
//! A location is an IPv4 address or an IPv6 /64 network, whose addresses all belong to one client.
//! Each further failure in a row costs a delay, which doubles from a second to five minutes; a
//! counter is reset after a day without an attempt.
//!
//! **Nobody is locked out for good.** Guessing from elsewhere delays other unknown locations, but
//! not the owner where they have signed in within 90 days, for that is counted separately; open
//! sessions are unaffected. Nor does a location's delay affect users who have signed in from it:
//! one guest in an office must not lock out the rest. An owner at a new location waits at most five
//! minutes while somebody guesses. Guessing stays bounded: one attempt per account in five minutes,
//! from all unknown locations together.
//!
//! **No password is verified during a delay**, not even the right one. Otherwise guesses could go
//! on at full speed: only the right one would be answered differently.
//!
//! **Nothing reveals which accounts exist.** Unknown usernames are counted like existing ones. What
//! was typed is not stored, since people type passwords into username fields; it is hashed with the
//! server's secret.
//!
//! Failures are recorded in the audit trail, delayed requests are not: so the trail grows no faster
//! than passwords can be guessed.

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

/// How long a location stays known after the owner has signed in from it.
const KNOWN_LOCATION_TTL: TimeDelta = TimeDelta::days(90);

/// The counters for an account and the location that an attempt comes from.
#[derive(Clone, Debug)]
pub struct LoginThrottle {
    /// Exists if the owner has signed in from this location.
    known_location: String,
    account_at_known_location: Counter,
    account: Counter,
    network: Counter,
    client: ClientInfo,
}

/// An attempt that is not delayed. It counts as failed from its start, so that concurrent attempts
/// gain nothing; unless it ends with [`PasswordCheck::Wrong`] that is undone.
#[derive(Clone, Debug)]
pub struct AdmittedAttempt {
    throttle: LoginThrottle,
    /// The counters that it counts for, and their rows with it counted.
    counted: Vec<(Counter, login_throttle::Model)>,
}

/// The result of an attempt.
#[derive(Debug)]
pub enum PasswordCheck<T> {
    /// The password was right.
    Right(T),
    /// The password was wrong, or the account is disabled: the attempt counts.
    Wrong(Error),
}

impl LoginThrottle {
    /// The throttle for `username` at the location of `client`.
    pub fn new(keys: &SigningKeys, username: &str, client: &ClientInfo) -> Self {
        let location = client.ip.map(ip_prefix);
        let location = location.map_or("unknown".to_owned(), |network| network.to_string());
        let name = user::username_key(username);
        let here = keys.throttle_tag(format!("{location}/{name}").as_bytes());
        let account = keys.throttle_tag(name.as_bytes());
        let counter = |key, free| Counter {
            key,
            free_failures: free,
        };
        LoginThrottle {
            known_location: format!("home:{here}"),
            account_at_known_location: counter(format!("owner:{here}"), FREE_FAILURES_PER_ACCOUNT),
            account: counter(format!("account:{account}"), FREE_FAILURES_PER_ACCOUNT),
            network: counter(format!("address:{location}"), FREE_FAILURES_PER_NETWORK),
            client: client.clone(),
        }
    }

    /// Makes an attempt, and completes it even if the client disconnects: until then it is unknown
    /// whether it failed.
    ///
    /// # Errors
    /// [`Error::RateLimited`] during a delay, and what `prove` fails with.
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
        let [owner, account, location] = [
            &self.account_at_known_location,
            &self.account,
            &self.network,
        ];
        let keys = [
            &self.known_location,
            &owner.key,
            &account.key,
            &location.key,
        ]
        .map(String::as_str);
        let rows = login_throttle::Entity::find_active(db.read(), &keys).await?;
        let row = |key: &str| rows.iter().find(|row| row.key == key);
        let counters = match row(&self.known_location) {
            Some(_) => vec![owner.clone()],
            None => vec![account.clone(), location.clone()],
        };
        // Checked before anything is written, so that a flood of delayed attempts writes nothing.
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
                throttle: self,
                counted,
            }),
        }
    }

    /// Makes this location a known one.
    pub(crate) async fn remember_location(&self, tx: &DatabaseTransaction) -> Result<()> {
        login_throttle::Entity::upsert(tx, &self.known_location, KNOWN_LOCATION_TTL).await?;
        Ok(())
    }
}

fn too_many_attempts(wait: Duration) -> Error {
    Error::RateLimited(wait.as_secs() + 1)
}

impl AdmittedAttempt {
    /// Resets the account's counter. What others have failed at from the same location stays.
    pub(crate) async fn record_success(&self, tx: &DatabaseTransaction) -> Result<()> {
        for (counter, row) in &self.counted {
            if *counter == self.throttle.network {
                login_throttle::Entity::undo(tx, row).await?;
            } else {
                login_throttle::Entity::delete(tx, &counter.key).await?;
            }
        }
        self.throttle.remember_location(tx).await
    }

    /// For an attempt without a result: hashing was overloaded, or the database unavailable.
    async fn undo(self, db: &Database) {
        let take_back = db.transaction(async move |tx| {
            for (_, row) in &self.counted {
                login_throttle::Entity::undo(tx, row).await?;
            }
            Ok::<_, DbErr>(())
        });
        if let Err(error) = take_back.await {
            tracing::warn!(%error, "can't undo an attempt that has no result: it counts as failed");
        }
    }

    /// Records a failure in the audit trail. `subject` owns the account, if it exists; `actor` is
    /// signed in, if anyone is.
    pub(crate) async fn record_failure(
        &self,
        db: &Database,
        actor: Option<&user::Model>,
        subject: Option<&user::Model>,
    ) -> Result<()> {
        let counted = self.counted.iter();
        let delay = counted.filter_map(|(counter, row)| counter.delay(row.failures));
        let seconds = delay.max().map_or(0, |delay| delay.as_secs());
        let details = Some(json!({ "delay_seconds": seconds }));
        let client = &self.throttle.client;
        let event = client.audit_event(Action::LoginFailed, actor, subject, details);
        db.transaction(async move |tx| event.insert(tx).await)
            .await?;
        Ok(())
    }
}
