//! Joins what many tasks write at the same moment into one transaction, with statements for many
//! rows: requests for new posts in the API, what attempts have done in the worker.
//!
//! A statement costs much the same for one row as for fifty; and while one transaction runs, the
//! items of the next one gather. No item waits for others to come, nor for a lock that only another
//! item needs; and one that fails is done again by itself, as the others are, so that it harms none.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use sea_orm::{DatabaseTransaction, DbErr};
use tokio::sync::{mpsc, oneshot};

use crate::database::Database;
use crate::queue::LockMode;

/// So many share a transaction at most.
const MAX_BATCH: usize = 256;

/// Runs operations of one kind, many in a transaction. Clones share it.
pub struct Batcher<I, O>(mpsc::UnboundedSender<(I, ResultSender<O>)>);

impl<I, O> Clone for Batcher<I, O> {
    fn clone(&self) -> Self {
        Batcher(self.0.clone())
    }
}

impl<I, O> fmt::Debug for Batcher<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").finish_non_exhaustive()
    }
}

type ResultSender<O> = oneshot::Sender<Result<O, DbErr>>;

/// Does what is asked for, in a transaction, and brings as many results in the
/// same order.
type Work<I, O> =
    dyn for<'t> Fn(&'t DatabaseTransaction, Vec<I>, LockMode) -> BatchResult<'t, O> + Send + Sync;

/// The results of some work.
pub type BatchResult<'t, O> = BoxFuture<'t, Result<Vec<O>, DbErr>>;

impl<I, O> Batcher<I, O>
where
    I: Clone + Send + Sync + 'static,
    O: Send + 'static,
{
    /// `work` is done until the last clone is dropped.
    pub fn new(
        db: Database,
        work: impl for<'t> Fn(&'t DatabaseTransaction, Vec<I>, LockMode) -> BatchResult<'t, O>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let (send, receive) = mpsc::unbounded_channel();
        tokio::spawn(run(db, Arc::new(work), receive));
        Batcher(send)
    }

    /// Adds something to what is done next. It is done even if nobody waits for
    /// it any longer.
    ///
    /// # Errors
    /// When it fails by itself, or the database does not answer.
    pub async fn submit(&self, item: I) -> Result<O, DbErr> {
        let (tell, told) = oneshot::channel();
        let gone = || DbErr::Custom("the process is stopping".to_owned());
        self.0.send((item, tell)).map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

async fn run<I, O>(
    db: Database,
    work: Arc<Work<I, O>>,
    mut wanted: mpsc::UnboundedReceiver<(I, ResultSender<O>)>,
) where
    I: Clone + Send + Sync + 'static,
    O: Send + 'static,
{
    let mut batch = Vec::new();
    while wanted.recv_many(&mut batch, MAX_BATCH).await > 0 {
        let (items, tells): (Vec<I>, Vec<ResultSender<O>>) = batch.drain(..).unzip();
        match transact(&db, &work, items.clone(), LockMode::NoWait).await {
            Ok(done) => {
                for (tell, result) in tells.into_iter().zip(done) {
                    // Whoever asked may be gone.
                    let _ = tell.send(Ok(result));
                }
            }
            // Nothing was done. What can't be done, or not now, must hold up
            // neither the others nor what comes next.
            Err(_) => {
                for (item, tell) in items.into_iter().zip(tells) {
                    tokio::spawn(run_single(db.clone(), work.clone(), item, tell));
                }
            }
        }
    }
}

async fn run_single<I, O>(db: Database, work: Arc<Work<I, O>>, item: I, tell: ResultSender<O>)
where
    I: Send + 'static,
    O: Send + 'static,
{
    let nothing = || DbErr::Custom("an operation has no result".to_owned());
    let done = transact(&db, &work, vec![item], LockMode::Wait).await;
    let _ = tell.send(done.and_then(|mut done| done.pop().ok_or_else(nothing)));
}

async fn transact<I, O>(
    db: &Database,
    work: &Arc<Work<I, O>>,
    items: Vec<I>,
    lock_mode: LockMode,
) -> Result<Vec<O>, DbErr>
where
    I: Send + 'static,
    O: Send + 'static,
{
    let (db, work) = (db.clone(), work.clone());
    // A panic is a fault of what was to be done, and must not end this for all.
    let done = async move {
        db.transaction(async move |tx| work(tx, items, lock_mode).await)
            .await
    };
    tokio::spawn(done)
        .await
        .unwrap_or_else(|panic| Err(DbErr::Custom(panic.to_string())))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use tokio::join;

    use super::*;
    use crate::config::StorageSettings;

    async fn database(folder: &tempfile::TempDir) -> Database {
        let settings = StorageSettings::new(None, folder.path());
        Database::open(&settings).await.unwrap()
    }

    /// Can't do what is "bad", and panics at what is "mad".
    async fn work(items: Vec<&'static str>) -> Result<Vec<&'static str>, DbErr> {
        assert!(!items.contains(&"mad"), "this is mad");
        match items.contains(&"bad") {
            true => Err(DbErr::Custom("this is bad".to_owned())),
            false => Ok(items),
        }
    }

    #[tokio::test]
    async fn what_comes_together_is_done_together() {
        let folder = tempfile::tempdir().unwrap();
        let times = Arc::new(AtomicUsize::new(0));
        let counted = times.clone();
        let batch = Batcher::new(database(&folder).await, move |_, items, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            work(items).boxed()
        });
        let done = join!(
            batch.submit("one"),
            batch.submit("two"),
            batch.submit("three")
        );
        assert_eq!(done, (Ok("one"), Ok("two"), Ok("three")));
        assert_eq!(times.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn what_cannot_be_done_holds_up_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let batch = Batcher::new(database(&folder).await, |_, items, _| work(items).boxed());
        for fault in ["bad", "mad"] {
            let (one, fault, two) = join!(
                batch.submit("one"),
                batch.submit(fault),
                batch.submit("two")
            );
            assert_eq!((one, two), (Ok("one"), Ok("two")));
            assert!(fault.is_err());
        }
    }
}
