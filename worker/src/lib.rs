//! Takes jobs from the queue and has an agent write the posts.
//!
//! [`Worker`] takes a delivery and makes the attempt that it is for;
//! [`generate`] is what an attempt does; [`sweep`] picks up what others have
//! left behind.

pub mod agent;
pub mod config;
pub mod generate;
pub mod outcome;
pub mod sweep;
pub mod writing;

use std::sync::Arc;
use std::time::Duration;

use entity::job::lifecycle::{self, Lease};
use entity::{job, post};
use futures_util::FutureExt;
use sea_orm::{DbErr, EntityTrait};
use shared::database::Database;
use shared::queue::{self, Consumer, Delivery, Payload};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::Instrument;

use crate::agent::Agent;
use crate::config::Config;
use crate::generate::Attempt;
use crate::outcome::Stop;

/// A worker at work.
pub struct Worker {
    db: Database,
    agent: Arc<dyn Agent>,
    /// Unique for each start, so that no one is taken for a predecessor.
    name: String,
    lease: Duration,
    backoff: Duration,
    /// One for each job that may run at once. apalis counts too, so that it
    /// fetches no more than can run, but forgets what runs when it begins anew.
    slots: Semaphore,
    /// Canceled when running jobs are to be given back.
    release: CancellationToken,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Works until `stop`, then lets running jobs end for the time that the
/// settings grant, gives back what is left, and returns.
pub async fn run(config: &Config, db: Database, agent: Arc<dyn Agent>, stop: CancellationToken) {
    let worker = Arc::new(Worker {
        db: db.clone(),
        agent,
        name: format!("{}-{}", host(), uuid::Uuid::now_v7().simple()),
        lease: config.job_lease(),
        backoff: config.job_backoff_base(),
        slots: Semaphore::new(config.worker_concurrency.into()),
        release: CancellationToken::new(),
    });
    tracing::info!(
        worker = worker.name,
        concurrency = config.worker_concurrency,
        "the worker is ready"
    );
    // When apalis fails it drops its handlers, so each delivery has a task of its
    // own, which ends only with its work or with this function.
    let (tasks, gone) = (TaskTracker::new(), CancellationToken::new());
    let _gone = gone.clone().drop_guard();
    let (taker, taken) = (worker.clone(), tasks.clone());
    let consumer = Consumer {
        db,
        concurrency: config.worker_concurrency.into(),
        name: worker.name.clone(),
        handler: Arc::new(move |delivery| {
            let work = taker.clone().take(delivery);
            let task = taken.spawn(gone.clone().run_until_cancelled_owned(work));
            async move {
                if let Err(panic) = task.await {
                    tracing::error!(%panic, "taking a delivery panicked; the sweep finds its job");
                }
            }
            .boxed()
        }),
    };
    let (grace, release) = (config.shutdown_grace(), worker.release.clone());
    let stopping = stop.clone();
    let release_in_time = async move {
        stopping.cancelled().await;
        tokio::time::sleep(grace).await;
        release.cancel();
        std::future::pending::<()>().await;
    };
    let work = async move {
        consumer.run(stop).await;
        tasks.close();
        tasks.wait().await;
    };
    tokio::select! {
        () = work => {}
        () = release_in_time => {}
        () = worker.clone().sweep() => {}
    }
    tracing::info!(worker = worker.name, "the worker has stopped");
}

impl Worker {
    /// Makes the attempt that a delivery is for, if it is still to be made.
    async fn take(self: Arc<Self>, delivery: Delivery) {
        let Ok(_slot) = self.slots.acquire().await else {
            return;
        };
        match self.claim(&delivery).await {
            Ok(Some(attempt)) => self.clone().attempt(attempt).await,
            Ok(None) => tracing::debug!(delivery = delivery.id, "a delivery came too late"),
            // The sweep finds a job that was delivered but not claimed.
            Err(error) => tracing::error!(%error, delivery = delivery.id, "can't claim a job"),
        }
    }

    /// Uses up a delivery and claims its job, both or neither.
    async fn claim(&self, delivery: &Delivery) -> Result<Option<Attempt>, DbErr> {
        let tx = self.db.begin().await?;
        let claimed = match &delivery.payload {
            Ok(Payload { job, attempt }) => {
                lifecycle::claim(&tx, *job, *attempt, &self.name, self.lease).await?
            }
            Err(error) => {
                tracing::error!(error, delivery = delivery.id, "a delivery can't be read");
                None
            }
        };
        // After the job: in this order all others lock the two.
        queue::take(&tx, &delivery.id).await?;
        let attempt = match claimed {
            Some((lease, job)) => {
                let post = post::Entity::find_by_id(job.post_id).one(&tx).await?;
                post.map(|post| Attempt::new(lease, job, post))
            }
            None => None,
        };
        tx.commit().await?;
        Ok(attempt)
    }

    /// Makes an attempt in a task of its own, so that it holds up no other, and
    /// records how it went.
    async fn attempt(self: Arc<Self>, attempt: Attempt) {
        let (lease, job) = (attempt.lease, attempt.job.clone());
        let span = tracing::info_span!("attempt", job_id = %job.id, attempt = job.attempt);
        let worker = self.clone();
        let work = async move {
            tracing::info!("begun");
            tokio::select! {
                text = worker.generate(attempt) => text,
                () = worker.release.cancelled() => Err(Stop::Released),
            }
        };
        let written = tokio::spawn(work.instrument(span.clone()));
        let written = AbortOnDropHandle::new(written).await;
        let written = written.unwrap_or_else(|panic| Err(Stop::Panicked(panic.to_string())));
        self.record(&lease, &job, written).instrument(span).await;
    }

    async fn record(&self, lease: &Lease, job: &job::Model, written: Result<post::Text, Stop>) {
        if let Err(stop) = &written {
            stop.log();
        }
        let recorded = self.insist(|| self.settle(lease, job, &written).boxed());
        match recorded.await {
            Ok(record) => record.log(),
            Err(error) => {
                tracing::error!(%error, "can't record how an attempt ended; the sweep will");
            }
        }
    }
}

fn host() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().into_owned()
}
