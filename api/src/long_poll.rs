//! Waiting for a job without asking again and again.
//!
//! Every change of the database may be one of a job that somebody waits for. One
//! task looks at all those jobs together after each change, and wakes those who
//! wait for one that has moved on: what a change costs depends neither on how many
//! wait nor on who writes meanwhile.

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

/// A busy database changes a hundred times a second. No one who waits for a job
/// needs to know so soon.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// So many a user may have wait at once, and so many all users together.
const MAX_PER_USER: usize = 32;
const MAX_TOTAL: usize = 512;

/// Those who wait for jobs. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct LongPollHub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Database,
    /// When it is canceled nobody waits any longer.
    stop: CancellationToken,
    /// How many places are taken, of each user.
    users: Mutex<HashMap<Uuid, usize>>,
    /// The jobs that are waited for.
    jobs: Mutex<HashMap<Uuid, watch::Sender<Observation>>>,
    /// How many jobs those are.
    count: watch::Sender<usize>,
}

/// How a job was when it was looked at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Observation {
    Pending,
    Gone,
    At(JobState),
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct LongPollPermit {
    /// For how long one may wait there.
    pub(crate) max_wait: Duration,
    waits: LongPollHub,
    user: Uuid,
}

impl LongPollHub {
    /// Nobody yet. Jobs are looked at until `stop`.
    pub(crate) fn new(db: Database, changes: ChangeWatcher, stop: CancellationToken) -> Self {
        let waits = LongPollHub(Arc::new(Inner {
            db,
            stop: stop.clone(),
            users: Mutex::default(),
            jobs: Mutex::default(),
            count: watch::Sender::new(0),
        }));
        tokio::spawn(stop.run_until_cancelled_owned(waits.clone().watch_changes(changes)));
        waits
    }

    /// Takes a place for a user. None if there is none left: then the user is
    /// answered at once, as if they had not wanted to wait.
    pub(crate) fn try_acquire(&self, user: Uuid, patience: Duration) -> Option<LongPollPermit> {
        let mut taken = self.permits();
        let own = taken.get(&user).copied().unwrap_or_default();
        if own >= MAX_PER_USER || taken.values().sum::<usize>() >= MAX_TOTAL {
            return None;
        }
        taken.insert(user, own + 1);
        Some(LongPollPermit {
            max_wait: patience,
            waits: self.clone(),
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
            // An error would say that we are gone ourselves.
            let _ = count.wait_for(|count| *count > 0).await;
            tokio::select! {
                () = changes.changed() => {}
                _ = count.wait_for(|count| *count == 0) => continue,
            }
            // The change has been told, and may be the last for long.
            while let Err(error) = self.refresh().await {
                tracing::debug!(%error, "can't look at jobs that are waited for; trying again");
                sleep(MIN_POLL_INTERVAL).await;
            }
            sleep(MIN_POLL_INTERVAL).await;
        }
    }

    /// Looks at all jobs that are waited for, and wakes whom it concerns.
    async fn refresh(&self) -> std::result::Result<(), DbErr> {
        let ids: Vec<Uuid> = self.jobs().keys().copied().collect();
        let states = job::Entity::states(self.0.db.read(), &ids).await?;
        let states: HashMap<Uuid, JobState> = states.into_iter().collect();
        let jobs = self.jobs();
        for id in ids {
            let look = states
                .get(&id)
                .map_or(Observation::Gone, |state| Observation::At(*state));
            if let Some(job) = jobs.get(&id) {
                job.send_if_modified(|last| std::mem::replace(last, look) != look);
            }
        }
        Ok(())
    }

    fn subscribe(&self, id: Uuid) -> Subscription {
        let mut jobs = self.jobs();
        let job = jobs
            .entry(id)
            .or_insert_with(|| watch::Sender::new(Observation::Pending));
        let looks = job.subscribe();
        // An earlier look says nothing of what comes from now on.
        job.send_if_modified(|last| {
            *last = Observation::Pending;
            false
        });
        self.0.count.send_replace(jobs.len());
        Subscription {
            waits: self.clone(),
            id,
            looks: Some(looks),
        }
    }
}

/// Somebody who is told how a job moves on, until this is dropped.
struct Subscription {
    waits: LongPollHub,
    id: Uuid,
    looks: Option<watch::Receiver<Observation>>,
}

impl Subscription {
    /// Waits until the job is as wanted, or gone.
    async fn wait_until(&mut self, done: impl Fn(JobState) -> bool) {
        if let Some(looks) = &mut self.looks {
            let is_over = |look: &Observation| match look {
                Observation::Pending => false,
                Observation::Gone => true,
                Observation::At(state) => done(*state),
            };
            // An error would say that nobody looks any longer.
            let _ = looks.wait_for(is_over).await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut jobs = self.waits.jobs();
        self.looks = None;
        if let Entry::Occupied(job) = jobs.entry(self.id)
            && job.get().is_closed()
        {
            job.remove();
        }
        self.waits.0.count.send_replace(jobs.len());
    }
}

impl LongPollPermit {
    /// Waits until a job is `done`, it is gone, the time is over, or the API stops.
    pub(crate) async fn wait_for(self, id: Uuid, done: impl Fn(JobState) -> bool) -> Result<()> {
        let waits = self.waits.clone();
        // First, so that nothing is missed that comes after the look.
        let mut subscription = waits.subscribe(id);
        let states = job::Entity::states(waits.0.db.read(), &[id]).await?;
        let is_over = states.first().is_none_or(|(_, state)| done(*state));
        if !is_over {
            let until = timeout(self.max_wait, subscription.wait_until(done));
            waits.0.stop.run_until_cancelled(until).await;
        }
        Ok(())
    }
}

impl Drop for LongPollPermit {
    fn drop(&mut self) {
        let mut taken = self.waits.permits();
        if let Some(own) = taken.get_mut(&self.user) {
            *own -= 1;
        }
        taken.retain(|_, own| *own > 0);
    }
}

#[cfg(test)]
mod tests {
    use shared::config::StorageSettings;

    use super::*;

    async fn waits(folder: &tempfile::TempDir) -> LongPollHub {
        let settings = StorageSettings::new(None, folder.path());
        let db = Database::open(&settings).await.unwrap();
        let changes = ChangeWatcher::watch(&db);
        LongPollHub::new(db, changes, CancellationToken::new())
    }

    #[tokio::test]
    async fn a_user_takes_no_more_places_than_one_may_and_gives_them_back() {
        let folder = tempfile::tempdir().unwrap();
        let (waits, user) = (waits(&folder).await, Uuid::now_v7());
        let enter = |user| waits.try_acquire(user, Duration::ZERO);
        let places: Vec<LongPollPermit> = (0..MAX_PER_USER).filter_map(|_| enter(user)).collect();
        assert_eq!(places.len(), MAX_PER_USER);
        assert!(enter(user).is_none());
        assert!(enter(Uuid::now_v7()).is_some());
        drop(places);
        assert!(enter(user).is_some());
        assert!(waits.permits().is_empty());
    }

    #[tokio::test]
    async fn all_users_together_take_no_more_places_than_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let waits = waits(&folder).await;
        let enter = |_| waits.try_acquire(Uuid::now_v7(), Duration::ZERO);
        let places: Vec<LongPollPermit> = (0..MAX_TOTAL * 2).filter_map(enter).collect();
        assert_eq!(places.len(), MAX_TOTAL);
    }

    #[tokio::test]
    async fn only_those_are_woken_whose_job_has_moved_on() {
        let folder = tempfile::tempdir().unwrap();
        let waits = waits(&folder).await;
        let (ours, other) = (Uuid::now_v7(), Uuid::now_v7());
        let (mine, others) = (waits.subscribe(ours), waits.subscribe(other));
        let running = Observation::At(JobState {
            status: job::Status::Running,
            phase: None,
        });
        waits.jobs()[&ours].send_replace(running);
        let is_told = |one: &Subscription| one.looks.as_ref().unwrap().has_changed().unwrap();
        assert!(is_told(&mine) && !is_told(&others));
        drop((mine, others));
        assert!(waits.jobs().is_empty());
        assert_eq!(*waits.0.count.borrow(), 0);
    }
}
