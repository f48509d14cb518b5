//! The database: SQLite in a file by default, or Postgres for several machines. The two behave
//! alike.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, SqlxPostgresConnector,
    TransactionTrait,
};
use tokio::time::timeout;
use tracing::Instrument;

use crate::config::StorageSettings;
use crate::wal_index::WalIndex;

mod backup;
mod draft;
mod group_commit;
mod open_lock;
mod postgres;
mod reader;
mod restore;
mod sqlite;
mod sqlite_readers;
mod stall_detector;

pub use backup::backup;
use group_commit::GroupCommitWriter;
pub(crate) use group_commit::immediate;
use open_lock::OpenLock;
pub use reader::Reader;
pub use restore::{RestoreOptions, Restored, Revoked, after_restore, restore};
pub(crate) use sqlite::lock_file;

/// The timeout of a transaction on Postgres. One that has to wait for locks fails earlier; this
/// detects an unreachable server, which the system would report only after a quarter of an hour.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// How long [`Database::close`] waits for the last writes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many prepared statements a connection caches. Bulk statements come in as many forms as there
/// are numbers of rows.
const STATEMENT_CACHE_CAPACITY: usize = 500;

/// An open database.
///
/// SQLite allows one writer at a time, so there is one writing connection, for which the writers of
/// a process queue; readers have connections of their own. On Postgres both are one pool.
#[derive(Clone, Debug)]
pub struct Database {
    read: Reader,
    write: DatabaseConnection,
    /// Only on SQLite.
    writer: Option<GroupCommitWriter>,
    /// Only on SQLite.
    wal_index: Option<Arc<WalIndex>>,
    /// Held for as long as there may be connections. Only on SQLite.
    _open_lock: Option<Arc<OpenLock>>,
}

impl Database {
    /// Opens the database, creating an SQLite file and its folder if they do not exist. Errors name
    /// the setting, and contain no password.
    pub async fn open(settings: &StorageSettings) -> anyhow::Result<Self> {
        let url = settings.url();
        match sqlite_file(settings)? {
            Some(_) => sqlite::open(&url).await,
            None => postgres::open(&url, settings.database_max_connections).await,
        }
    }

    /// The connection for read-only queries.
    pub fn read(&self) -> &Reader {
        &self.read
    }

    /// The connection for writing, past [`Database::transaction`]: for apalis, and for tests.
    pub fn raw_connection(&self) -> &DatabaseConnection {
        &self.write
    }

    /// A connection for work on whole tables, such as migrations: on Postgres nothing that it does or
    /// waits for times out. On SQLite nothing ever does, and it is the writing one.
    pub(crate) async fn without_timeouts(&self) -> Result<DatabaseConnection, sqlx::Error> {
        if self.backend() != DbBackend::Postgres {
            return Ok(self.write.clone());
        }
        let pool = self.write.get_postgres_connection_pool();
        let pool = postgres::without_timeouts(pool).await?;
        Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
    }

    /// The kind of database.
    pub fn backend(&self) -> DbBackend {
        self.write.get_database_backend()
    }

    /// What tells of commits; None on Postgres.
    pub fn wal_index(&self) -> Option<&Arc<WalIndex>> {
        self.wal_index.as_ref()
    }

    /// Waits until a query times out because Postgres is unreachable: other connections may be
    /// dead, too.
    pub(crate) async fn stalled(&self) {
        self.read.stalls.stalled().await;
    }

    /// Logs how many connections to Postgres this process may open, with `extra` ones outside of
    /// the pool, and how many the server has left.
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

    /// Runs `work` in a transaction, which is committed if `work` succeeds and else rolled back.
    /// All writes go through here. The transaction goes on even if the returned future is dropped.
    ///
    /// On SQLite the transaction holds the write lock from its beginning, for one that reads before
    /// it writes would fail if another wrote in between; and transactions that wait at the same
    /// time share a commit. So `work` must not wait for anything but the database.
    ///
    /// # Errors
    /// What `work` fails with, or an error of the database. If the commit itself fails, it is not
    /// known whether it was done.
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
        // In a task of its own: if the future were dropped while sqlx begins the transaction, the
        // connection would go back to the pool with the transaction open.
        let db = self.write.clone();
        let stalls = self.read.stalls.clone();
        let transaction = async move {
            let tx = db.begin().await?;
            let result = run(work, &tx).await;
            if result.is_ok() {
                tx.commit().await?;
            } // Else dropping it rolls it back.
            result
        };
        let transaction =
            async move { stalls.with_timeout(TRANSACTION_TIMEOUT, transaction).await };
        match tokio::spawn(transaction.in_current_span()).await {
            Ok(Ok(result)) => result,
            Ok(Err(timeout)) => Err(timeout.into()),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Closes all connections once they are no longer used, or after a timeout.
    pub async fn close(self) {
        if timeout(CLOSE_TIMEOUT, self.close_in_order()).await.is_err() {
            tracing::debug!("closing the database timed out");
        }
    }

    async fn close_in_order(self) {
        if let Some(writer) = &self.writer {
            // Returns when all queued transactions have run.
            let last = writer.transaction(async |_| Ok::<(), DbErr>(()));
            if let Err(error) = last.await {
                tracing::debug!(%error, "the last writes failed");
            }
        }
        for closed in [self.read.close().await, self.write.close().await] {
            if let Err(error) = closed {
                tracing::debug!(%error, "the database did not close cleanly");
            }
        }
    }
}

/// The file of an SQLite database, which need not exist; None for Postgres.
pub(crate) fn sqlite_file(settings: &StorageSettings) -> anyhow::Result<Option<PathBuf>> {
    let url = settings.url();
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(None);
    }
    if !url.starts_with("sqlite:") {
        bail!("DATABASE_URL: it must begin with sqlite:// or postgres://");
    }
    Ok(Some(sqlite::parse(&url)?.get_filename().to_owned()))
}

/// Fails if the settings name an SQLite file that does not exist.
pub(crate) fn refuse_missing(settings: &StorageSettings, advice: &str) -> anyhow::Result<()> {
    match sqlite_file(settings)? {
        Some(file) if !file.exists() => bail!("there is no database {}; {advice}", file.display()),
        _ => Ok(()),
    }
}

/// The work of a transaction. The trait expresses what can't be expressed of an async closure yet:
/// that its future is `Send`, for any lifetime of the transaction.
pub trait Work<'t, T>: FnOnce(&'t DatabaseTransaction) -> Self::Future {
    /// The closure's future.
    type Future: Future<Output = T> + Send + 't;
}

impl<'t, T, W, F> Work<'t, T> for W
where
    W: FnOnce(&'t DatabaseTransaction) -> F,
    F: Future<Output = T> + Send + 't,
{
    type Future = F;
}

/// Calls `work` as [`Work`]: a direct call would be taken for that of an async closure, whose
/// future need not be `Send`.
fn run<'t, T, W: Work<'t, T>>(work: W, tx: &'t DatabaseTransaction) -> W::Future {
    work(tx)
}
