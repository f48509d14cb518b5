//! What the worker tells those who look after the service, and hears from them.

use std::sync::Arc;
use std::time::Duration;

use entity::{queue_state, worker};
use sea_orm::DbErr;
use shared::changes::Changes;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::Worker;

/// The worker looks whether the queue is paused after something has changed, but
/// not more often than this.
const LEAST_PAUSE: Duration = Duration::from_millis(500);

impl Worker {
    /// Tells every few seconds that the worker is there, for ever.
    pub(crate) async fn beat(self: Arc<Self>, row: worker::Model) {
        let mut beats = interval(worker::BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            let row = row.clone();
            let beat = self.db.transaction(async move |tx| row.beat(tx).await);
            if let Err(error) = beat.await {
                tracing::warn!(%error, "can't tell that this worker is there; trying again");
            }
        }
    }

    /// Looks again and again whether the queue is paused, for ever.
    pub(crate) async fn heed_pauses(self: Arc<Self>, mut changes: Changes) {
        loop {
            changes.next().await;
            if let Err(error) = self.is_paused().await {
                tracing::debug!(%error, "can't see whether the queue is paused");
            }
            sleep(LEAST_PAUSE).await;
        }
    }

    /// Whether the queue is paused; the pace heeds it from now on.
    pub(crate) async fn is_paused(&self) -> Result<bool, DbErr> {
        let paused = queue_state::Entity::paused_at(self.db.read()).await?;
        let paused = paused.is_some();
        if self.pace.pause(paused) {
            match paused {
                true => tracing::info!("the queue is paused: no new jobs"),
                false => tracing::info!("the queue is resumed"),
            }
        }
        Ok(paused)
    }
}
