//! Removing what is old, in steps so small that nobody else has to wait.
//!
//! Each process prunes what is its own: the API sign-ins and answers it has
//! kept, a worker jobs and what the queue's library leaves behind. Several may
//! do so at once.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sea_orm::{DatabaseTransaction, DbErr};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::database::Database;

const EVERY: Duration = Duration::from_secs(60);
/// How many rows go in one step, at most.
const STEP: u64 = 200;
const PAUSE: Duration = Duration::from_millis(50);

/// Ticks when it is time to prune.
pub fn rounds() -> Interval {
    let mut rounds = interval(EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rounds
}

/// Has `step` remove rows, each time no more than it is told, until there are
/// none left to remove. `what` is for the log.
pub async fn in_steps(
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
        let rows = match db.transact(move |tx| step(tx, STEP)).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(%error, what, "can't remove what is old; trying again later");
                break;
            }
        };
        removed += rows;
        if rows < STEP {
            break;
        }
        sleep(PAUSE).await;
    }
    if removed > 0 {
        tracing::info!(rows = removed, what, "removed what was old");
    }
}
