//! Places for work that is dear: so much of it at once leaves room for all else.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, spawn, spawn_blocking};
use tokio::time::timeout;
use tracing::Instrument;
use uuid::Uuid;

use crate::error::{Error, Result};

/// How long anyone waits for a place.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Places for work of one kind. Clones share them.
///
/// The work holds its place to its end: a client that hangs up leaves its work
/// behind, and others can't pile theirs upon it.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit(Arc<Semaphore>);

impl ConcurrencyLimit {
    /// So many.
    pub fn new(number: usize) -> Self {
        ConcurrencyLimit(Arc::new(Semaphore::new(number)))
    }

    /// As many as there are cores, for what keeps a core busy.
    pub fn per_core() -> Self {
        ConcurrencyLimit::new(available_parallelism().map_or(2, usize::from))
    }

    /// Does work that waits, in a task of its own.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if there is no place in time.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let place = self.acquire().await?;
        let work = async move {
            let done = work.await;
            drop(place);
            done
        };
        join(spawn(work.in_current_span())).await
    }

    /// Does work that computes, on a thread where that holds up nobody.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if there is no place in time.
    pub async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let place = self.acquire().await?;
        let work = move || {
            let done = work();
            drop(place);
            done
        };
        join(spawn_blocking(work)).await
    }

    /// Whether work holds a place or waits for one.
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    async fn acquire(&self) -> Result<OwnedSemaphorePermit> {
        let place = timeout(ACQUIRE_TIMEOUT, self.0.clone().acquire_owned()).await;
        let place = place.map_err(|_| Error::Overloaded)?;
        place.map_err(Error::internal)
    }
}

/// Places for work of one kind, of which each user has one: whatever one user asks
/// for, it takes no place that another could have had but one.
#[derive(Clone, Debug)]
pub(crate) struct PerUserLimit {
    all: ConcurrencyLimit,
    users: Arc<Mutex<HashMap<Uuid, ConcurrencyLimit>>>,
}

impl PerUserLimit {
    /// So many for all users together.
    pub(crate) fn new(number: usize) -> Self {
        PerUserLimit {
            all: ConcurrencyLimit::new(number),
            users: Arc::default(),
        }
    }

    /// Does a user's work that waits, in a task of its own.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if there is no place in time.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        user: Uuid,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let (own, all) = (self.limit_of(user), self.all.clone());
        own.run(async move { all.run(work).await }).await?
    }

    fn limit_of(&self, user: Uuid) -> ConcurrencyLimit {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|_, places| places.is_used());
        let own = users
            .entry(user)
            .or_insert_with(|| ConcurrencyLimit::new(1));
        own.clone()
    }
}

async fn join<T>(work: JoinHandle<T>) -> Result<T> {
    work.await.map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::channel;

    use super::*;

    #[tokio::test]
    async fn work_holds_its_place_though_nobody_waits_for_it_any_more() {
        let places = ConcurrencyLimit::new(1);
        let (begin, begun) = channel();
        let (end, ended) = channel::<()>();
        let work = async {
            begin.send(()).unwrap();
            ended.await.unwrap();
        };
        let client = spawn({
            let places = places.clone();
            async move { places.run(work).await }
        });
        begun.await.unwrap();
        client.abort();
        assert!(client.await.unwrap_err().is_cancelled());
        assert_eq!(places.0.available_permits(), 0);

        end.send(()).unwrap();
        assert_eq!(places.run(async { 1 }).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn computing_holds_its_place_though_nobody_waits_for_it_any_more() {
        let places = ConcurrencyLimit::new(1);
        let (begin, begun) = channel();
        let (end, ended) = channel::<()>();
        let work = || {
            begin.send(()).unwrap();
            ended.blocking_recv().unwrap();
        };
        let client = spawn({
            let places = places.clone();
            async move { places.run_blocking(work).await }
        });
        begun.await.unwrap();
        client.abort();
        assert!(client.await.unwrap_err().is_cancelled());
        assert_eq!(places.0.available_permits(), 0);

        end.send(()).unwrap();
        assert_eq!(places.run_blocking(|| 1).await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_place_for_long() {
        let places = ConcurrencyLimit::new(1);
        let _taken = places.acquire().await.unwrap();
        let refused = places.run(async {}).await;
        assert!(matches!(refused, Err(Error::Overloaded)), "{refused:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_who_asks_for_much_takes_no_place_of_another() {
        let (places, ann) = (PerUserLimit::new(2), Uuid::now_v7());
        let endless = |user| {
            let places = places.clone();
            spawn(async move { places.run(user, std::future::pending::<()>()).await })
        };
        let anns = [(); 3].map(|()| endless(ann));
        tokio::task::yield_now().await;
        let bobs = places.run(Uuid::now_v7(), async { "found" }).await;
        assert_eq!(bobs.unwrap(), "found");
        let mut refused = 0;
        for ann in anns {
            let ended = timeout(ACQUIRE_TIMEOUT * 2, ann).await;
            refused += usize::from(matches!(ended, Ok(Ok(Err(Error::Overloaded)))));
        }
        assert_eq!(refused, 2);
    }

    #[tokio::test]
    async fn users_who_want_nothing_more_are_forgotten() {
        let places = PerUserLimit::new(1);
        for _ in 0..3 {
            places.run(Uuid::now_v7(), async {}).await.unwrap();
        }
        assert_eq!(places.users.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_place_back() {
        let places = ConcurrencyLimit::new(1);
        for _ in 0..2 {
            let failed = places.run_blocking(|| panic!("of no use")).await;
            assert!(matches!(failed, Err(Error::Internal(_))), "{failed:?}");
        }
    }
}
