//! Job events for those who watch: one task looks up what is new of all watched jobs together, so
//! the cost of a change does not depend on how many readers there are.

mod log;
mod sessions;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use entity::job::JobState;
use entity::{job, job_event, post};
use sea_orm::EntityTrait;
use shared::database::Database;
use shared::events::{EventSignal, JobEvent, Snapshot, SnapshotProgress, SnapshotSection};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use self::log::{EndLinks, Frame};
use self::log::{EventLog, Next};
use self::sessions::{SessionGuard, WatchedSessions};
use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};

/// A busy database changes a thousand times a second; readers are told of all changes in so much
/// time together.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How often it is checked that sessions are valid still, and jobs exist.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);

/// How many readers there may be, of one user and in all.
const MAX_PER_USER: usize = 1024;
const MAX_TOTAL: usize = 8192;

/// The readers of events. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct EventHub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Database,
    /// When it is canceled all streams end.
    stop: CancellationToken,
    jobs: Mutex<HashMap<Uuid, Arc<WatchedJob>>>,
    /// Their number.
    count: watch::Sender<usize>,
    sessions: WatchedSessions,
}

#[derive(Debug)]
struct WatchedJob {
    log: Mutex<EventLog>,
    /// Changes whenever the log does.
    changes: watch::Sender<()>,
}

impl WatchedJob {
    fn log(&self) -> MutexGuard<'_, EventLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, rows: Vec<job_event::Model>) -> Result<()> {
        self.log().append(rows)?;
        self.changes.send_replace(());
        Ok(())
    }
}

impl EventHub {
    /// Serves the events of `db` until `stop`.
    pub(crate) fn new(db: Database, signal: EventSignal, stop: CancellationToken) -> Self {
        let hub = EventHub(Arc::new(Inner {
            db,
            stop: stop.clone(),
            jobs: Mutex::default(),
            count: watch::Sender::new(0),
            sessions: WatchedSessions::default(),
        }));
        let looks = hub.clone().look_for_events(signal);
        tokio::spawn(stop.clone().run_until_cancelled_owned(looks));
        tokio::spawn(stop.run_until_cancelled_owned(hub.clone().check_readers()));
        hub
    }

    /// A reader of what follows the event `after` of a job, or of all. None if nothing follows.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if there are too many readers.
    pub(crate) async fn open(
        &self,
        me: &CurrentUser,
        job: &job::Model,
        after: Option<i32>,
    ) -> Result<Option<EventReader>> {
        let session = self.0.sessions.watch(me).ok_or(Error::Overloaded)?;
        let (watched, changes) = self.watch(job)?;
        let reader = EventReader {
            changes: Some(changes),
            watched,
            hub: self.clone(),
            job: job.id,
            after,
            is_catching_up: true,
            session,
        };
        // After the subscription, so that nothing is missed.
        self.refresh(vec![job.id]).await?;
        if job.status.is_finished() && !reader.watched.log().has_ended() {
            self.add_missing_end(&reader.watched, job.id).await?;
        }
        let (has_ended, last) = {
            let log = reader.watched.log();
            (log.has_ended(), log.last())
        };
        Ok((!has_ended || after != Some(last)).then_some(reader))
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<WatchedJob>>> {
        self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, job: &job::Model) -> Result<(Arc<WatchedJob>, watch::Receiver<()>)> {
        let new = WatchedJob {
            log: Mutex::new(EventLog::new(job.id, job.post_id)?),
            changes: watch::Sender::new(()),
        };
        let mut jobs = self.jobs();
        let watched = jobs.entry(job.id).or_insert_with(|| Arc::new(new));
        let watched = (watched.clone(), watched.changes.subscribe());
        self.0.count.send_replace(jobs.len());
        Ok(watched)
    }

    async fn look_for_events(self, mut signal: EventSignal) {
        let mut count = self.0.count.subscribe();
        loop {
            // An error would mean that the sender, we, are gone.
            let _ = count.wait_for(|count| *count > 0).await;
            tokio::select! {
                () = signal.changed() => {}
                _ = count.wait_for(|count| *count == 0) => continue,
            }
            // The notification is consumed, and may be the last for long.
            while let Err(error) = self.refresh(self.watched()).await {
                tracing::debug!(%error, "can't look up events; retrying");
                sleep(MIN_POLL_INTERVAL).await;
            }
            sleep(MIN_POLL_INTERVAL).await;
        }
    }

    fn watched(&self) -> Vec<Uuid> {
        self.jobs().keys().copied().collect()
    }

    /// Looks up what is new of these jobs.
    async fn refresh(&self, jobs: Vec<Uuid>) -> Result<()> {
        let known = |id: Uuid| Some((id, self.jobs().get(&id)?.log().last()));
        let known: Vec<(Uuid, i32)> = jobs.into_iter().filter_map(known).collect();
        let rows = job_event::Entity::after(self.0.db.read(), &known).await?;
        for rows in rows.chunk_by(|one, next| one.job_id == next.job_id) {
            let watched = self.jobs().get(&rows[0].job_id).cloned();
            if let Some(watched) = watched
                && let Err(error) = watched.append(rows.to_vec())
            {
                tracing::error!(?error, job = %rows[0].job_id, "can't read events; ending their streams");
                watched.log().delete();
                watched.changes.send_replace(());
            }
        }
        Ok(())
    }

    async fn check_readers(self) {
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = self.0.count.subscribe();
        loop {
            let _ = count.wait_for(|count| *count > 0).await;
            ticks.tick().await;
            let checked = async {
                self.0.sessions.end_invalid(self.0.db.read()).await?;
                self.check_jobs().await
            };
            if let Err(error) = checked.await {
                tracing::debug!(%error, "can't check the readers of events; retrying");
            }
        }
    }

    /// Ends the streams of jobs that are deleted, or were ended by a worker of a version that tells
    /// of no events.
    async fn check_jobs(&self) -> Result<()> {
        let ids = self.watched();
        let states = job::Entity::states(self.0.db.read(), &ids).await?;
        let states: HashMap<Uuid, JobState> = states.into_iter().collect();
        for id in ids {
            let Some(watched) = self.jobs().get(&id).cloned() else {
                continue;
            };
            let Some(state) = states.get(&id) else {
                watched.log().delete();
                watched.changes.send_replace(());
                continue;
            };
            if !state.status.is_finished() || watched.log().has_ended() {
                continue;
            }
            // It may have been told since the last look.
            self.refresh(vec![id]).await?;
            self.add_missing_end(&watched, id).await?;
        }
        Ok(())
    }

    /// Adds the end of a job that a worker of an earlier version has ended, if it was.
    async fn add_missing_end(&self, watched: &WatchedJob, job: Uuid) -> Result<()> {
        let job = job::Entity::find_by_id(job).one(self.0.db.read()).await?;
        // What the job has counted is told, if not here yet.
        let is_missing = |job: &job::Model| {
            let log = watched.log();
            job.status.is_finished() && !log.has_ended() && job.last_event <= log.last()
        };
        let Some(job) = job.filter(is_missing) else {
            return Ok(());
        };
        let post = post::Entity::find_by_id(job.post_id)
            .one(self.0.db.read())
            .await?;
        // The text may be a later job's.
        let latest = job::Entity::of_post(job.post_id)
            .one(self.0.db.read())
            .await?;
        let is_latest = latest.is_some_and(|latest| latest.id == job.id);
        let post = post.filter(|_| is_latest && job.status == job::Status::Succeeded);
        let end = JobEvent::end(&job, post.as_ref().map(|post| post.version));
        let mut log = watched.log();
        let text = post.map(|post| snapshot(&job, post));
        if !log.has_ended() {
            log.add_missing_end(text, end)?;
        }
        drop(log);
        watched.changes.send_replace(());
        Ok(())
    }
}

/// A job of whose text no event tells.
fn snapshot(job: &job::Model, post: post::Model) -> Snapshot {
    let section = |content: String| SnapshotSection {
        heading: None,
        text: content.trim_end_matches('\n').to_owned(),
        done: true,
    };
    Snapshot {
        attempt: job.attempt,
        status: job::Status::Running,
        phase: None,
        progress: SnapshotProgress {
            percent: job.percent,
            words: job.words,
        },
        sources: Vec::new(),
        title: post.title,
        sections: post.content.map(section).into_iter().collect(),
    }
}

/// A reader of a job's events, which ends with the session.
#[derive(Debug)]
pub(crate) struct EventReader {
    hub: EventHub,
    job: Uuid,
    watched: Arc<WatchedJob>,
    /// None once it is dropped.
    changes: Option<watch::Receiver<()>>,
    /// The last event that it has.
    after: Option<i32>,
    /// Whether it has not reached the present yet.
    is_catching_up: bool,
    session: SessionGuard,
}

impl EventReader {
    /// The last event that it has.
    pub(crate) fn after(&self) -> Option<i32> {
        self.after
    }

    /// The next events, for which it waits at most for `max_wait`. None if there will be none, or
    /// it is too far behind.
    pub(crate) async fn next(&mut self, max_wait: Duration) -> Result<Option<Vec<Frame>>> {
        let waited = sleep(max_wait);
        tokio::pin!(waited);
        let Some(changes) = &mut self.changes else {
            return Ok(None);
        };
        loop {
            changes.mark_unchanged();
            let next = self.watched.log().next(self.after)?;
            let frames = match next {
                Next::Frames(frames) => frames,
                Next::Behind if self.is_catching_up => {
                    earlier(&self.hub, self.job, &self.watched, self.after).await?
                }
                Next::Behind | Next::Over => return Ok(None),
                Next::Wait => {
                    self.is_catching_up = false;
                    tokio::select! {
                        _ = changes.changed() => continue,
                        () = &mut waited => return Ok(Some(Vec::new())),
                        () = self.session.ended() => return Ok(None),
                        () = self.hub.0.stop.cancelled() => return Ok(None),
                    }
                }
            };
            self.after = frames.last().map(|frame| frame.seq).or(self.after);
            return Ok(Some(frames));
        }
    }
}

impl Drop for EventReader {
    fn drop(&mut self) {
        let mut jobs = self.hub.jobs();
        self.changes = None;
        if self.watched.changes.receiver_count() == 0 {
            jobs.remove(&self.job);
        }
        self.hub.0.count.send_replace(jobs.len());
    }
}

/// The events of a job after one that is not kept in memory, or all in one where they were
/// compacted.
async fn earlier(
    hub: &EventHub,
    job: Uuid,
    watched: &WatchedJob,
    after: Option<i32>,
) -> Result<Vec<Frame>> {
    let after = after.unwrap_or_default();
    let rows = job_event::Entity::after(hub.0.db.read(), &[(job, after)]).await?;
    let mut log = EventLog::new(job, watched.log().post())?;
    log.append(rows)?;
    match log.next(Some(after))? {
        Next::Frames(frames) if frames[0].seq == after + 1 => Ok(frames),
        _ => watched.log().all_in_one(),
    }
}
