//! Long polling: waiting for a job to change.
//!
//! Any change of the database may be one of a job that somebody waits for. After each, one task
//! looks up all those jobs together and wakes those that wait for one that has changed: the cost
//! of a change depends neither on how many wait nor on who writes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use entity::job::{self, JobState};
use sea_orm::DbErr;
use shared::change_watcher::ChangeWatcher;
use shared::database::Database;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::Result;

/// A busy database changes a hundred times a second; nobody needs to know of each change.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How many requests may wait, of one user and in all.
const MAX_PER_USER: usize = 32;
const MAX_TOTAL: usize = 512;

/// The requests that wait for jobs. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct LongPollHub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Database,
    /// When it is canceled nobody waits any longer.
    stop: CancellationToken,
    /// The number of permits that each user has.
    users: Mutex<HashMap<Uuid, usize>>,
    /// The jobs that are waited for.
    jobs: Mutex<HashMap<Uuid, watch::Sender<Observation>>>,
    /// Their number.
    count: watch::Sender<usize>,
}

/// A job when it was last looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Observation {
    Pending,
    Gone,
    At(JobState),
}

/// Permission to wait, until it is dropped.
#[derive(Debug)]
pub(crate) struct LongPollPermit {
    pub(crate) max_wait: Duration,
    hub: LongPollHub,
    user: Uuid,
}

impl LongPollHub {
    /// Watches the database until `stop`.
    pub(crate) fn new(db: Database, changes: ChangeWatcher, stop: CancellationToken) -> Self {
        let hub = LongPollHub(Arc::new(Inner {
            db,
            stop: stop.clone(),
            users: Mutex::default(),
            jobs: Mutex::default(),
            count: watch::Sender::new(0),
        }));
        tokio::spawn(stop.run_until_cancelled_owned(hub.clone().watch_changes(changes)));
        hub
    }

    /// A permit for a user. None if there are too many: then the request is answered at once.
    pub(crate) fn try_acquire(&self, user: Uuid, max_wait: Duration) -> Option<LongPollPermit> {
        let mut permits = self.permits();
        let own = permits.get(&user).copied().unwrap_or_default();
        if own >= MAX_PER_USER || permits.values().sum::<usize>() >= MAX_TOTAL {
            return None;
        }
        permits.insert(user, own + 1);
        Some(LongPollPermit {
            max_wait,
            hub: self.clone(),
            user,
        })
    }

    fn permits(&self) -> MutexGuard<'_, HashMap<Uuid, usize>> {
        self.0.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<Uuid, watch::Sender<Observation>>> {
        self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn watch_changes(self, mut changes: ChangeWatcher) {
        let mut count = self.0.count.subscribe();
        loop {
            // An error would mean that the sender, we, are gone.
            let _ = count.wait_for(|count| *count > 0).await;
            tokio::select! {
                () = changes.changed() => {}
                _ = count.wait_for(|count| *count == 0) => continue,
            }
            // The notification is consumed, and may be the last for long.
            while let Err(error) = self.refresh().await {
                tracing::debug!(%error, "can't look up the jobs of long polls; retrying");
                sleep(MIN_POLL_INTERVAL).await;
            }
            sleep(MIN_POLL_INTERVAL).await;
        }
    }

    /// Looks up all jobs that are waited for, and wakes those that wait for a changed one.
    async fn refresh(&self) -> std::result::Result<(), DbErr> {
        let ids: Vec<Uuid> = self.jobs().keys().copied().collect();
        let states = job::Entity::states(self.0.db.read(), &ids).await?;
        let states: HashMap<Uuid, JobState> = states.into_iter().collect();
        let jobs = self.jobs();
        for id in ids {
            let observation = states
                .get(&id)
                .map_or(Observation::Gone, |state| Observation::At(*state));
            if let Some(job) = jobs.get(&id) {
                job.send_if_modified(|last| std::mem::replace(last, observation) != observation);
            }
        }
        Ok(())
    }

    fn subscribe(&self, id: Uuid) -> Subscription {
        let mut jobs = self.jobs();
        let job = jobs
            .entry(id)
            .or_insert_with(|| watch::Sender::new(Observation::Pending));
        let observations = job.subscribe();
        // An earlier look says nothing about changes from now on.
        job.send_if_modified(|last| {
            *last = Observation::Pending;
            false
        });
        self.0.count.send_replace(jobs.len());
        Subscription {
            hub: self.clone(),
            id,
            observations: Some(observations),
        }
    }
}

/// A waiter for changes of a job, until it is dropped.
struct Subscription {
    hub: LongPollHub,
    id: Uuid,
    observations: Option<watch::Receiver<Observation>>,
}

impl Subscription {
    /// Waits until the job is `done` or gone.
    async fn wait_until(&mut self, done: impl Fn(JobState) -> bool) {
        if let Some(observations) = &mut self.observations {
            let is_over = |observation: &Observation| match observation {
                Observation::Pending => false,
                Observation::Gone => true,
                Observation::At(state) => done(*state),
            };
            // An error would mean that the sender is gone.
            let _ = observations.wait_for(is_over).await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut jobs = self.hub.jobs();
        self.observations = None;
        if let Entry::Occupied(job) = jobs.entry(self.id)
            && job.get().is_closed()
        {
            job.remove();
        }
        self.hub.0.count.send_replace(jobs.len());
    }
}

impl LongPollPermit {
    /// Waits until the job is `done` or gone, the time is over, or the API stops.
    pub(crate) async fn wait_for(self, id: Uuid, done: impl Fn(JobState) -> bool) -> Result<()> {
        let hub = self.hub.clone();
        // Before the look, so that no change after it is missed.
        let mut subscription = hub.subscribe(id);
        let states = job::Entity::states(hub.0.db.read(), &[id]).await?;
        let is_over = states.first().is_none_or(|(_, state)| done(*state));
        if !is_over {
            let until = timeout(self.max_wait, subscription.wait_until(done));
            hub.0.stop.run_until_cancelled(until).await;
        }
        Ok(())
    }
}

impl Drop for LongPollPermit {
    fn drop(&mut self) {
        let mut permits = self.hub.permits();
        if let Some(own) = permits.get_mut(&self.user) {
            *own -= 1;
        }
        permits.retain(|_, own| *own > 0);
    }
}

#[cfg(test)]
mod tests {
    use shared::config::StorageSettings;

    use super::*;

    async fn hub(folder: &tempfile::TempDir) -> LongPollHub {
        let settings = StorageSettings::new(None, folder.path());
        let db = Database::open(&settings).await.unwrap();
        let changes = ChangeWatcher::watch(&db);
        LongPollHub::new(db, changes, CancellationToken::new())
    }

    #[tokio::test]
    async fn a_user_takes_no_more_places_than_one_may_and_gives_them_back() {
        let folder = tempfile::tempdir().unwrap();
        let (hub, user) = (hub(&folder).await, Uuid::now_v7());
        let acquire = |user| hub.try_acquire(user, Duration::ZERO);
        let acquired: Vec<LongPollPermit> =
            (0..MAX_PER_USER).filter_map(|_| acquire(user)).collect();
        assert_eq!(acquired.len(), MAX_PER_USER);
        assert!(acquire(user).is_none());
        assert!(acquire(Uuid::now_v7()).is_some());
        drop(acquired);
        assert!(acquire(user).is_some());
        assert!(hub.permits().is_empty());
    }

    #[tokio::test]
    async fn all_users_together_take_no_more_places_than_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let hub = hub(&folder).await;
        let acquire = |_| hub.try_acquire(Uuid::now_v7(), Duration::ZERO);
        let acquired: Vec<LongPollPermit> = (0..MAX_TOTAL * 2).filter_map(acquire).collect();
        assert_eq!(acquired.len(), MAX_TOTAL);
    }

    #[tokio::test]
    async fn only_those_are_woken_whose_job_has_moved_on() {
        let folder = tempfile::tempdir().unwrap();
        let hub = hub(&folder).await;
        let (ours, other) = (Uuid::now_v7(), Uuid::now_v7());
        let (mine, others) = (hub.subscribe(ours), hub.subscribe(other));
        let running = Observation::At(JobState {
            status: job::Status::Running,
            phase: None,
        });
        hub.jobs()[&ours].send_replace(running);
        let is_told =
            |one: &Subscription| one.observations.as_ref().unwrap().has_changed().unwrap();
        assert!(is_told(&mine) && !is_told(&others));
        drop((mine, others));
        assert!(hub.jobs().is_empty());
        assert_eq!(*hub.0.count.borrow(), 0);
    }
}
