//! Removing what is old, in steps so small that nobody else has to wait.
//!
//! Each process prunes what is its own: the API sign-ins and answers it has
//! kept, a worker jobs and what the queue's library leaves behind. Several may
//! do so at once.

use std::time::Duration;

use entity::cleanup_clock::{self, ClockTrust};
use futures_util::future::BoxFuture;
use sea_orm::{DatabaseTransaction, DbErr};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::database::Database;

const INTERVAL: Duration = Duration::from_secs(60);
/// How many rows go in one step, at most.
const BATCH: u64 = 200;
const PAUSE: Duration = Duration::from_millis(50);

/// Tells when it is time to prune.
#[derive(Debug)]
pub struct CleanupSchedule {
    db: Database,
    ticks: Interval,
    /// How many in a row were left out.
    doubted: u32,
}

impl CleanupSchedule {
    /// Rounds of a process on `db`, of which the first is at once.
    pub fn new(db: Database) -> Self {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        CleanupSchedule {
            db,
            ticks,
            doubted: 0,
        }
    }

    /// Waits for the next round in which the clock can be believed.
    pub async fn next_round(&mut self) {
        loop {
            self.ticks.tick().await;
            if self.is_clock_trusted().await {
                self.doubted = 0;
                return;
            }
        }
    }

    async fn check_clock(&self) -> Result<ClockTrust, DbErr> {
        let now = self.db.read_clock().await?.time;
        self.db
            .transaction(async move |tx| cleanup_clock::Entity::check(tx, now).await)
            .await
    }

    async fn is_clock_trusted(&mut self) -> bool {
        let ahead = match self.check_clock().await {
            Ok(ClockTrust::Trusted) => return true,
            Ok(ClockTrust::Doubted { ahead }) => ahead,
            Err(error) => {
                tracing::warn!(%error, "can't look whether the clock can be believed");
                return false;
            }
        };
        if self.doubted.is_multiple_of(WARN_EVERY) {
            let hours = ahead.num_hours();
            tracing::warn!(
                hours,
                "the clock has gone on by more than a day since anything old was removed: the \
                 service was off, or the clock is wrong. Nothing old is removed for a day"
            );
        }
        self.doubted += 1;
        false
    }
}

/// How often it is said that the clock is not believed: first, and once an hour.
const WARN_EVERY: u32 = 60;

/// Has `step` remove rows, each time no more than it is told, until there are
/// none left to remove. `what` is for the log.
pub async fn delete_in_batches(
    db: &Database,
    what: &'static str,
    step: impl for<'t> Fn(&'t DatabaseTransaction, u64) -> BoxFuture<'t, Result<u64, DbErr>>
    + Clone
    + Send
    + 'static,
) {
    let mut removed = 0;
    loop {
        let step = step.clone();
        let rows = match db.transaction(async move |tx| step(tx, BATCH).await).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(%error, what, "can't remove what is old; trying again later");
                break;
            }
        };
        removed += rows;
        if rows < BATCH {
            break;
        }
        sleep(PAUSE).await;
    }
    if removed > 0 {
        tracing::info!(rows = removed, what, "removed what was old");
    }
}
