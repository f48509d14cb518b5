//! Group commit for SQLite, which allows one writer at a time.
//!
//! Waiting for the disk is most of what a small transaction costs. So all transactions of a process
//! that wait at the same time share one commit: each runs in a savepoint of its own, which keeps it
//! atomic, and returns once the commit has reached the disk.
//!
//! Between processes SQLite has no queue: one that finds the file locked sleeps and retries, and
//! may be overtaken for seconds. So a writer first takes a lock on a file beside the database, for
//! which the system queues processes. That is for fairness only; SQLite's own lock protects the
//! data.

use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, RuntimeErr,
    SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{Instrument, Span};

use super::{Work, run};
use crate::private_file;

/// How long a write waits for other writers.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// How many transactions share a commit at most, so that none waits long for it.
const MAX_BATCH: usize = 64;

/// How many transactions are queued before callers have to wait to queue more.
const QUEUE_CAPACITY: usize = 1024;

/// The work of a queued transaction.
type BoxedWork =
    Box<dyn for<'t> FnOnce(&'t DatabaseTransaction) -> BoxFuture<'t, FinishedWork> + Send>;

/// The work of a transaction that has run and is not committed yet.
struct FinishedWork {
    /// Whether it succeeded, and is to be committed.
    succeeded: bool,
    /// Sends the result to the caller, once the commit has succeeded or failed.
    send_result: ResultSender,
}

type ResultSender = Box<dyn FnOnce(Result<(), &DbErr>) + Send>;

/// Queues transactions for the task that runs them.
#[derive(Clone, Debug)]
pub(super) struct GroupCommitWriter(mpsc::Sender<BoxedWork>);

impl GroupCommitWriter {
    /// Starts a writer on `db`, a pool of one connection to the SQLite database `file`.
    pub(super) fn new(db: DatabaseConnection, file: &Path) -> anyhow::Result<Self> {
        let lock = WriteLock::open(file)?;
        let (send, receive) = mpsc::channel(QUEUE_CAPACITY);
        tokio::spawn(run_writer(db, lock, receive));
        Ok(GroupCommitWriter(send))
    }

    /// As [`super::Database::transaction`].
    pub(super) async fn transaction<T, E, W>(&self, work: W) -> Result<T, E>
    where
        W: AsyncFnOnce(&DatabaseTransaction) -> Result<T, E>
            + for<'t> Work<'t, Result<T, E>>
            + Send
            + 'static,
        T: Send + 'static,
        E: From<DbErr> + Send + 'static,
    {
        let (send, receive) = oneshot::channel();
        // Log lines of the work belong to the caller's span.
        let span = Span::current();
        let work: BoxedWork = Box::new(|tx| {
            async move {
                let result = AssertUnwindSafe(async { run(work, tx).await }.instrument(span))
                    .catch_unwind()
                    .await;
                let succeeded = matches!(result, Ok(Ok(_)));
                let send_result = Box::new(move |committed: Result<(), &DbErr>| {
                    // The caller may be gone.
                    let _ = send.send(match (result, committed) {
                        (Ok(Ok(_)), Err(error)) => Ok(Err(E::from(error.clone()))),
                        (result, _) => result,
                    });
                });
                FinishedWork {
                    succeeded,
                    send_result,
                }
            }
            .boxed()
        });
        // Should the writer be gone, the work is dropped, and with it the sender.
        let _ = self.0.send(work).await;
        match receive.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => {
                let message = "the transaction could not begin; the log says why".to_owned();
                Err(DbErr::Conn(RuntimeErr::Internal(message)).into())
            }
        }
    }
}

async fn run_writer(db: DatabaseConnection, lock: WriteLock, mut queue: mpsc::Receiver<BoxedWork>) {
    while let Some(first) = queue.recv().await {
        let mut done = Vec::new();
        let committed = run_batch(&db, &lock, first, &mut queue, &mut done).await;
        if let Err(error) = &committed {
            tracing::error!(%error, "can't write to the database");
        }
        for work in done {
            (work.send_result)(committed.as_ref().copied());
        }
    }
}

/// Runs and commits the queued transactions, and those that come meanwhile, as one.
async fn run_batch(
    db: &DatabaseConnection,
    lock: &WriteLock,
    first: BoxedWork,
    queue: &mut mpsc::Receiver<BoxedWork>,
    done: &mut Vec<FinishedWork>,
) -> Result<(), DbErr> {
    let _guard = lock.acquire().await;
    let tx = db.begin_with_options(immediate()).await?;
    tx.execute_unprepared("SAVEPOINT work").await?;
    let mut next = Some(first);
    while let Some(work) = next {
        let finished = work(&tx).await;
        let succeeded = finished.succeeded;
        done.push(finished);
        next = (done.len() < MAX_BATCH)
            .then(|| queue.try_recv().ok())
            .flatten();
        let savepoint = match (succeeded, &next) {
            // The commit itself releases the savepoint.
            (true, None) => continue,
            (true, Some(_)) => "RELEASE work; SAVEPOINT work",
            (false, _) => "ROLLBACK TO work",
        };
        // A full disk rolls the whole transaction back, savepoints and all. Then this fails, or the
        // commit does, and with it the batch.
        tx.execute_unprepared(savepoint).await?;
    }
    tx.commit().await
}

/// The lock between processes. Only the holder of `next` may wait for `write`, so that no process
/// that has just released `write` can take it again before those that wait.
#[derive(Debug)]
struct WriteLock {
    next: Arc<File>,
    write: Arc<File>,
}

impl WriteLock {
    fn open(database: &Path) -> anyhow::Result<Self> {
        let open = |extension| {
            let path = database.with_extension(extension);
            let file = private_file::open(&path).context("DATABASE_URL");
            Ok::<_, anyhow::Error>(Arc::new(file?))
        };
        Ok(WriteLock {
            next: open("write-line")?,
            write: open("write-lock")?,
        })
    }

    async fn acquire(&self) -> Option<FileLockGuard> {
        let _next = FileLockGuard::lock(&self.next).await;
        FileLockGuard::lock(&self.write).await
    }
}

/// Holds the lock on a file until it is dropped or the process dies.
struct FileLockGuard(Arc<File>);

impl FileLockGuard {
    /// Waits for the lock; None if the file system has no locks, or the wait takes too long.
    async fn lock(file: &Arc<File>) -> Option<FileLockGuard> {
        let guard = FileLockGuard(file.clone());
        if file.try_lock().is_err() {
            let file = file.clone();
            let wait = spawn_blocking(move || file.lock().map(|()| guard));
            return timeout(BUSY_TIMEOUT, wait).await.ok()?.ok()?.ok();
        }
        Some(guard)
    }
}

impl Drop for FileLockGuard {
    fn drop(&mut self) {
        // If it fails: closing the file releases the lock, too.
        let _ = self.0.unlock();
    }
}

/// The options of a transaction that takes the write lock at its beginning.
pub(crate) fn immediate() -> TransactionOptions {
    TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    }
}
