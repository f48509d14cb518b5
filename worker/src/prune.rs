//! Forgetting jobs that were over long ago, and workers that are gone.

use std::time::Duration;

use chrono::TimeDelta;
use entity::clock::now;
use entity::{job, worker};
use futures_util::FutureExt;
use shared::database::Database;
use shared::prune::{Rounds, in_steps};
use shared::queue;

/// Workers that have been silent for so long are forgotten.
const GONE: TimeDelta = TimeDelta::days(1);

/// Prunes now and then, for ever. Jobs are kept for `keep` after their end.
pub async fn regularly(db: Database, keep: Duration) {
    let mut rounds = Rounds::new(db.clone());
    loop {
        rounds.next().await;
        once(&db, keep).await;
    }
}

/// Removes all that is old.
pub async fn once(db: &Database, keep: Duration) {
    let finished = now() - TimeDelta::from_std(keep).unwrap_or(TimeDelta::MAX);
    in_steps(db, "jobs", move |tx, limit| {
        job::Entity::forget_finished(tx, finished, limit).boxed()
    })
    .await;
    let silent = now() - GONE;
    // One for each start of the last days: few enough for one step.
    in_steps(db, "workers", move |tx, _| {
        worker::Entity::forget_silent(tx, silent).boxed()
    })
    .await;
    in_steps(db, "the queue's records of workers", move |tx, limit| {
        queue::delete_stale_consumers(tx, limit).boxed()
    })
    .await;
}
