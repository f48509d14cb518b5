//! An attempt while the agent is called, or other work is done: what is new is stored for those who
//! watch, and the lease is renewed, which is when a cancel is noticed.

use std::sync::{Arc, LazyLock, PoisonError};
use std::time::Duration;

use sea_orm::DbErr;
use shared::events::SnapshotSource;
use shared::queue::{AttemptUpdate, Lease, LeaseStatus, Progress};
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Attempt, ProgressTracker, check_lease};
use crate::agent::{Completion, CompletionRequest, Event, OnEvent, Prompt};
use crate::job_store::JobStore;
use crate::live_text::{LiveText, PostView, progress_events, source_events, text_events};
use crate::outcome::AttemptError;
use crate::writing::unchecked;

/// How often the lease is renewed, and so the longest until a cancel is noticed.
const LEASE_RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// How often new text is stored for those who watch, at most.
const UPDATE_INTERVAL: Duration = Duration::from_millis(50);

/// How long a call has run before anything of it is stored.
const FIRST_UPDATE_AFTER: Duration = Duration::from_millis(100);

/// The post as it is to be seen with the text of a call so far.
pub(crate) type View<'a> = dyn Fn(&str) -> Option<PostView> + Sync + 'a;

/// Of a call whose text is not to be seen.
pub(crate) const UNSEEN: &View<'static> = &|_: &str| None;

impl Attempt {
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
