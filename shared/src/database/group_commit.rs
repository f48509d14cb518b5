//! Writing to SQLite, where one writes at a time.
//!
//! A commit waits for the disk, and that is most of what a small transaction
//! costs. So all transactions of a process that wait at one moment share one
//! commit: each runs in a savepoint of its own, which keeps it atomic, and is
//! answered when the commit has reached the disk.
//!
//! Between processes SQLite has no queue: who finds the file locked sleeps and
//! tries again, and may be overtaken for seconds. So a writer first takes a lock
//! on a file beside the database, for which the system lets processes wait in
//! line. That is for order only; SQLite's own lock keeps the data whole.

use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

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

use super::sqlite::BUSY_TIMEOUT;
use super::{Work, run};
use crate::private_file;

/// So many transactions may share a commit: none waits long for it.
const MAX_BATCH: usize = 64;

/// How many may wait before those who bring more are held up.
const QUEUE_CAPACITY: usize = 1024;

/// A transaction that waits for its turn.
type BoxedWork =
    Box<dyn for<'t> FnOnce(&'t DatabaseTransaction) -> BoxFuture<'t, FinishedWork> + Send>;

/// A transaction that has run.
struct FinishedWork {
    /// Whether it is to be committed.
    kept: bool,
    /// Tells who asked for it, once the commit has gone well or badly.
    tell: ResultSender,
}

type ResultSender = Box<dyn FnOnce(Result<(), &DbErr>) + Send>;

/// Hands transactions to the task that runs them.
#[derive(Clone, Debug)]
pub(super) struct GroupCommitWriter(mpsc::Sender<BoxedWork>);

impl GroupCommitWriter {
    /// A writer on `db`, an SQLite database of one connection, in `file`.
    pub(super) fn new(db: DatabaseConnection, file: &Path) -> anyhow::Result<Self> {
        let locks = WriteLock::open(file)?;
        let (send, receive) = mpsc::channel(QUEUE_CAPACITY);
        tokio::spawn(run_writer(db, locks, receive));
        Ok(GroupCommitWriter(send))
    }

    /// Runs `work` in a transaction that is committed if it succeeds. It goes on
    /// even if nobody waits for it any longer.
    pub(super) async fn transaction<T, E, W>(&self, work: W) -> Result<T, E>
    where
        W: AsyncFnOnce(&DatabaseTransaction) -> Result<T, E>
            + for<'t> Work<'t, Result<T, E>>
            + Send
            + 'static,
        T: Send + 'static,
        E: From<DbErr> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        // What the database has to say of it is said of who asked.
        let span = Span::current();
        let work: BoxedWork = Box::new(|tx| {
            async move {
                let result = AssertUnwindSafe(async { run(work, tx).await }.instrument(span))
                    .catch_unwind()
                    .await;
                let kept = matches!(result, Ok(Ok(_)));
                let tell = Box::new(move |committed: Result<(), &DbErr>| {
                    // Whoever asked may be gone.
                    let _ = tell.send(match (result, committed) {
                        (Ok(Ok(_)), Err(error)) => Ok(Err(E::from(error.clone()))),
                        (result, _) => result,
                    });
                });
                FinishedWork { kept, tell }
            }
            .boxed()
        });
        if self.0.send(work).await.is_err() {
            return Err(closed().into());
        }
        match told.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => Err(closed().into()),
        }
    }
}

fn closed() -> DbErr {
    let why = "the transaction could not begin; the log says why".to_owned();
    DbErr::Conn(RuntimeErr::Internal(why))
}

async fn run_writer(
    db: DatabaseConnection,
    locks: WriteLock,
    mut waiting: mpsc::Receiver<BoxedWork>,
) {
    while let Some(first) = waiting.recv().await {
        let mut done = Vec::new();
        let committed = commit(&db, &locks, first, &mut waiting, &mut done).await;
        if let Err(error) = &committed {
            tracing::error!(%error, "can't write to the database");
        }
        for FinishedWork { tell, .. } in done {
            tell(committed.as_ref().copied());
        }
    }
}

/// Runs what waits, and what comes meanwhile, in one transaction.
async fn commit(
    db: &DatabaseConnection,
    locks: &WriteLock,
    first: BoxedWork,
    waiting: &mut mpsc::Receiver<BoxedWork>,
    done: &mut Vec<FinishedWork>,
) -> Result<(), DbErr> {
    let _turn = locks.acquire().await;
    let tx = db
        .begin_with_options(TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        })
        .await?;
    tx.execute_unprepared("SAVEPOINT work").await?;
    let mut next = Some(first);
    while let Some(work) = next {
        let this = work(&tx).await;
        let kept = this.kept;
        done.push(this);
        next = match done.len() < MAX_BATCH {
            true => waiting.try_recv().ok(),
            false => None,
        };
        let then = match (kept, &next) {
            // The commit itself ends the savepoint.
            (true, None) => continue,
            (true, Some(_)) => "RELEASE work; SAVEPOINT work",
            (false, _) => "ROLLBACK TO work",
        };
        // A full disk undoes the whole transaction, savepoints and all. Then this
        // fails, or the commit does, and with it the batch.
        tx.execute_unprepared(then).await?;
    }
    tx.commit().await
}

/// The lock that processes wait in line for, and the place at its head. Only
/// who holds `head` may wait for `turn`, so no one who has just let go of it
/// can take it again before those who wait.
#[derive(Debug)]
struct WriteLock {
    head: Arc<File>,
    turn: Arc<File>,
}

impl WriteLock {
    fn open(database: &Path) -> anyhow::Result<Self> {
        let open = |extension| {
            let path = database.with_extension(extension);
            let file = private_file::open(&path).context("DATABASE_URL");
            Ok::<_, anyhow::Error>(Arc::new(file?))
        };
        Ok(WriteLock {
            head: open("write-line")?,
            turn: open("write-lock")?,
        })
    }

    async fn acquire(&self) -> Option<FileLockGuard> {
        let _head = FileLockGuard::lock(&self.head).await;
        FileLockGuard::lock(&self.turn).await
    }
}

/// A lock on a file, until this is dropped or the process dies.
struct FileLockGuard(Arc<File>);

impl FileLockGuard {
    /// Waits for the lock; None where the file system has none, or whoever has it
    /// does not let go of it.
    async fn lock(file: &Arc<File>) -> Option<FileLockGuard> {
        let held = FileLockGuard(file.clone());
        if file.try_lock().is_err() {
            let file = file.clone();
            let wait = spawn_blocking(move || file.lock().map(|()| held));
            return timeout(BUSY_TIMEOUT, wait).await.ok()?.ok()?.ok();
        }
        Some(held)
    }
}

impl Drop for FileLockGuard {
    fn drop(&mut self) {
        // Closing the file would do it, too.
        let _ = self.0.unlock();
    }
}
