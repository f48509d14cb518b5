//! Waiting for a job without asking again and again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use entity::job;
use sea_orm::EntityTrait;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::AppState;
use crate::error::Result;

/// A busy database changes a hundred times a second. No one who waits for a job
/// needs to know so soon, and many may wait.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

/// So many a user may have wait at once, and so many all users together. To ask
/// again now and then costs less than to look at each change for thousands.
const MOST_OF_USER: usize = 32;
const MOST: usize = 512;

/// Places for those who wait. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Waits(Arc<Mutex<HashMap<Uuid, usize>>>);

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    /// For how long one may wait there.
    pub patience: Duration,
    waits: Waits,
    user: Uuid,
}

impl Waits {
    /// Takes a place for a user. None if there is none left: then the user is
    /// answered at once, as if they had not wanted to wait.
    pub fn enter(&self, user: Uuid, patience: Duration) -> Option<Place> {
        let mut taken = self.taken();
        let own = taken.get(&user).copied().unwrap_or_default();
        if own >= MOST_OF_USER || taken.values().sum::<usize>() >= MOST {
            return None;
        }
        taken.insert(user, own + 1);
        Some(Place {
            patience,
            waits: self.clone(),
            user,
        })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Uuid, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.waits.taken();
        if let Some(own) = taken.get_mut(&self.user) {
            *own -= 1;
        }
        taken.retain(|_, own| *own > 0);
    }
}

/// Waits until a job is `done`, the time is over, or the API stops. Returns the
/// job as it stands then; None if it does not exist.
///
/// # Errors
/// When the database does not answer.
pub async fn for_job(
    state: &AppState,
    id: Uuid,
    place: Place,
    done: impl Fn(&job::Model) -> bool,
) -> Result<Option<job::Model>> {
    let deadline = Instant::now() + place.patience;
    let mut changes = state.changes.clone();
    loop {
        let job = job::Entity::find_by_id(id).one(state.db.read()).await?;
        let Some(job) = job else { return Ok(None) };
        if done(&job) || Instant::now() >= deadline || state.stop.is_cancelled() {
            return Ok(Some(job));
        }
        tokio::select! {
            _ = timeout_at(deadline, changes.next()) => {}
            () = state.stop.cancelled() => {}
        }
        sleep(LEAST_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_takes_no_more_places_than_one_may_and_gives_them_back() {
        let (waits, user) = (Waits::default(), Uuid::now_v7());
        let enter = |user| waits.enter(user, Duration::ZERO);
        let places: Vec<Place> = (0..MOST_OF_USER).filter_map(|_| enter(user)).collect();
        assert_eq!(places.len(), MOST_OF_USER);
        assert!(enter(user).is_none());
        assert!(enter(Uuid::now_v7()).is_some());
        drop(places);
        assert!(enter(user).is_some());
        assert!(waits.taken().is_empty());
    }

    #[test]
    fn all_users_together_take_no_more_places_than_there_are() {
        let waits = Waits::default();
        let enter = |_| waits.enter(Uuid::now_v7(), Duration::ZERO);
        let places: Vec<Place> = (0..MOST * 2).filter_map(enter).collect();
        assert_eq!(places.len(), MOST);
    }
}
