//! Picking up what others have left behind: jobs of workers that were lost, and
//! jobs whose delivery was.
//!
//! Every worker sweeps. Two that find the same job do no harm: the state
//! machine lets one of them win.

use std::sync::Arc;
use std::time::Duration;

use entity::job;
use entity::job::lifecycle::{self, Rescue};
use futures_util::FutureExt;
use sea_orm::{DatabaseTransaction, DbErr};
use shared::queue::{self, Payload};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::Instrument;

use crate::{Worker, observe};

const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// How many jobs are picked up in one go, so that other writers get their turn.
const BATCH: u64 = 100;

impl Worker {
    /// Sweeps for ever.
    ///
    /// While the database is away nobody can renew a lease. When it is back the
    /// living have as long as a lease to do so, before any is taken for lost.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut sweeps = interval(LONGEST_PAUSE.min(self.lease / 3));
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rescues_from = Instant::now();
        loop {
            sweeps.tick().await;
            let swept = self.sweep_once(rescues_from <= Instant::now()).await;
            self.metrics.swept(&swept);
            if let Err(error) = swept {
                tracing::warn!(%error, "can't sweep; trying again");
                rescues_from = Instant::now() + self.lease;
            }
        }
    }

    async fn sweep_once(&self, rescues: bool) -> Result<(), DbErr> {
        if rescues {
            for job in lifecycle::abandoned(self.db.read(), BATCH).await? {
                let span = observe::span(&job);
                self.rescue(job).instrument(span).await?;
            }
        }
        let strays = self
            .db
            .transact(|tx| queue::drop_strays(tx).boxed())
            .await?;
        if strays > 0 {
            tracing::error!(strays, "the queue held what is not ours; it was removed");
        }
        for job in queue::stranded(self.db.read(), self.lease, BATCH).await? {
            let span = observe::span(&job);
            self.redeliver(job).instrument(span).await?;
        }
        Ok(())
    }

    async fn rescue(&self, job: job::Model) -> Result<(), DbErr> {
        let lost = job.clone();
        let rescue = self.db.transact(move |tx| rescue(tx, lost).boxed()).await?;
        if rescue != Rescue::Nothing {
            tracing::warn!(?rescue, "a worker was lost");
            self.metrics.rescued(rescue, &job);
        }
        Ok(())
    }

    async fn redeliver(&self, job: job::Model) -> Result<(), DbErr> {
        if self
            .db
            .transact(move |tx| redeliver(tx, job).boxed())
            .await?
        {
            tracing::warn!("a delivery was lost");
            self.metrics.redelivered();
        }
        Ok(())
    }
}

async fn rescue(tx: &DatabaseTransaction, job: job::Model) -> Result<Rescue, DbErr> {
    let delivery = queue::delivery_id(Duration::ZERO);
    let rescue = lifecycle::rescue(tx, &job, &delivery).await?;
    if rescue == Rescue::Requeued {
        queue::push(tx, &delivery, Payload::next(&job), Duration::ZERO).await?;
    }
    Ok(rescue)
}

async fn redeliver(tx: &DatabaseTransaction, job: job::Model) -> Result<bool, DbErr> {
    let Some(lost) = &job.delivery_id else {
        return Ok(false);
    };
    let delivery = queue::delivery_id(Duration::ZERO);
    let given = lifecycle::redeliver(tx, job.id, lost, &delivery).await?;
    if given {
        queue::take(tx, &[lost]).await?;
        queue::push(tx, &delivery, Payload::next(&job), Duration::ZERO).await?;
    }
    Ok(given)
}
