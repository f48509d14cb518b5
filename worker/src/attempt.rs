//! One attempt at a job, as the writing sees it: calls to the agent, checkpoints, and
//! progress. The lease is renewed while a call runs, and that is when a cancel is
//! noticed. No transaction is open while the agent is called.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use entity::job::{self, Phase, Warning};
use entity::text::words_begun;
use entity::{post, step};
use shared::queue::{Checkpoint, ClaimedJob, Lease, LeaseStatus, Progress};
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use crate::agent::{
    CallScope, Completion, CompletionRequest, Event, LimitedAgent, OnEvent, Prompt, Usage,
};
use crate::job_store::JobStore;
use crate::metrics::Metrics;
use crate::outcome::AttemptError;

/// How often the lease is renewed, and so the longest until a cancel is noticed.
const LEASE_RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// A larger count is a provider's error, and might overflow the sum.
const MAX_TOKENS: u32 = 10_000_000;

pub(crate) struct Attempt {
    lease: Lease,
    job: job::Model,
    /// Without its content.
    post: post::Model,
    store: Arc<JobStore>,
    agent: Arc<LimitedAgent>,
    metrics: Arc<Metrics>,
    warnings: Mutex<Vec<Warning>>,
}

impl Attempt {
    pub(crate) fn new(
        ClaimedJob { lease, job, post }: ClaimedJob,
        store: Arc<JobStore>,
        agent: Arc<LimitedAgent>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let warnings = job.warnings.as_deref().map(serde_json::from_str);
        Attempt {
            warnings: Mutex::new(warnings.and_then(Result::ok).unwrap_or_default()),
            lease,
            job,
            post,
            store,
            agent,
            metrics,
        }
    }

    pub(crate) fn topic(&self) -> &str {
        &self.post.topic
    }

    /// The client's options, as the HTTP contract names them.
    pub(crate) fn options(&self) -> &serde_json::Value {
        &self.job.options
    }

    pub(crate) fn model(&self) -> &str {
        &self.job.model
    }

    pub(crate) fn agent_scope(&self) -> CallScope {
        self.agent.scope()
    }

    /// The steps that this and earlier attempts have finished.
    pub(crate) async fn finished_steps(&self) -> Result<Vec<step::Model>, AttemptError> {
        Ok(self.store.finished_steps(self.job.id).await?)
    }

    /// Calls the agent, and renews the lease meanwhile. When the job is canceled or
    /// lost the call is dropped, which ends it.
    pub(crate) async fn call(
        &self,
        prompt: Prompt,
        progress: &ProgressTracker,
        on_event: &OnEvent<'_>,
    ) -> Result<Completion, AttemptError> {
        let request = CompletionRequest {
            job_id: self.job.id,
            topic: self.post.topic.clone(),
            options: self.job.options.clone(),
            model: self.job.model.clone(),
            system: prompt.system,
            example: prompt.example,
            prompt: prompt.user,
            max_tokens: prompt.max_tokens,
        };
        let started = progress.read();
        let on_event = |event| {
            if matches!(event, Event::Discarded | Event::Restarted) {
                progress.reset(started);
            }
            on_event(event);
        };
        let call = self.agent.call(&request, &on_event);
        tokio::select! {
            reply = call => {
                reply.map_err(|error| error.map_or(AttemptError::Released, AttemptError::Agent))
            }
            stop = self.keep_lease_alive(progress) => Err(stop),
        }
    }

    /// Stores a finished step.
    pub(crate) async fn checkpoint(
        &self,
        position: i32,
        content: &str,
        progress: Progress,
        usage: Usage,
    ) -> Result<(), AttemptError> {
        let done = Checkpoint {
            position,
            content: content.to_owned(),
            progress,
            input_tokens: usage.input_tokens.min(MAX_TOKENS) as i32,
            output_tokens: usage.output_tokens.min(MAX_TOKENS) as i32,
        };
        check_lease(self.store.checkpoint(self.lease, done).await?)
    }

    /// Removes the steps at these positions, which turned out to be no text of the post.
    pub(crate) async fn discard_steps(&self, positions: Range<i32>) -> Result<(), AttemptError> {
        check_lease(self.store.discard_steps(self.lease, positions).await?)
    }

    /// Stores further warnings. An attempt that goes on after a break may have them
    /// already.
    pub(crate) async fn warn(
        &self,
        warnings: impl IntoIterator<Item = Warning>,
    ) -> Result<(), AttemptError> {
        let mut stored = self.warnings.lock().await;
        let count = stored.len();
        for warning in warnings {
            if !stored.contains(&warning) {
                tracing::info!(code = warning.code.name(), "warning about the text");
                stored.push(warning);
            }
        }
        if stored.len() > count {
            let status = self.store.set_warnings(self.lease, &stored).await?;
            check_lease(status)?;
        }
        Ok(())
    }

    /// Counts the warnings about a post that is written.
    pub(crate) async fn count_warnings(&self) {
        for warning in self.warnings.lock().await.iter() {
            self.metrics.warned(&self.job.model, warning.code);
        }
    }

    /// How many warnings there are.
    pub(crate) async fn warning_count(&self) -> usize {
        self.warnings.lock().await.len()
    }

    /// Removes warnings about a text that is not used.
    pub(crate) async fn withdraw_warnings(&self, which: Range<usize>) -> Result<(), AttemptError> {
        let mut stored = self.warnings.lock().await;
        if which.is_empty() {
            return Ok(());
        }
        stored.drain(which);
        check_lease(self.store.set_warnings(self.lease, &stored).await?)
    }

    /// Stores how far the post is.
    pub(crate) async fn report(&self, progress: Progress) -> Result<(), AttemptError> {
        check_lease(self.store.report(self.lease, progress).await?)
    }

    /// Renews the lease until it is lost or the job is to be canceled.
    async fn keep_lease_alive(&self, progress: &ProgressTracker) -> AttemptError {
        let mut ticks = interval(LEASE_RENEW_INTERVAL.min(self.lease.length / 3));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let renewed = self.store.renew(self.lease, progress.read()).await;
            match renewed.map(check_lease) {
                Ok(Ok(())) => {}
                Ok(Err(stop)) => return stop,
                // The agent's work is worth more than one missed renewal. If the
                // lease runs out, the next write says so.
                Err(error) => tracing::warn!(%error, "can't renew a lease; trying again"),
            }
        }
    }
}

/// How far an attempt is, set by the agent's events and read by the lease's renewal.
pub(crate) struct ProgressTracker {
    phase: Phase,
    percent: AtomicI32,
    words: AtomicI32,
}

impl ProgressTracker {
    pub(crate) fn new(start: Progress) -> Self {
        ProgressTracker {
            phase: start.phase,
            percent: start.percent.into(),
            words: start.words.into(),
        }
    }

    pub(crate) fn words(&self) -> i32 {
        self.words.load(Ordering::Relaxed)
    }

    pub(crate) fn add_words(&self, text: &str) {
        self.words.fetch_add(words_begun(text), Ordering::Relaxed);
    }

    pub(crate) fn raise_percent(&self, percent: i32) {
        self.percent.fetch_max(percent, Ordering::Relaxed);
    }

    fn read(&self) -> Progress {
        Progress {
            phase: self.phase,
            percent: self.percent.load(Ordering::Relaxed),
            words: self.words(),
        }
    }

    /// What came after `to` will be written again.
    fn reset(&self, to: Progress) {
        self.percent.store(to.percent, Ordering::Relaxed);
        self.words.store(to.words, Ordering::Relaxed);
    }
}

fn check_lease(status: LeaseStatus) -> Result<(), AttemptError> {
    match status {
        LeaseStatus::Active => Ok(()),
        LeaseStatus::CancelRequested => Err(AttemptError::CancelRequested),
        LeaseStatus::Lost => Err(AttemptError::Lost),
    }
}
