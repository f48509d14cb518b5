//! Forgetting jobs that were over long ago, and workers that are gone.

use std::time::Duration;

use chrono::TimeDelta;
use entity::clock::now;
use entity::{job, worker};
use futures_util::FutureExt;
use shared::cleanup::{CleanupSchedule, delete_in_batches};
use shared::database::Database;
use shared::{events, queue};

/// Workers that have been silent for so long are forgotten.
const LOST_WORKER_TTL: TimeDelta = TimeDelta::days(1);

/// Prunes now and then, for ever. Jobs are kept for `keep` after their end.
pub async fn run_periodically(db: Database, keep: Duration) {
    let mut rounds = CleanupSchedule::new(db.clone());
    loop {
        rounds.next_round().await;
        run_once(&db, keep).await;
    }
}

/// Removes all that is old.
pub async fn run_once(db: &Database, keep: Duration) {
    let finished = now() - TimeDelta::from_std(keep).unwrap_or(TimeDelta::MAX);
    delete_in_batches(db, "jobs", move |tx, limit| {
        job::Entity::delete_finished(tx, finished, limit).boxed()
    })
    .await;
    delete_in_batches(db, "events of finished jobs", |tx, limit| {
        events::compact_finished(tx, limit).boxed()
    })
    .await;
    let silent = now() - LOST_WORKER_TTL;
    // One for each start of the last days: few enough for one step.
    delete_in_batches(db, "workers", move |tx, _| {
        worker::Entity::delete_lost(tx, silent).boxed()
    })
    .await;
    delete_in_batches(db, "the queue's records of workers", move |tx, limit| {
        queue::delete_stale_consumers(tx, limit).boxed()
    })
    .await;
}
