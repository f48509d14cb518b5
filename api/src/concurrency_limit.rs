//! Concurrency limits for expensive work: searches, rendering, hashing.

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

/// How long work waits for a permit.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A limit for one kind of work. Clones share it.
///
/// Work keeps its permit to its end: a client that disconnects leaves its work behind, and its next
/// requests must not pile up on it.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit(Arc<Semaphore>);

impl ConcurrencyLimit {
    /// A limit of `number` at once.
    pub(crate) fn new(number: usize) -> Self {
        ConcurrencyLimit(Arc::new(Semaphore::new(number)))
    }

    /// One per core, for work that keeps a core busy.
    pub(crate) fn per_core() -> Self {
        ConcurrencyLimit::new(available_parallelism().map_or(2, usize::from))
    }

    /// Runs async work in a task of its own.
    ///
    /// # Errors
    /// [`Error::Overloaded`] without a permit in time.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let permit = self.acquire().await?;
        let work = async move {
            let done = work.await;
            drop(permit);
            done
        };
        join(spawn(work.in_current_span())).await
    }

    /// Runs work that computes, on a blocking thread.
    ///
    /// # Errors
    /// [`Error::Overloaded`] without a permit in time.
    pub(crate) async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let permit = self.acquire().await?;
        let work = move || {
            let done = work();
            drop(permit);
            done
        };
        join(spawn_blocking(work)).await
    }

    /// Whether work has a permit or waits for one.
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    async fn acquire(&self) -> Result<OwnedSemaphorePermit> {
        let permit = timeout(ACQUIRE_TIMEOUT, self.0.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| Error::Overloaded)?;
        permit.map_err(Error::internal)
    }
}

/// A limit of one per user, and one for all users: a user delays others by at most one permit.
#[derive(Clone, Debug)]
pub(crate) struct PerUserLimit {
    all: ConcurrencyLimit,
    users: Arc<Mutex<HashMap<Uuid, ConcurrencyLimit>>>,
}

impl PerUserLimit {
    pub(crate) fn new(number: usize) -> Self {
        PerUserLimit {
            all: ConcurrencyLimit::new(number),
            users: Arc::default(),
        }
    }

    /// Runs a user's async work in a task of its own.
    ///
    /// # Errors
    /// [`Error::Overloaded`] without a permit in time.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        user: Uuid,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let all = self.all.clone();
        self.limit_of(user)
            .run(async move { all.run(work).await })
            .await?
    }

    fn limit_of(&self, user: Uuid) -> ConcurrencyLimit {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|_, limit| limit.is_used());
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
        let limit = ConcurrencyLimit::new(1);
        let (begin, begun) = channel();
        let (end, ended) = channel::<()>();
        let work = async {
            begin.send(()).unwrap();
            ended.await.unwrap();
        };
        let client = spawn({
            let limit = limit.clone();
            async move { limit.run(work).await }
        });
        begun.await.unwrap();
        client.abort();
        assert!(client.await.unwrap_err().is_cancelled());
        assert_eq!(limit.0.available_permits(), 0);

        end.send(()).unwrap();
        assert_eq!(limit.run(async { 1 }).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn computing_holds_its_place_though_nobody_waits_for_it_any_more() {
        let limit = ConcurrencyLimit::new(1);
        let (begin, begun) = channel();
        let (end, ended) = channel::<()>();
        let work = || {
            begin.send(()).unwrap();
            ended.blocking_recv().unwrap();
        };
        let client = spawn({
            let limit = limit.clone();
            async move { limit.run_blocking(work).await }
        });
        begun.await.unwrap();
        client.abort();
        assert!(client.await.unwrap_err().is_cancelled());
        assert_eq!(limit.0.available_permits(), 0);

        end.send(()).unwrap();
        assert_eq!(limit.run_blocking(|| 1).await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_place_for_long() {
        let limit = ConcurrencyLimit::new(1);
        let _taken = limit.acquire().await.unwrap();
        let refused = limit.run(async {}).await;
        assert!(matches!(refused, Err(Error::Overloaded)), "{refused:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_who_asks_for_much_takes_no_place_of_another() {
        let (limit, ann) = (PerUserLimit::new(2), Uuid::now_v7());
        let endless = |user| {
            let limit = limit.clone();
            spawn(async move { limit.run(user, std::future::pending::<()>()).await })
        };
        let anns = [(); 3].map(|()| endless(ann));
        tokio::task::yield_now().await;
        let bobs = limit.run(Uuid::now_v7(), async { "found" }).await;
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
        let limit = PerUserLimit::new(1);
        for _ in 0..3 {
            limit.run(Uuid::now_v7(), async {}).await.unwrap();
        }
        assert_eq!(limit.users.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_place_back() {
        let limit = ConcurrencyLimit::new(1);
        for _ in 0..2 {
            let failed = limit.run_blocking(|| panic!("of no use")).await;
            assert!(matches!(failed, Err(Error::Internal(_))), "{failed:?}");
        }
    }
}
