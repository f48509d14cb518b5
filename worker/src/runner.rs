//! The worker's main loop: a delivery wakes it, then it claims jobs and runs attempts
//! at them until the queue is empty.

use std::sync::Arc;
use std::time::Duration;

use entity::clock::{new_id, now};
use entity::worker;
use futures_util::FutureExt;
use shared::change_watcher::ChangeWatcher;
use shared::database::Database;
use shared::queue::{ClaimRequest, ClaimedJob, Consumer, Delivery};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::Instrument;

use crate::agent::{AdaptiveLimit, Agent, JobPermit, LimitedAgent};
use crate::attempt::Attempt;
use crate::config::Config;
use crate::job_store::JobStore;
use crate::metrics::Metrics;
use crate::outcome::{self, AttemptError};
use crate::sources::Researcher;
use crate::writing::{Ways, pipeline};
use crate::{maintenance, telemetry};

/// How long releasing the running jobs may take at the end: longer than
/// [`JobStore`] keeps trying.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);

struct Runner {
    /// Unique for each start, so that no worker is taken for its predecessor.
    name: String,
    store: Arc<JobStore>,
    agent: Arc<LimitedAgent>,
    /// Has a permit for each job that may run at once. apalis counts too, so that it
    /// fetches no more than can run, but forgets what runs when it starts anew.
    limit: Arc<AdaptiveLimit>,
    metrics: Arc<Metrics>,
    ways: Ways,
    researcher: Arc<Researcher>,
    /// Canceled when no more jobs are to be claimed.
    stop: CancellationToken,
    /// Canceled when running jobs are to be released.
    release: CancellationToken,
}

/// Works until `stop`, then lets running jobs end for the time that the settings
/// grant, releases those that are left, and returns.
pub async fn run(
    config: &Config,
    db: Database,
    agent: Arc<dyn Agent>,
    researcher: Arc<Researcher>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let name = format!("{}-{}", host(), new_id().simple());
    let release = CancellationToken::new();
    let limit = Arc::new(AdaptiveLimit::new(config.worker_concurrency.into()));
    let lease = config.job_lease();
    let runner = Arc::new(Runner {
        name: name.clone(),
        store: Arc::new(JobStore::new(
            db.clone(),
            &name,
            lease,
            pipeline::first_phase(agent.scope()),
            config.job_backoff_base(),
            release.clone(),
        )),
        agent: Arc::new(LimitedAgent::new(
            agent,
            config.agent.name(),
            limit.clone(),
            config.agent_timeout(),
            metrics.clone(),
        )),
        limit: limit.clone(),
        metrics: metrics.clone(),
        ways: config.agent_writing.clone(),
        researcher,
        stop: stop.clone(),
        release,
    });
    let changes = ChangeWatcher::watch(&db);
    tracing::info!(
        worker = name,
        concurrency = config.worker_concurrency,
        "the worker is ready"
    );
    tokio::select! {
        () = runner.clone().consume(changes.clone(), config.worker_concurrency.into()) => {}
        () = runner.release_after(config.shutdown_grace()) => {}
        () = maintenance::rescue::run_periodically(db.clone(), lease, metrics) => {}
        () = maintenance::heartbeat::run_periodically(db.clone(), registration(config, &name)) => {}
        () = maintenance::pause::watch(db.clone(), limit, changes) => {}
        () = maintenance::cleanup::run_periodically(db.clone(), config.finished_jobs_keep()) => {}
        () = db.clone().follow_clock() => {}
    }
    tracing::info!(worker = name, "the worker has stopped");
}

impl Runner {
    /// Takes deliveries until `stop`, then waits until all attempts have ended.
    ///
    /// When apalis fails it drops its handlers, so each delivery has a task of its
    /// own, which ends only with its work or with this function.
    async fn consume(self: Arc<Self>, changes: ChangeWatcher, concurrency: usize) {
        let tasks = TaskTracker::new();
        let dropped = CancellationToken::new();
        let _guard = dropped.clone().drop_guard();
        let (runner, spawner) = (self.clone(), tasks.clone());
        let consumer = Consumer {
            db: self.store.db().clone(),
            changes,
            concurrency,
            name: self.name.clone(),
            handler: Arc::new(move |delivery| {
                let work = runner.clone().work_loop(delivery);
                let task = spawner.spawn(dropped.clone().run_until_cancelled_owned(work));
                async move {
                    if let Err(panic) = task.await {
                        tracing::error!(%panic, "a delivery's task panicked; its job will be rescued");
                    }
                }
                .boxed()
            }),
        };
        consumer.run(self.stop.clone()).await;
        tasks.close();
        tasks.wait().await;
    }

    /// Once the worker is to stop, releases what runs longer than `grace`, and ends
    /// when that takes too long as well.
    async fn release_after(&self, grace: Duration) {
        self.stop.cancelled().await;
        sleep(grace).await;
        self.release.cancel();
        sleep(RELEASE_TIMEOUT).await;
        tracing::warn!("the database is unavailable: jobs not released will be rescued");
    }

    /// Claims jobs and runs attempts at them, one after the other, until none is
    /// queued. The delivery only wakes the worker; the fair order chooses the job.
    async fn work_loop(self: Arc<Self>, delivery: Delivery) {
        if let Err(error) = &delivery.payload {
            tracing::error!(error, delivery = delivery.id, "can't read a delivery");
        }
        let mut woken_by = Some(delivery.id);
        while let Some(_permit) = self.acquire_permit(&mut woken_by).await {
            let request = ClaimRequest {
                delivery_id: woken_by.take(),
                attempt: new_id(),
            };
            match self.store.claim(request).await {
                Ok(Some(claimed)) => self.run_attempt(claimed).await,
                // The next permit is to be had when the queue is resumed.
                Ok(None) if self.is_paused().await => {}
                Ok(None) => return,
                // A delivery that was neither used nor released is replaced by the sweep.
                Err(error) => return tracing::error!(%error, "can't claim a job"),
            }
        }
    }

    /// Waits for a permit to run a job; None if no more are to be claimed. If that
    /// takes time the delivery is released, to wake others.
    async fn acquire_permit(&self, woken_by: &mut Option<String>) -> Option<JobPermit<'_>> {
        let permit = self.limit.acquire_job().now_or_never();
        if permit.is_some() && !self.stop.is_cancelled() {
            return permit;
        }
        if let Some(unused) = woken_by.take() {
            self.store.release_delivery(unused).await;
        }
        let permit = self.limit.acquire_job();
        self.stop.run_until_cancelled(permit).await
    }

    async fn is_paused(&self) -> bool {
        let paused = maintenance::pause::check(self.store.db(), &self.limit).await;
        paused.unwrap_or(false)
    }

    /// Runs an attempt in a task of its own, so that it holds up no other, and
    /// records how it ended.
    async fn run_attempt(&self, claimed: ClaimedJob) {
        let (lease, job) = (claimed.lease, claimed.job.clone());
        let running = self.metrics.attempt(&job);
        let log_span = telemetry::log_span(&job);
        let trace_span = telemetry::trace_span(&job, &self.name);
        let attempt = Attempt::new(
            claimed,
            self.store.clone(),
            self.agent.clone(),
            self.metrics.clone(),
        );
        let (ways, researcher) = (self.ways.clone(), self.researcher.clone());
        let release = self.release.clone();
        let work = async move {
            tracing::info!("attempt started");
            tokio::select! {
                written = pipeline::write_post(&attempt, &ways, &researcher) => written,
                () = release.cancelled() => Err(AttemptError::Released),
            }
        };
        let work = trace_span.scope(work).instrument(log_span.clone());
        let written = AbortOnDropHandle::new(tokio::spawn(work)).await;
        let written =
            written.unwrap_or_else(|panic| Err(AttemptError::Panicked(panic.to_string())));
        let recorded = async {
            if let Err(error) = &written {
                error.log();
            }
            let result = outcome::attempt_result(written);
            let recorded = self.store.record(lease, &job, &result).await;
            outcome::log_outcome(&recorded);
            recorded.ok()
        };
        let recorded = recorded.instrument(log_span).await;
        running.ended(&job, recorded);
        telemetry::end_trace_span(&trace_span, recorded);
    }
}

/// What the worker tells of itself in the table of workers.
fn registration(config: &Config, name: &str) -> worker::Model {
    let models = config.agent.models().unwrap_or_default();
    worker::Model {
        name: name.to_owned(),
        host: host(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        agent: config.agent.name().to_owned(),
        // The model that is asked if a post names none.
        model: models
            .into_iter()
            .map(|model| model.id)
            .next()
            .unwrap_or_default(),
        concurrency: config.worker_concurrency.into(),
        started_at: now(),
        seen_at: now(),
    }
}

fn host() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().into_owned()
}
