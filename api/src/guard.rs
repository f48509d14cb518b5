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
use entity::audit::{Action, Event, Who};
use entity::login_delay::{self, Admission, Counter};
use entity::user;
use sea_orm::{DatabaseTransaction, DbErr};
use serde_json::json;
use shared::database::Database;
use tracing::Instrument;

use crate::address::network;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::token::Keys;

const FREE_FOR_ACCOUNT: i32 = 5;
const FREE_FOR_PLACE: i32 = 20;

/// For so long a place is one where the owner has signed in.
const KNOWN: TimeDelta = TimeDelta::days(90);

/// Somebody at a place who names an account, and is to prove that it is theirs.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// Is there if the owner has signed in at this place.
    home: String,
    owner: Counter,
    account: Counter,
    place: Counter,
    client: Client,
}

/// A try that was let through. It is counted, so that of many at once no more get
/// through than of as many one after the other, but only as long as it goes on: if
/// it ends without [`Proof::Wrong`] it has not failed.
#[derive(Clone, Debug)]
pub struct Try {
    visitor: Visitor,
    /// What it counts under, and how that stands with it.
    counted: Vec<(Counter, login_delay::Model)>,
}

/// What came of a try.
#[derive(Debug)]
pub enum Proof<T> {
    /// It was the right password.
    Right(T),
    /// It was not, or of no use: that counts, and the client is told so.
    Wrong(Error),
}

impl Visitor {
    /// Who names `username` from where `client` is.
    pub fn new(keys: &Keys, username: &str, client: &Client) -> Self {
        let place = client.ip.map(network);
        let place = place.map_or("unknown".to_owned(), |network| network.to_string());
        let name = user::username_key(username);
        let here = keys.guard_tag(format!("{place}/{name}").as_bytes());
        let account = keys.guard_tag(name.as_bytes());
        let counter = |key, free| Counter { key, free };
        Visitor {
            home: format!("home:{here}"),
            owner: counter(format!("owner:{here}"), FREE_FOR_ACCOUNT),
            account: counter(format!("account:{account}"), FREE_FOR_ACCOUNT),
            place: counter(format!("address:{place}"), FREE_FOR_PLACE),
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
        prove: impl FnOnce(Try) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<Proof<T>>> + Send,
    {
        let attempt = async move {
            let attempt = self.admit(&db).await?;
            match prove(attempt.clone()).await {
                Ok(Proof::Right(proved)) => Ok(proved),
                Ok(Proof::Wrong(error)) => Err(error),
                Err(error) => {
                    attempt.take_back(&db).await;
                    Err(error)
                }
            }
        };
        let ended = tokio::spawn(attempt.in_current_span()).await;
        ended.map_err(|panic| Error::Internal(panic.to_string()))?
    }

    async fn admit(self, db: &Database) -> Result<Try> {
        let [owner, account, place] = [&self.owner, &self.account, &self.place];
        let keys = [&self.home, &owner.key, &account.key, &place.key].map(String::as_str);
        let rows = login_delay::Entity::of(db.read(), &keys).await?;
        let row = |key: &str| rows.iter().find(|row| row.key == key);
        let counters = match row(&self.home) {
            Some(_) => vec![owner.clone()],
            None => vec![account.clone(), place.clone()],
        };
        // So that a flood of those who have to wait writes nothing.
        let waits = counters
            .iter()
            .filter_map(|counter| row(&counter.key)?.wait());
        if let Some(wait) = waits.max() {
            return Err(refused(wait));
        }
        let admission = db
            .transaction(async move |tx| login_delay::Entity::count(tx, counters).await)
            .await?;
        match admission {
            Admission::Wait(wait) => Err(refused(wait)),
            Admission::Counted(counted) => Ok(Try {
                visitor: self,
                counted,
            }),
        }
    }

    /// From now on they are at home here.
    pub async fn welcome(&self, tx: &DatabaseTransaction) -> Result<()> {
        login_delay::Entity::remember(tx, &self.home, KNOWN).await?;
        Ok(())
    }
}

fn refused(wait: Duration) -> Error {
    Error::RateLimited(wait.as_secs() + 1)
}

impl Try {
    /// It was the right password: what was counted for the account begins anew.
    /// What others at the same place have failed at stays.
    pub async fn passed(&self, tx: &DatabaseTransaction) -> Result<()> {
        for (counter, row) in &self.counted {
            match *counter == self.visitor.place {
                true => login_delay::Entity::take_back(tx, row).await?,
                false => login_delay::Entity::forget(tx, &counter.key).await?,
            }
        }
        self.visitor.welcome(tx).await
    }

    /// Nobody knows whether it was: hashing was too busy, or the database away.
    async fn take_back(self, db: &Database) {
        let take_back = db.transaction(async move |tx| {
            for (_, row) in &self.counted {
                login_delay::Entity::take_back(tx, row).await?;
            }
            Ok::<_, DbErr>(())
        });
        if let Err(error) = take_back.await {
            tracing::warn!(%error, "a sign-in that did not end counts as failed");
        }
    }

    /// It was not: that is written down. `subject` is whose account it is, if it is
    /// anyone's, and `actor` who is signed in, if somebody is.
    pub async fn failed(
        &self,
        db: &Database,
        actor: Option<&user::Model>,
        subject: Option<&user::Model>,
    ) -> Result<()> {
        // How long the next one has to wait.
        let counted = self.counted.iter();
        let delay = counted.filter_map(|(counter, row)| counter.delay(row.failures));
        let seconds = delay.max().map_or(0, |delay| delay.as_secs());
        let event = Event {
            action: Action::LoginFailed,
            actor: actor.map(Who::from),
            subject: subject.map(Who::from),
            source: self.visitor.client.source(),
            details: Some(json!({ "delay_seconds": seconds })),
        };
        db.transaction(async move |tx| event.record(tx).await)
            .await?;
        Ok(())
    }
}
