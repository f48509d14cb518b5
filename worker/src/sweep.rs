//! Picking up what others have left behind: jobs of workers that were lost, and
//! jobs whose delivery was.
//!
//! Every worker sweeps. Two that find the same job do no harm: the state
//! machine lets one of them win.

use std::sync::Arc;
use std::time::Duration;

use entity::job;
use entity::job::lifecycle::{self, Rescue};
use sea_orm::DbErr;
use shared::queue::{self, Payload};
use tokio::time::{MissedTickBehavior, interval};

use crate::Worker;

const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// How many jobs are picked up in one go, so that other writers get their turn.
const BATCH: u64 = 100;

impl Worker {
    /// Sweeps for ever.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut sweeps = interval(LONGEST_PAUSE.min(self.lease / 3));
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            sweeps.tick().await;
            if let Err(error) = self.sweep_once().await {
                tracing::warn!(%error, "can't sweep; trying again");
            }
        }
    }

    async fn sweep_once(&self) -> Result<(), DbErr> {
        for job in lifecycle::abandoned(self.db.read(), BATCH).await? {
            self.rescue(job).await?;
        }
        for job in queue::stranded(self.db.read(), self.lease, BATCH).await? {
            self.redeliver(job).await?;
        }
        Ok(())
    }

    async fn rescue(&self, job: job::Model) -> Result<(), DbErr> {
        let delivery = queue::delivery_id(Duration::ZERO);
        let tx = self.db.begin().await?;
        let rescue = lifecycle::rescue(&tx, &job, &delivery).await?;
        if rescue == Rescue::Requeued {
            let payload = Payload {
                job: job.id,
                attempt: job.attempt + 1,
            };
            queue::push(&tx, &delivery, payload, Duration::ZERO).await?;
        }
        tx.commit().await?;
        if rescue != Rescue::Nothing {
            tracing::warn!(job_id = %job.id, attempt = job.attempt, ?rescue, "a worker was lost");
        }
        Ok(())
    }

    async fn redeliver(&self, job: job::Model) -> Result<(), DbErr> {
        let Some(lost) = &job.delivery_id else {
            return Ok(());
        };
        let delivery = queue::delivery_id(Duration::ZERO);
        let tx = self.db.begin().await?;
        if lifecycle::redeliver(&tx, job.id, lost, &delivery).await? {
            queue::take(&tx, lost).await?;
            let payload = Payload {
                job: job.id,
                attempt: job.attempt + 1,
            };
            queue::push(&tx, &delivery, payload, Duration::ZERO).await?;
            tracing::warn!(job_id = %job.id, "a delivery was lost");
        }
        tx.commit().await
    }
}
