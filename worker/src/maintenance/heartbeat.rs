//! What the worker tells those who look after the service, and hears from them.

use std::sync::Arc;
use std::time::Duration;

use entity::{queue_state, worker};
use sea_orm::DbErr;
use shared::change_watcher::ChangeWatcher;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::Worker;

/// The worker looks whether the queue is paused after something has changed, but
/// not more often than this.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(500);

impl Worker {
    /// Tells every few seconds that the worker is there, for ever.
    pub(crate) async fn heartbeat(self: Arc<Self>, row: worker::Model) {
        let mut beats = interval(worker::HEARTBEAT_INTERVAL);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            let row = row.clone();
            let beat = self.db.transaction(async move |tx| row.heartbeat(tx).await);
            if let Err(error) = beat.await {
                tracing::warn!(%error, "can't tell that this worker is there; trying again");
            }
        }
    }

    /// Looks again and again whether the queue is paused, for ever.
    pub(crate) async fn watch_pause(self: Arc<Self>, mut changes: ChangeWatcher) {
        loop {
            changes.changed().await;
            if let Err(error) = self.is_paused().await {
                tracing::debug!(%error, "can't see whether the queue is paused");
            }
            sleep(MIN_POLL_INTERVAL).await;
        }
    }

    /// Whether the queue is paused; the pace heeds it from now on.
    pub(crate) async fn is_paused(&self) -> Result<bool, DbErr> {
        let paused = queue_state::Entity::paused_at(self.db.read()).await?;
        let paused = paused.is_some();
        if self.limit.set_paused(paused) {
            match paused {
                true => tracing::info!("the queue is paused: no new jobs"),
                false => tracing::info!("the queue is resumed"),
            }
        }
        Ok(paused)
    }
}
