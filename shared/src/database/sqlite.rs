//! Opening SQLite: one connection that writes, several that read.

use std::fs::File;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::FutureExt;
use sea_orm::SqlxSqliteConnector;
use sqlx::Connection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};

use super::group_commit::GroupCommitWriter;
use super::{Database, Reader, STATEMENT_CACHE_CAPACITY};
use crate::private_file;

/// How long a write waits for other writers on SQLite.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

const READERS: u32 = 4;

pub(super) async fn open(url: &str) -> anyhow::Result<Database> {
    let options = options(url)?;
    // Of several that turn a new file's log on at once, SQLite lets some fail.
    let lock = lock_file(options.get_filename()).await;
    let _lock = lock.with_context(|| format!("DATABASE_URL: can't open {url}"))?;
    create_private(options.get_filename()).context("DATABASE_URL")?;
    let write = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(BUSY_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_release(|connection, _| is_out_of_transactions(connection).boxed())
        .connect_with(options.clone())
        .await
        .with_context(|| format!("DATABASE_URL: can't open {url}"))?;
    let read = SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(BUSY_TIMEOUT)
        .connect_with(options.clone().pragma("query_only", "ON"))
        .await?;
    let write = SqlxSqliteConnector::from_sqlx_sqlite_pool(write);
    let read = Reader {
        db: SqlxSqliteConnector::from_sqlx_sqlite_pool(read),
        silence: Arc::default(),
    };
    Ok(Database {
        read,
        writer: Some(GroupCommitWriter::new(
            write.clone(),
            options.get_filename(),
        )?),
        write,
    })
}

/// Makes the file of a new database, for SQLite would make it readable to everyone;
/// its log gets the permissions that the file has.
fn create_private(file: &Path) -> anyhow::Result<()> {
    // Not one that is there: closing it would take this process' locks on it, which are
    // SQLite's. <https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_>
    if !file.exists() {
        private_file::open(file)?;
    }
    private_file::restrict_permissions(file);
    for extension in ["-wal", "-shm"] {
        let mut path = file.as_os_str().to_owned();
        path.push(extension);
        private_file::restrict_permissions(path.as_ref());
    }
    Ok(())
}

/// Whether a connection can be used again. A full disk ends a transaction by
/// itself; sqlx knows nothing of that and would go on in it, so that nothing
/// would ever be committed again.
async fn is_out_of_transactions(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // Until then it may be busy undoing one.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

/// How every connection to an SQLite file is made. `FULL` makes a commit
/// survive a loss of power, which is what a 202 promises.
fn options(url: &str) -> anyhow::Result<SqliteConnectOptions> {
    let options = SqliteConnectOptions::from_str(url)
        .with_context(|| format!("DATABASE_URL: can't read {url:?}"))?;
    let file = options.get_filename();
    if url.contains(":memory:") || url.contains("mode=memory") || file.as_os_str().is_empty() {
        bail!("DATABASE_URL: an SQLite database must be a file, for API and worker share it");
    }
    if file.exists() && !file.is_file() {
        bail!("DATABASE_URL: {} is no file", file.display());
    }
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("DATABASE_URL: can't make {}", folder.display()))?;
    }
    Ok(options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(STATEMENT_CACHE_CAPACITY)
        .foreign_keys(true)
        // What is deleted is overwritten, and not only forgotten.
        .pragma("secure_delete", "ON")
        .with_regexp())
}

/// Waits for a lock that other processes respect, on a file beside the
/// database, while that is made or brought up to date. It is let go when the
/// file is dropped, or its process dies.
pub(crate) async fn lock_file(database: &Path) -> anyhow::Result<File> {
    let path = database.with_extension("migration-lock");
    let lock = move || {
        let file = private_file::open(&path)?;
        file.lock()?;
        Ok(file)
    };
    tokio::task::spawn_blocking(lock).await?
}
