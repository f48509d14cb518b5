//! The worker's heartbeat: its row in the table of workers, renewed every few seconds.

use entity::worker;
use shared::database::Database;
use tokio::time::{MissedTickBehavior, interval};

/// Sends heartbeats for ever.
pub(crate) async fn run_periodically(db: Database, row: worker::Model) {
    let mut ticks = interval(worker::HEARTBEAT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let row = row.clone();
        let sent = db.transaction(async move |tx| row.heartbeat(tx).await);
        if let Err(error) = sent.await {
            tracing::warn!(%error, "can't send the worker's heartbeat; trying again");
        }
    }
}
