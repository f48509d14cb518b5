//! The pause of the queue: while it is on, the worker claims no jobs.

use std::sync::Arc;
use std::time::Duration;

use entity::queue_state;
use sea_orm::DbErr;
use shared::change_watcher::ChangeWatcher;
use shared::database::Database;
use tokio::time::sleep;

use crate::agent::AdaptiveLimit;

/// After a change of the database the pause is looked up, but not more often than this.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Keeps `limit` to the pause, for ever.
pub(crate) async fn watch(db: Database, limit: Arc<AdaptiveLimit>, mut changes: ChangeWatcher) {
    loop {
        changes.changed().await;
        if let Err(error) = check(&db, &limit).await {
            tracing::debug!(%error, "can't look up whether the queue is paused");
        }
        sleep(MIN_POLL_INTERVAL).await;
    }
}

/// Whether the queue is paused; `limit` is kept to it from now on.
pub(crate) async fn check(db: &Database, limit: &AdaptiveLimit) -> Result<bool, DbErr> {
    let paused = queue_state::Entity::paused_at(db.read()).await?.is_some();
    if limit.set_paused(paused) {
        if paused {
            tracing::info!("the queue is paused: no new jobs");
        } else {
            tracing::info!("the queue is resumed");
        }
    }
    Ok(paused)
}
