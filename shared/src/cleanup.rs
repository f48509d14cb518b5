//! Periodic deletion of old rows, in batches so small that nobody else has to wait.
//!
//! The API deletes sessions, idempotency keys and the like; a worker deletes finished jobs and
//! apalis' leftovers. Several processes may do so at once.

use std::time::Duration;

use entity::cleanup_clock::{self, ClockTrust};
use futures_util::future::BoxFuture;
use sea_orm::{DatabaseTransaction, DbErr};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::database::Database;

const INTERVAL: Duration = Duration::from_secs(60);
/// How many rows one transaction deletes at most.
const BATCH: u64 = 200;
const BATCH_PAUSE: Duration = Duration::from_millis(50);

/// Of so many skipped rounds the first is logged: one an hour.
const WARN_EVERY: u32 = 60;

/// When to clean up.
#[derive(Debug)]
pub struct CleanupSchedule {
    db: Database,
    ticks: Interval,
    /// How many rounds in a row were skipped because the clock was doubted.
    doubted: u32,
}

impl CleanupSchedule {
    /// A schedule of rounds for `db`, the first of which is due at once.
    pub fn new(db: Database) -> Self {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        CleanupSchedule {
            db,
            ticks,
            doubted: 0,
        }
    }

    /// Waits for the next round in which the clock can be trusted.
    pub async fn next_round(&mut self) {
        loop {
            self.ticks.tick().await;
            match self.check_clock().await {
                Ok(ClockTrust::Trusted) => break,
                Ok(ClockTrust::Doubted { ahead }) => {
                    if self.doubted.is_multiple_of(WARN_EVERY) {
                        tracing::warn!(
                            hours = ahead.num_hours(),
                            "the clock has gone on by more than a day since the last cleanup: the \
                             service was off, or the clock is wrong. Deleting nothing for a day"
                        );
                    }
                    self.doubted += 1;
                }
                Err(error) => {
                    tracing::warn!(%error, "can't check the clock; skipping this cleanup");
                }
            }
        }
        self.doubted = 0;
    }

    async fn check_clock(&self) -> Result<ClockTrust, DbErr> {
        let now = self.db.read_clock().await?.time;
        self.db
            .transaction(async move |tx| cleanup_clock::Entity::check(tx, now).await)
            .await
    }
}

/// Calls `step` with the number of rows that it may delete, until it deletes fewer. `what` names
/// the rows in the log.
pub async fn delete_in_batches(
    db: &Database,
    what: &'static str,
    step: impl for<'t> Fn(&'t DatabaseTransaction, u64) -> BoxFuture<'t, Result<u64, DbErr>>
    + Clone
    + Send
    + 'static,
) {
    let mut rows = 0;
    loop {
        let step = step.clone();
        let changed = match db.transaction(async move |tx| step(tx, BATCH).await).await {
            Ok(changed) => changed,
            Err(error) => {
                tracing::warn!(%error, what, "can't clean up; trying again later");
                break;
            }
        };
        rows += changed;
        if changed < BATCH {
            break;
        }
        sleep(BATCH_PAUSE).await;
    }
    if rows > 0 {
        tracing::info!(rows, what, "cleaned up");
    }
}
