//! Takes jobs from the queue and has an agent write the posts.
//!
//! A delivery wakes a [`Worker`], which then takes jobs until none is in line;
//! [`generate`] is what an attempt at one does; [`sweep`] picks up what others
//! have left behind.

pub mod agent;
pub mod config;
pub mod generate;
pub mod metrics;
mod observe;
pub mod outcome;
mod pace;
pub mod prune;
pub mod scrape;
pub mod sweep;
pub mod writing;

use std::sync::Arc;
use std::time::Duration;

use entity::job::Phase;
use entity::job::lifecycle::{self, Lease};
use entity::{job, post};
use futures_util::FutureExt;
use sea_orm::{DatabaseTransaction, DbErr, EntityTrait};
use shared::database::Database;
use shared::queue::{self, Consumer, Delivery};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::Instrument;

use crate::agent::{Agent, Traced};
use crate::config::Config;
use crate::generate::Attempt;
use crate::metrics::Metrics;
use crate::outcome::{Ending, Record, Stop};
use crate::pace::{Pace, Slot};

/// A worker at work.
pub struct Worker {
    db: Database,
    agent: Arc<dyn Agent>,
    metrics: Arc<Metrics>,
    /// Unique for each start, so that no one is taken for a predecessor.
    name: String,
    lease: Duration,
    backoff: Duration,
    /// How long a call may wait until it is made.
    patience: Duration,
    /// Has a slot for each job that may run at once. apalis counts too, so that it
    /// fetches no more than can run, but forgets what runs when it begins anew.
    pace: Pace,
    /// Canceled when no more jobs are to be taken.
    stop: CancellationToken,
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
pub async fn run(
    config: &Config,
    db: Database,
    agent: Arc<dyn Agent>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let worker = Arc::new(Worker {
        db: db.clone(),
        agent: Arc::new(Traced::new(agent, config.agent.name())),
        metrics,
        name: format!("{}-{}", host(), uuid::Uuid::now_v7().simple()),
        lease: config.job_lease(),
        backoff: config.job_backoff_base(),
        patience: config.agent_timeout(),
        pace: Pace::new(config.worker_concurrency.into()),
        stop: stop.clone(),
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
        () = prune::regularly(worker.db.clone(), config.finished_jobs_keep()) => {}
    }
    tracing::info!(worker = worker.name, "the worker has stopped");
}

impl Worker {
    /// Takes jobs and makes attempts at them, one after the other, until none is
    /// in line. The delivery is what woke us; whose turn it is the line says.
    async fn take(self: Arc<Self>, delivery: Delivery) {
        if let Err(error) = &delivery.payload {
            tracing::error!(error, delivery = delivery.id, "a delivery can't be read");
        }
        let mut woken_by = Some(delivery.id);
        while let Some(_slot) = self.slot(&mut woken_by).await {
            match self.claim(woken_by.take()).await {
                Ok(Some(attempt)) => self.clone().attempt(attempt).await,
                Ok(None) => return,
                // The sweep finds a job whose delivery was neither used nor handed back.
                Err(error) => return tracing::error!(%error, "can't claim a job"),
            }
        }
    }

    /// Waits until there is room for a job; None if no more are to be taken. If
    /// that takes time the delivery is put back, to wake others.
    async fn slot(&self, woken_by: &mut Option<String>) -> Option<Slot<'_>> {
        let slot = self.pace.slot().now_or_never();
        if slot.is_some() && !self.stop.is_cancelled() {
            return slot;
        }
        if let Some(unused) = woken_by.take() {
            self.hand_back(unused).await;
        }
        self.stop.run_until_cancelled(self.pace.slot()).await
    }

    async fn hand_back(&self, delivery: String) {
        let hand_back = self
            .db
            .transact(move |tx| async move { queue::hand_back(tx, &delivery).await }.boxed());
        if let Err(error) = hand_back.await {
            tracing::warn!(%error, "can't hand back a delivery; the sweep will");
        }
    }

    /// Claims the job whose turn it is and uses up its delivery, both or neither.
    async fn claim(&self, woken_by: Option<String>) -> Result<Option<Attempt>, DbErr> {
        let (name, lease) = (self.name.clone(), self.lease);
        let phase = generate::first_phase(self.agent.scope());
        self.db
            .transact(move |tx| claim(tx, woken_by, name, lease, phase).boxed())
            .await
    }

    /// Makes an attempt in a task of its own, so that it holds up no other, and
    /// records how it went.
    async fn attempt(self: Arc<Self>, attempt: Attempt) {
        let (lease, job) = (attempt.lease, attempt.job.clone());
        let running = self.metrics.attempt(&job);
        let (span, trace) = (observe::span(&job), observe::trace(&job, &self.name));
        let worker = self.clone();
        let work = async move {
            tracing::info!("begun");
            tokio::select! {
                text = worker.generate(attempt) => text,
                () = worker.release.cancelled() => Err(Stop::Released),
            }
        };
        let work = trace.around(work).instrument(span.clone());
        let written = tokio::spawn(work);
        let written = AbortOnDropHandle::new(written).await;
        let written = written.unwrap_or_else(|panic| Err(Stop::Panicked(panic.to_string())));
        let record = self.record(&lease, &job, written).instrument(span).await;
        running.ended(&job, record);
        observe::end(&trace, record);
    }

    /// What was recorded; None if nothing could be.
    async fn record(
        &self,
        lease: &Lease,
        job: &job::Model,
        written: Result<post::Text, Stop>,
    ) -> Option<Record> {
        if let Err(stop) = &written {
            stop.log();
        }
        let ending = Ending::from(written);
        let recorded = self.insist(|| self.settle(lease, job, &ending).boxed());
        let recorded = recorded.await;
        match &recorded {
            Ok(record) => record.log(),
            Err(error) => {
                tracing::error!(%error, "can't record how an attempt ended; the sweep will");
            }
        }
        recorded.ok()
    }
}

async fn claim(
    tx: &DatabaseTransaction,
    woken_by: Option<String>,
    worker: String,
    lease: Duration,
    phase: Phase,
) -> Result<Option<Attempt>, DbErr> {
    let claimed = lifecycle::claim(tx, &worker, lease, phase).await?;
    let used = claimed
        .as_ref()
        .and_then(|(_, job)| job.delivery_id.as_deref());
    // After the job: in this order all others lock the two. And one by one in
    // the order of their ids, for another worker may have been woken by the
    // delivery that we use, and use the one that woke us.
    let mut deliveries: Vec<&str> = used.into_iter().chain(woken_by.as_deref()).collect();
    deliveries.sort_unstable();
    deliveries.dedup();
    for delivery in deliveries {
        match Some(delivery) == used {
            true => queue::take(tx, delivery).await?,
            false => queue::hand_back(tx, delivery).await?,
        }
    }
    let Some((lease, job)) = claimed else {
        return Ok(None);
    };
    let post = post::Entity::find_by_id(job.post_id).one(tx).await?;
    Ok(post.map(|post| Attempt::new(lease, job, post)))
}

fn host() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().into_owned()
}
