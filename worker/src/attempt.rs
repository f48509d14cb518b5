//! One attempt at a job, as the writing sees it: what it is to write, [calls](call) to the agent,
//! checkpoints, and [progress]. No transaction is open while the agent is called.

mod call;
mod progress;

use std::ops::Range;
use std::sync::{Arc, MutexGuard, PoisonError};

use entity::grounding::Grounding;
use entity::job::{self, Outline, Review, SectionTask, Warning};
use entity::post::PostContent;
use entity::source::{self, FoundPage, MAX_SOURCES, ReadSource};
use entity::{post, step};
use shared::events::SnapshotSource;
use shared::queue::{Checkpoint, ClaimedJob, Lease, LeaseStatus, Progress, WrittenPost};
use tokio::sync::Mutex;

use crate::agent::{CallScope, LimitedAgent, Usage};
use crate::job_store::JobStore;
use crate::live_text::{LiveText, PostView, source_events, text_events};
use crate::metrics::Metrics;
use crate::outcome::AttemptError;

pub(crate) use call::UNSEEN;
pub(crate) use progress::ProgressTracker;

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
    /// The outline that its owner has approved, or may still change.
    outline: Option<Outline>,
    warnings: Mutex<Vec<Warning>>,
    live: Arc<Mutex<LiveText>>,
    /// The sources, as they are told to those who watch.
    sources: std::sync::Mutex<Vec<SnapshotSource>>,
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
            live: Arc::new(Mutex::new(LiveText::new(&job))),
            outline: job.read_outline(),
            sources: Default::default(),
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

    /// Whether the outline is to be reviewed, or was.
    pub(crate) fn has_review(&self) -> bool {
        self.job.review.is_some()
    }

    /// The outline that its owner has approved, or may still change.
    pub(crate) fn outline(&self) -> Option<&Outline> {
        self.outline.as_ref()
    }

    /// Ends the attempt if the outline is to be reviewed before the post is written.
    pub(crate) fn check_review(
        &self,
        outline: impl FnOnce() -> Outline,
    ) -> Result<(), AttemptError> {
        match self.job.review {
            Some(Review::Requested) => Err(AttemptError::AwaitingReview(outline())),
            Some(Review::Approved) | None => Ok(()),
        }
    }

    /// The section that is to be written, if it is not the whole post.
    pub(crate) fn section_task(&self) -> Option<SectionTask> {
        self.job.section_task()
    }

    /// The title and content from which the job starts; None if they are not kept any more.
    pub(crate) async fn base_text(&self) -> Result<Option<(Option<String>, String)>, AttemptError> {
        let version = self.job.base_version.unwrap_or_default();
        let text = self.store.base_text(self.post.id, version);
        Ok(text.await?)
    }

    pub(crate) fn agent_scope(&self) -> CallScope {
        self.agent.scope()
    }

    /// Whether the post is written from sources. Until it is checked its text is shown without
    /// citations and addresses: it may be kept as it is shown.
    pub(crate) fn is_sourced(&self) -> bool {
        self.job.options["research"] == "sources" || self.searches_web()
    }

    /// Whether sources are to be found on the web, too.
    pub(crate) fn searches_web(&self) -> bool {
        self.job.options["research"] == "web"
    }

    /// Whether the post is to be written even if there is nothing to write it from.
    pub(crate) fn writes_without_sources(&self) -> bool {
        self.job.options["without_sources"] == "write"
    }

    /// The sources of the post, which are told to those who watch.
    pub(crate) async fn sources(&self) -> Result<Vec<source::Model>, AttemptError> {
        let rows = self.store.sources(self.post.id).await?;
        let told = rows.iter().map(|row| SnapshotSource {
            number: row.number,
            url: row.url.clone(),
            title: row.title.clone(),
            status: row.status,
        });
        *self.live_sources() = told.collect();
        Ok(rows)
    }

    /// How the citations of the present text hold.
    pub(crate) async fn grounding(&self) -> Result<Grounding, AttemptError> {
        Ok(self.store.grounding(self.post.id).await?)
    }

    /// Makes these the pages that a search has found for the post, for this attempt and all that
    /// follow, of which `step` tells.
    pub(crate) async fn set_found_pages(
        &self,
        step: i32,
        pages: Vec<FoundPage>,
    ) -> Result<(), AttemptError> {
        let stored = self
            .store
            .set_found_pages(self.lease, step, pages, MAX_SOURCES);
        check_lease(stored.await?)
    }

    /// Stores what was found in a source, for this attempt and all that follow.
    pub(crate) async fn store_source(
        &self,
        source: &source::Model,
        found: ReadSource,
    ) -> Result<(), AttemptError> {
        let (status, title) = (found.status, found.title.clone());
        self.store.store_source(source, found).await?;
        let mut live = self.live_sources();
        if let Some(live) = live.iter_mut().find(|live| live.number == source.number) {
            live.status = Some(status);
            live.title = live.title.take().or(title);
        }
        Ok(())
    }

    fn live_sources(&self) -> MutexGuard<'_, Vec<SnapshotSource>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The steps at these positions that this and earlier attempts have finished.
    pub(crate) async fn finished_steps(
        &self,
        positions: Range<i32>,
    ) -> Result<Vec<step::Model>, AttemptError> {
        let mut steps = self.store.finished_steps(self.job.id).await?;
        steps.retain(|step| positions.contains(&step.position));
        Ok(steps)
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

    /// The post as it is stored, with the events that complete what was told of it.
    pub(crate) async fn finish(
        &self,
        content: PostContent,
        view: PostView,
    ) -> Result<WrittenPost, AttemptError> {
        let mut live = self.live.lock().await;
        let mut told = live.read(&self.store, self.job.id).await?;
        let mut events = source_events(&told, &self.live_sources());
        events.extend(text_events(&told, &view));
        events.iter().for_each(|event| told.apply(event));
        Ok(WrittenPost {
            content,
            events,
            after: live.last_event,
            told,
        })
    }
}

fn check_lease(status: LeaseStatus) -> Result<(), AttemptError> {
    match status {
        LeaseStatus::Active => Ok(()),
        LeaseStatus::CancelRequested => Err(AttemptError::CancelRequested),
        LeaseStatus::Lost => Err(AttemptError::Lost),
    }
}
