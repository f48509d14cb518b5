//! One attempt at a job, as the writing sees it: calls to the agent, checkpoints, and
//! progress. The lease is renewed while a call runs, and that is when a cancel is
//! noticed. No transaction is open while the agent is called.

use std::ops::Range;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, LazyLock, MutexGuard, PoisonError};
use std::time::Duration;

use entity::grounding::Grounding;
use entity::job::{self, Outline, Phase, Review, SectionTask, Warning};
use entity::post::PostContent;
use entity::source::{self, FoundPage, MAX_SOURCES, ReadSource};
use entity::text::words_begun;
use entity::{post, step};
use sea_orm::DbErr;
use shared::events::SnapshotSource;
use shared::queue::{
    AttemptUpdate, Checkpoint, ClaimedJob, Lease, LeaseStatus, Progress, WrittenPost,
};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard};
use tokio::time::{Instant, sleep, sleep_until};

use crate::agent::{
    CallScope, Completion, CompletionRequest, Event, LimitedAgent, OnEvent, Prompt, Usage,
};
use crate::job_store::JobStore;
use crate::live_text::{LiveText, PostView, progress_events, source_events, text_events};
use crate::metrics::Metrics;
use crate::outcome::AttemptError;
use crate::writing::unchecked;

/// How often the lease is renewed, and so the longest until a cancel is noticed.
const LEASE_RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// How often new text is stored for those who watch, at most.
const UPDATE_INTERVAL: Duration = Duration::from_millis(50);

/// How long a call has run before anything of it is stored.
const FIRST_UPDATE_AFTER: Duration = Duration::from_millis(100);

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

/// The post as it is to be seen with the text of a call so far.
pub(crate) type View<'a> = dyn Fn(&str) -> Option<PostView> + Sync + 'a;

/// Of a call whose text is not to be seen.
pub(crate) const UNSEEN: &View<'static> = &|_: &str| None;

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

    /// Does something beside calling the agent, and keeps the lease meanwhile.
    pub(crate) async fn run<T>(
        &self,
        progress: &ProgressTracker,
        work: impl Future<Output = T>,
    ) -> Result<T, AttemptError> {
        let is_over = self.update(progress.read(), None).await?;
        is_over?;
        let has_no_text = Notify::new();
        tokio::select! {
            done = work => Ok(done),
            stop = self.keep_updating(progress, &|| None, &has_no_text) => Err(stop),
        }
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

    /// Calls the agent. Meanwhile what it has written is stored for those who watch, and the
    /// lease is renewed. When the job is canceled or lost the call is dropped, which ends it.
    /// `view` is the post with the text of this call so far; None if that is not to be seen.
    pub(crate) async fn call(
        &self,
        prompt: Prompt,
        progress: &ProgressTracker,
        on_event: &OnEvent<'_>,
        view: &View<'_>,
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
        let text = std::sync::Mutex::new(String::new());
        let text = || text.lock().unwrap_or_else(PoisonError::into_inner);
        let has_text = Notify::new();
        let on_event = |event: Event| {
            match &event {
                Event::Text(piece) => {
                    text().push_str(piece);
                    has_text.notify_one();
                }
                Event::Discarded | Event::Restarted => {
                    text().clear();
                    progress.reset(started);
                }
                Event::Progress { .. } => {}
            }
            on_event(event);
        };
        let view = || {
            let text = text().clone();
            view(&text)
        };
        let call = self.agent.call(&request, &on_event);
        let reply = tokio::select! {
            reply = call => reply,
            stop = self.keep_updating(progress, &view, &has_text) => return Err(stop),
        };
        match reply {
            Ok(reply) => Ok(reply),
            Err(None) => Err(AttemptError::Released),
            Err(Some(error)) => {
                // What there is may be kept, if the job is canceled before its next attempt.
                if let Some(view) = view() {
                    self.show(progress.read(), view).await?;
                }
                Err(AttemptError::Agent(error))
            }
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

    /// Stores how far the post is, and how it is to be seen.
    pub(crate) async fn show(
        &self,
        progress: Progress,
        view: PostView,
    ) -> Result<(), AttemptError> {
        self.update(progress, Some(view))
            .await
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "can't store an attempt's progress; the next update will");
                Ok(())
            })
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

    /// Stores what is new whenever there is a text, and renews the lease, until it is lost or the
    /// job is to be canceled.
    async fn keep_updating(
        &self,
        progress: &ProgressTracker,
        view: &(dyn Fn() -> Option<PostView> + Sync),
        has_text: &Notify,
    ) -> AttemptError {
        let renew_interval = LEASE_RENEW_INTERVAL.min(self.lease.length / 3);
        // A call that is over by then costs no update.
        sleep(FIRST_UPDATE_AFTER).await;
        // What it begins with, such as a plan, is new, too.
        has_text.notify_one();
        loop {
            tokio::select! {
                () = sleep_until(next_multiple(renew_interval)) => {}
                () = has_text.notified() => sleep_until(next_multiple(UPDATE_INTERVAL)).await,
            }
            match self.update(progress.read(), view()).await {
                Ok(Ok(())) => {}
                Ok(Err(stop)) => return stop,
                // The agent's work is worth more than one missed renewal. If the
                // lease runs out, the next write says so.
                Err(error) => tracing::warn!(%error, "can't renew a lease; trying again"),
            }
        }
    }

    async fn update(
        &self,
        progress: Progress,
        mut view: Option<PostView>,
    ) -> Result<Result<(), AttemptError>, DbErr> {
        if let (Some(view), Some(outline)) = (&mut view, &self.outline) {
            view.title = Some(outline.title.clone());
        }
        if let Some(view) = view.as_mut().filter(|_| self.is_sourced()) {
            for section in view.sections.iter_mut() {
                section.text = unchecked(&section.text);
            }
        }
        let live = self.live.clone().lock_owned().await;
        let (store, lease) = (self.store.clone(), self.lease);
        // In a task of its own: whoever drops this may have begun it, and then what is stored must
        // be known.
        let sources = self.live_sources().clone();
        let update = tokio::spawn(live_update(live, store, lease, progress, sources, view));
        let status = update
            .await
            .unwrap_or_else(|panic| Err(DbErr::Custom(panic.to_string())))?;
        Ok(check_lease(status))
    }
}

/// Stores what is new in `view`, if anything is or the lease is to be renewed.
async fn live_update(
    mut live: OwnedMutexGuard<LiveText>,
    store: Arc<JobStore>,
    lease: Lease,
    progress: Progress,
    sources: Vec<SnapshotSource>,
    view: Option<PostView>,
) -> Result<LeaseStatus, DbErr> {
    let mut told = live.read(&store, lease.job).await?;
    let mut events = source_events(&told, &sources);
    events.extend(view.map_or_else(Vec::new, |view| text_events(&told, &view)));
    let tells_progress = live.is_progress_due();
    if tells_progress {
        events.extend(progress_events(&told, progress));
    }
    if events.is_empty() && !live.is_renewal_due(lease) {
        live.told = Some(told);
        return Ok(LeaseStatus::Active);
    }
    let update = AttemptUpdate {
        progress,
        events: events.clone(),
        after: live.last_event,
    };
    // If this fails, what is told is not known any more.
    let result = store.update(lease, update).await?;
    live.renewed = Instant::now();
    if result.stored {
        events.iter().for_each(|event| told.apply(event));
        live.told = Some(told);
        live.last_event = result.last_event;
        if tells_progress {
            live.progress_told = Some(Instant::now());
        }
    }
    Ok(result.status)
}

/// The next multiple of `interval` since the process began: all attempts of a worker write at
/// the same moments, so that they share transactions.
fn next_multiple(interval: Duration) -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let elapsed = START.elapsed().as_millis();
    let interval = interval.as_millis().max(1);
    let next = (elapsed / interval + 1) * interval;
    *START + Duration::from_millis(next as u64)
}

/// How far an attempt is, set by the agent's events and read by the lease's renewal.
pub(crate) struct ProgressTracker {
    phase: Phase,
    percent: AtomicI32,
    words: AtomicI32,
}

impl ProgressTracker {
    /// Of what is done before anything is written.
    pub(crate) fn at_start(phase: Phase) -> Self {
        ProgressTracker::new(Progress {
            phase,
            percent: 0,
            words: 0,
        })
    }

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
