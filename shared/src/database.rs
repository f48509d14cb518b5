//! Opening the database: SQLite in a file by default, Postgres for many
//! machines. The two behave alike to everyone else.

use std::time::Duration;

use anyhow::bail;
use sea_orm::{DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, TransactionTrait};
use tokio::time::timeout;
use tracing::Instrument;

use crate::config::StorageSettings;

mod group_commit;
mod postgres;
mod reader;
mod sqlite;
mod stall_detector;

use group_commit::GroupCommitWriter;
pub use reader::Reader;
pub(crate) use sqlite::lock_file;

/// How long a transaction may take on Postgres. One that has to wait for others
/// fails earlier; this is for a server that has vanished without a word, of
/// which the system tells only after a quarter of an hour.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a process that stops waits for its last writes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Prepared statements that a connection keeps. Those about many rows at once
/// come in as many forms as there are numbers of rows.
const STATEMENT_CACHE_CAPACITY: usize = 500;

/// An open database.
///
/// SQLite has one writer at a time whatever one does; with one writing
/// connection, writers of a process wait in an orderly line for it, while
/// readers have connections of their own. On Postgres both are one pool.
#[derive(Clone, Debug)]
pub struct Database {
    read: Reader,
    write: DatabaseConnection,
    /// On SQLite.
    writer: Option<GroupCommitWriter>,
}

impl Database {
    /// Opens the database, making an SQLite file and its folder if need be.
    ///
    /// # Errors
    /// When the address can't be read or the database does not answer; the
    /// message names the setting and holds no password.
    pub async fn open(settings: &StorageSettings) -> anyhow::Result<Self> {
        let url = settings.url();
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return postgres::open(&url, settings.database_max_connections).await;
        }
        if url.starts_with("sqlite:") {
            return sqlite::open(&url).await;
        }
        bail!("DATABASE_URL: it must begin with sqlite:// or postgres://")
    }

    /// For queries that change nothing.
    pub fn read(&self) -> &Reader {
        &self.read
    }

    /// Writes past [`Database::transaction`]: for the queue's own library, and for
    /// tests that meddle.
    pub fn raw_connection(&self) -> &DatabaseConnection {
        &self.write
    }

    /// Which database it is.
    pub fn backend(&self) -> DbBackend {
        self.write.get_database_backend()
    }

    /// Waits until a connection turns out to be dead whose server has vanished
    /// without a word: others may be, too.
    pub async fn stalled(&self) {
        self.read.silence.stalled().await;
    }

    /// Says in the log how many connections this process may open, `extra` ones of
    /// others included, and how many the server has left. Nothing on SQLite.
    pub(crate) async fn report_connections(&self, extra: u32) -> anyhow::Result<()> {
        if self.backend() != DbBackend::Postgres {
            return Ok(());
        }
        let pool = self.write.get_postgres_connection_pool();
        let wanted = i64::from(pool.options().get_max_connections() + extra);
        let (allowed, free) = postgres::server_connections(pool).await?;
        tracing::info!(wanted, allowed, free, "connections to Postgres");
        if wanted > free {
            tracing::warn!(
                wanted,
                free,
                "this process may want more connections than Postgres has left: raise its \
                 max_connections, or lower DATABASE_MAX_CONNECTIONS of all processes"
            );
        }
        Ok(())
    }

    /// Runs `work` in a transaction, which is committed if it succeeds and
    /// otherwise undone. All that writes goes through here. It goes on even if
    /// nobody waits for it any longer.
    ///
    /// On SQLite the transaction holds the write lock from its beginning, for
    /// one that reads first and then turns to writing fails where another has
    /// written meanwhile; and transactions that wait at the same time share a
    /// commit. So `work` must not wait for anything but the database.
    ///
    /// # Errors
    /// What `work` fails with, or that the database does not answer. After an
    /// error of the commit itself it is not known whether it was done.
    pub async fn transaction<T, E, W>(&self, work: W) -> Result<T, E>
    where
        W: AsyncFnOnce(&DatabaseTransaction) -> Result<T, E>
            + for<'t> Work<'t, Result<T, E>>
            + Send
            + 'static,
        T: Send + 'static,
        E: From<DbErr> + Send + 'static,
    {
        if let Some(writer) = &self.writer {
            return writer.transaction(work).await;
        }
        // In a task of its own: if its caller went away while sqlx begins it, the
        // connection would go back to the pool with the transaction open.
        let db = self.write.clone();
        let whole = async move {
            let tx = db.begin().await?;
            let done = run(work, &tx).await;
            if done.is_ok() {
                tx.commit().await?;
            } // Otherwise dropping it rolls it back.
            done
        };
        let silence = self.read.silence.clone();
        let whole = async move { silence.with_timeout(TRANSACTION_TIMEOUT, whole).await };
        match tokio::spawn(whole.in_current_span()).await {
            Ok(Ok(done)) => done,
            Ok(Err(silent)) => Err(silent.into()),
            Err(gone) => std::panic::resume_unwind(gone.into_panic()),
        }
    }

    /// Lets go of all connections once their users are done, or are late.
    pub async fn close(self) {
        if timeout(CLOSE_TIMEOUT, self.close_in_order()).await.is_err() {
            tracing::debug!("the database did not answer any more");
        }
    }

    async fn close_in_order(self) {
        if let Some(writer) = &self.writer {
            // What was asked for before this is done first.
            let last = writer.transaction(async |_| Ok::<(), DbErr>(()));
            if let Err(error) = last.await {
                tracing::debug!(%error, "the last writes failed");
            }
        }
        for pool in [self.read.db, self.write] {
            if let Err(error) = pool.close().await {
                tracing::debug!(%error, "the database did not close cleanly");
            }
        }
    }
}

/// What is done in a transaction. It says of an async closure what can't be written
/// otherwise yet: that its future is `Send`, however long the transaction lives.
pub trait Work<'t, T>: FnOnce(&'t DatabaseTransaction) -> Self::Future {
    /// The work, under way.
    type Future: Future<Output = T> + Send + 't;
}

impl<'t, T, W, F> Work<'t, T> for W
where
    W: FnOnce(&'t DatabaseTransaction) -> F,
    F: Future<Output = T> + Send + 't,
{
    type Future = F;
}

/// Begins `work`. A call of it would be taken for that of an async closure, whose
/// future need not be `Send`.
fn run<'t, T, W: Work<'t, T>>(work: W, tx: &'t DatabaseTransaction) -> W::Future {
    work(tx)
}
