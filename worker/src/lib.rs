//! Takes jobs from the queue and has an agent write the posts.
//!
//! A delivery wakes a [`Worker`], which then takes jobs until none is in line;
//! [`generate`] is what an attempt at one does; [`maintenance`] picks up what others
//! have left behind.

pub mod agent;
mod batcher;
pub mod config;
pub mod generate;
pub mod init;
pub mod maintenance;
pub mod metrics;
pub mod metrics_server;
pub mod outcome;
mod telemetry;
pub mod writing;

use std::sync::Arc;
use std::time::Duration;

use entity::clock::{new_id, now};
use entity::{job, post, worker};
use futures_util::FutureExt;
use shared::change_watcher::ChangeWatcher;
use shared::database::Database;
use shared::queue::{
    self, Checkpoint, ClaimRequest, ClaimedJob, Consumer, Delivery, Lease, LeaseStatus,
    RecordedOutcome,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::Instrument;

use crate::agent::adaptive_limit::{AdaptiveLimit, JobPermit};
use crate::agent::{Agent, Traced};
use crate::batcher::Batcher;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::outcome::AttemptError;

/// How long running jobs may take to be given back: longer than any of them
/// insists on it.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// A worker at work.
pub struct Worker {
    db: Database,
    agent: Arc<dyn Agent>,
    metrics: Arc<Metrics>,
    /// Claims a job if one is in line.
    claims: Batcher<ClaimRequest, Option<ClaimedJob>>,
    checkpoints: Batcher<(Lease, Checkpoint), LeaseStatus>,
    /// Stores posts, and says whether each was still ours to write.
    posts: Batcher<(Lease, post::PostContent), bool>,
    /// Unique for each start, so that no one is taken for a predecessor.
    name: String,
    lease: Duration,
    backoff: Duration,
    /// How long a call may wait until it is made.
    call_timeout: Duration,
    /// Has a slot for each job that may run at once. apalis counts too, so that it
    /// fetches no more than can run, but forgets what runs when it begins anew.
    limit: AdaptiveLimit,
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
    let (lease, phase) = (config.job_lease(), generate::first_phase(agent.scope()));
    let name = format!("{}-{}", host(), new_id().simple());
    let claimer = name.clone();
    let worker = Arc::new(Worker {
        db: db.clone(),
        agent: Arc::new(Traced::new(agent, config.agent.name())),
        metrics,
        claims: Batcher::new(db.clone(), move |tx, claims, _| {
            let claimer = claimer.clone();
            async move { queue::claim(tx, &claimer, lease, phase, &claims).await }.boxed()
        }),
        checkpoints: Batcher::new(db.clone(), |tx, done, lock_mode| {
            async move { queue::checkpoint(tx, &done, lock_mode).await }.boxed()
        }),
        posts: Batcher::new(db.clone(), |tx, written, lock_mode| {
            async move { queue::complete(tx, &written, lock_mode).await }.boxed()
        }),
        name,
        lease,
        backoff: config.job_backoff_base(),
        call_timeout: config.agent_timeout(),
        limit: AdaptiveLimit::new(config.worker_concurrency.into()),
        stop: stop.clone(),
        release: CancellationToken::new(),
    });
    let myself = worker::Model {
        name: worker.name.clone(),
        host: host(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        agent: config.agent.name().to_owned(),
        model: default_model(config),
        concurrency: config.worker_concurrency.into(),
        started_at: now(),
        seen_at: now(),
    };
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
    let changes = ChangeWatcher::watch(&db);
    let consumer = Consumer {
        db,
        changes: changes.clone(),
        concurrency: config.worker_concurrency.into(),
        name: worker.name.clone(),
        handler: Arc::new(move |delivery| {
            let work = taker.clone().work_loop(delivery);
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
        sleep(grace).await;
        release.cancel();
        sleep(RELEASE_TIMEOUT).await;
        tracing::warn!("the database stayed away: others take up what could not be given back");
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
        () = worker.db.clone().follow_clock() => {}
        () = worker.clone().heartbeat(myself) => {}
        () = worker.clone().watch_pause(changes) => {}
        () = maintenance::cleanup::run_periodically(worker.db.clone(), config.finished_jobs_keep()) => {}
    }
    tracing::info!(worker = worker.name, "the worker has stopped");
}

impl Worker {
    /// Takes jobs and makes attempts at them, one after the other, until none is
    /// in line. The delivery is what woke us; whose turn it is the line says.
    async fn work_loop(self: Arc<Self>, delivery: Delivery) {
        if let Err(error) = &delivery.payload {
            tracing::error!(error, delivery = delivery.id, "a delivery can't be read");
        }
        let mut woken_by = Some(delivery.id);
        while let Some(_slot) = self.acquire_permit(&mut woken_by).await {
            let claim = ClaimRequest {
                delivery_id: woken_by.take(),
                attempt: new_id(),
            };
            match self
                .retry_until_stored(|| self.claims.submit(claim.clone()).boxed())
                .await
            {
                Ok(Some(attempt)) => self.clone().run_attempt(attempt).await,
                // The next slot is to be had when the queue is resumed.
                Ok(None) if self.is_paused().await.unwrap_or(false) => {}
                Ok(None) => return,
                // The sweep finds a job whose delivery was neither used nor handed back.
                Err(error) => return tracing::error!(%error, "can't claim a job"),
            }
        }
    }

    /// Waits until there is room for a job; None if no more are to be taken. If
    /// that takes time the delivery is put back, to wake others.
    async fn acquire_permit(&self, woken_by: &mut Option<String>) -> Option<JobPermit<'_>> {
        let slot = self.limit.acquire_job().now_or_never();
        if slot.is_some() && !self.stop.is_cancelled() {
            return slot;
        }
        if let Some(unused) = woken_by.take() {
            self.release_delivery(unused).await;
        }
        self.stop
            .run_until_cancelled(self.limit.acquire_job())
            .await
    }

    async fn release_delivery(&self, delivery: String) {
        let hand_back = self
            .db
            .transaction(async move |tx| queue::release_delivery(tx, &delivery).await);
        if let Err(error) = hand_back.await {
            tracing::warn!(%error, "can't hand back a delivery; the sweep will");
        }
    }

    /// Makes an attempt in a task of its own, so that it holds up no other, and
    /// records how it went.
    async fn run_attempt(self: Arc<Self>, attempt: ClaimedJob) {
        let (lease, job) = (attempt.lease, attempt.job.clone());
        let running = self.metrics.attempt(&job);
        let (span, trace) = (
            telemetry::log_span(&job),
            telemetry::trace_span(&job, &self.name),
        );
        let worker = self.clone();
        let work = async move {
            tracing::info!("begun");
            tokio::select! {
                text = worker.generate(attempt) => text,
                () = worker.release.cancelled() => Err(AttemptError::Released),
            }
        };
        let work = trace.scope(work).instrument(span.clone());
        let written = tokio::spawn(work);
        let written = AbortOnDropHandle::new(written).await;
        let written =
            written.unwrap_or_else(|panic| Err(AttemptError::Panicked(panic.to_string())));
        let record = self
            .record_outcome(&lease, &job, written)
            .instrument(span)
            .await;
        running.ended(&job, record);
        telemetry::end_trace_span(&trace, record);
    }

    /// What was recorded; None if nothing could be.
    async fn record_outcome(
        &self,
        lease: &Lease,
        job: &job::Model,
        written: Result<post::PostContent, AttemptError>,
    ) -> Option<RecordedOutcome> {
        if let Err(stop) = &written {
            stop.log();
        }
        let ending = outcome::attempt_result(written);
        let recorded = self.retry_until_stored(|| self.record_result(lease, job, &ending).boxed());
        let recorded = recorded.await;
        match &recorded {
            Ok(record) => outcome::log_outcome(*record),
            Err(error) => {
                tracing::error!(%error, "can't record how an attempt ended; the sweep will");
            }
        }
        recorded.ok()
    }
}

/// The model that is asked if a job's owner has no wish.
fn default_model(config: &Config) -> String {
    let models = config.agent.models().unwrap_or_default();
    models
        .into_iter()
        .map(|model| model.id)
        .next()
        .unwrap_or_default()
}

fn host() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().into_owned()
}
