//! What a worker counts, for Prometheus.

use std::time::Instant;

use anyhow::Result;
use entity::job::{self, WarningCode};
use shared::config::Model;
use shared::metrics::{
    Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, Registry, jobs_finished,
    process_registry, scrape_registry,
};
use shared::queue;
use shared::queue::RescueOutcome;

use crate::agent::{AgentError, AgentErrorKind, Completion};
use crate::config::Config;
use crate::outcome;
use shared::queue::RecordedOutcome;

/// Seconds from when a job is due until a worker has it.
const PICKUP_BUCKETS: [f64; 16] = [
    0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0,
];

/// Seconds that writing takes.
const WRITING_BUCKETS: [f64; 16] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
    3600.0,
];

/// What is counted since the start.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    models: Vec<Model>,
    running: Gauge,
    pickup: Histogram,
    attempts: IntCounterVec,
    attempt_duration: HistogramVec,
    jobs: IntCounterVec,
    job_duration: HistogramVec,
    calls: IntCounterVec,
    call_duration: HistogramVec,
    tokens: IntCounterVec,
    sweeps: IntCounterVec,
    rescues: IntCounterVec,
    redeliveries: IntCounter,
    warnings: IntCounterVec,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// When a setting is bad.
    pub fn new(config: &Config) -> Result<Self> {
        let registry = process_registry("worker")?;
        registry
            .gauge(
                "blog_worker_concurrency",
                "How many jobs this worker runs at once, at most.",
            )?
            .set(config.worker_concurrency.into());
        let metrics = Metrics {
            models: config.agent.models()?,
            running: registry.gauge(
                "blog_worker_jobs_running",
                "Jobs that this worker has at the moment.",
            )?,
            pickup: registry.histogram(
                "blog_job_pickup_seconds",
                "From when a job was due until a worker had it.",
                &PICKUP_BUCKETS,
            )?,
            attempts: registry.counters(
                "blog_job_attempts_total",
                "Attempts that ended. Of one that is lost, the job was taken from its worker.",
                &["outcome", "error"],
            )?,
            attempt_duration: registry.histograms(
                "blog_job_attempt_duration_seconds",
                "How long attempts took.",
                &["outcome"],
                &WRITING_BUCKETS,
            )?,
            jobs: jobs_finished(&registry)?,
            job_duration: registry.histograms(
                "blog_job_duration_seconds",
                "From when a job was asked for, or tried again by hand, until it was over.",
                &["outcome"],
                &WRITING_BUCKETS,
            )?,
            calls: registry.counters(
                "blog_agent_calls_total",
                "Calls to the agent. A canceled one was broken off by the worker.",
                &["agent", "model", "outcome"],
            )?,
            call_duration: registry.histograms(
                "blog_agent_call_duration_seconds",
                "How long calls to the agent took.",
                &["agent", "model"],
                &WRITING_BUCKETS,
            )?,
            tokens: registry.counters(
                "blog_agent_tokens_total",
                "Tokens that the models read (in) and wrote (out), as far as they told.",
                &["agent", "model", "direction"],
            )?,
            sweeps: registry.counters(
                "blog_sweeps_total",
                "Sweeps for what others have left behind.",
                &["outcome"],
            )?,
            rescues: registry.counters(
                "blog_rescues_total",
                "Jobs that were taken from a worker that was lost, by what became of them.",
                &["outcome"],
            )?,
            redeliveries: registry.counter(
                "blog_redeliveries_total",
                "Deliveries that were lost, and made again.",
            )?,
            warnings: registry.counters(
                "blog_job_warnings_total",
                "Warnings of jobs: what was cut from the models' answers, or is doubtful in them.",
                &["model", "code"],
            )?,
            registry,
        };
        metrics.show_zeros();
        Ok(metrics)
    }

    /// What has not happened yet is there all the same: a rate needs to know
    /// that it was zero.
    fn show_zeros(&self) {
        for outcome in [
            "succeeded",
            "awaiting_review",
            "released",
            "canceled",
            "lost",
            "unrecorded",
        ] {
            self.attempts.with_label_values(&[outcome, ""]);
        }
        self.jobs.with_label_values(&["succeeded", ""]);
        let codes = AgentErrorKind::ALL.map(AgentErrorKind::code);
        for error in codes.into_iter().chain(["internal"]) {
            self.attempts.with_label_values(&["retried", error]);
            self.attempts.with_label_values(&["failed", error]);
            self.jobs.with_label_values(&["failed", error]);
        }
        self.jobs.with_label_values(&["failed", "worker_lost"]);
        for Model { id, agent } in &self.models {
            for outcome in codes.into_iter().chain(["succeeded", "canceled"]) {
                self.calls.with_label_values(&[agent, id.as_str(), outcome]);
            }
            self.call_duration.with_label_values(&[agent, id.as_str()]);
            for code in WarningCode::ALL {
                self.warnings.with_label_values(&[id.as_str(), code.name()]);
            }
            for direction in ["in", "out"] {
                self.tokens
                    .with_label_values(&[agent, id.as_str(), direction]);
            }
        }
        for outcome in ["succeeded", "failed"] {
            self.sweeps.with_label_values(&[outcome]);
        }
        for outcome in ["requeued", "failed", "canceled"] {
            self.rescues.with_label_values(&[outcome]);
        }
    }

    /// All that a scrape is told.
    ///
    /// # Errors
    /// Never, but for the names of the metrics.
    pub fn render(&self) -> Result<String> {
        Ok(self.registry.render()? + &scrape_registry()?.render()?)
    }

    /// A job was claimed, and an attempt at it begins.
    pub(crate) fn attempt(&self, job: &job::Model) -> RunningAttempt<'_> {
        if let Some(waited) = job.delivery_id.as_deref().and_then(queue::lateness) {
            self.pickup.observe(waited.as_secs_f64());
        }
        self.running.inc();
        RunningAttempt {
            metrics: self,
            begun: Instant::now(),
        }
    }

    /// Makes a call to the agent, which may be dropped.
    pub(crate) async fn call(
        &self,
        model: &str,
        call: impl Future<Output = Result<Completion, AgentError>>,
    ) -> Result<Completion, AgentError> {
        let mut calling = RunningCall {
            metrics: self,
            labels: self.labels(model),
            begun: Instant::now(),
            outcome: "canceled",
        };
        let reply = call.await;
        calling.outcome = match &reply {
            Ok(_) => "succeeded",
            Err(error) => error.kind().code(),
        };
        if let Ok(Completion { usage, .. }) = &reply {
            let [agent, model] = calling.labels;
            let counted = [("in", usage.input_tokens), ("out", usage.output_tokens)];
            for (direction, tokens) in counted {
                let counter = self.tokens.with_label_values(&[agent, model, direction]);
                counter.inc_by(tokens.into());
            }
        }
        reply
    }

    /// Agent and model, as labels. Jobs may name a model that the settings have
    /// no longer.
    fn labels(&self, model: &str) -> [&str; 2] {
        let agent = self.models.first().map_or("other", |model| model.agent);
        let known = self.models.iter().find(|known| known.id == model);
        [agent, known.map_or("other", |known| &known.id)]
    }

    /// A sweep has ended.
    pub(crate) fn swept<E>(&self, swept: &Result<(), E>) {
        let outcome = if swept.is_ok() { "succeeded" } else { "failed" };
        self.sweeps.with_label_values(&[outcome]).inc();
    }

    /// A job was taken from a worker that was lost.
    pub(crate) fn rescued(&self, rescue: RescueOutcome, job: &job::Model) {
        let outcome = match rescue {
            RescueOutcome::Requeued => "requeued",
            RescueOutcome::Failed => "failed",
            RescueOutcome::Canceled => "canceled",
            RescueOutcome::Skipped => return,
        };
        self.rescues.with_label_values(&[outcome]).inc();
        match rescue {
            RescueOutcome::Failed => self.job_finished(job, outcome, "worker_lost"),
            RescueOutcome::Canceled => self.job_finished(job, outcome, ""),
            RescueOutcome::Requeued | RescueOutcome::Skipped => {}
        }
    }

    /// A post by `model` is written with a warning.
    pub(crate) fn warned(&self, model: &str, code: WarningCode) {
        let model = self.labels(model)[1];
        self.warnings.with_label_values(&[model, code.name()]).inc();
    }

    /// A delivery that was lost was made again.
    pub(crate) fn redelivered(&self) {
        self.redeliveries.inc();
    }

    fn job_finished(&self, job: &job::Model, outcome: &str, error: &str) {
        self.jobs.with_label_values(&[outcome, error]).inc();
        // None if the clock of who asked is ahead of ours.
        let took = (entity::clock::now() - job.requested_at()).to_std();
        let duration = self.job_duration.with_label_values(&[outcome]);
        duration.observe(took.unwrap_or_default().as_secs_f64());
    }
}

/// An attempt under way.
pub(crate) struct RunningAttempt<'a> {
    metrics: &'a Metrics,
    begun: Instant,
}

impl RunningAttempt<'_> {
    /// The attempt has ended, and what was recorded of it, if it could be.
    pub(crate) fn ended(self, job: &job::Model, record: Option<RecordedOutcome>) {
        let metrics = self.metrics;
        let (outcome, error) = outcome::metric_labels(record);
        let attempts = &metrics.attempts;
        attempts.with_label_values(&[outcome, error]).inc();
        let duration = metrics.attempt_duration.with_label_values(&[outcome]);
        duration.observe(self.begun.elapsed().as_secs_f64());
        if matches!(outcome, "succeeded" | "failed" | "canceled") {
            metrics.job_finished(job, outcome, error);
        }
    }
}

impl Drop for RunningAttempt<'_> {
    fn drop(&mut self) {
        self.metrics.running.dec();
    }
}

/// A call under way, counted when it ends, however it does.
struct RunningCall<'a> {
    metrics: &'a Metrics,
    labels: [&'a str; 2],
    begun: Instant,
    outcome: &'static str,
}

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        let [agent, model] = self.labels;
        let calls = &self.metrics.calls;
        calls.with_label_values(&[agent, model, self.outcome]).inc();
        let duration = &self.metrics.call_duration;
        let duration = duration.with_label_values(&self.labels);
        duration.observe(self.begun.elapsed().as_secs_f64());
    }
}
