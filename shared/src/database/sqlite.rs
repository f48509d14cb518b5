//! Opens SQLite: one connection for writing, several for reading.

use std::fs::File;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, bail};
use futures_util::FutureExt;
use sea_orm::SqlxSqliteConnector;
use sqlx::Connection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};

use super::group_commit::{BUSY_TIMEOUT, GroupCommitWriter};
use super::reader::Connections;
use super::sqlite_readers::SqliteReaders;
use super::{Database, OpenLock, Reader, STATEMENT_CACHE_CAPACITY};
use crate::private_file;
use crate::wal_index::WalIndex;

pub(super) async fn open(url: &str) -> anyhow::Result<Database> {
    let options = options(url)?;
    create_folder(options.get_filename())?;
    // SQLite fails in some of several processes that switch a new file to WAL at once.
    let lock = lock_file(options.get_filename()).await;
    let _lock = lock.with_context(|| format!("DATABASE_URL: can't open {url}"))?;
    let open_lock = OpenLock::shared(options.get_filename()).context("DATABASE_URL")?;
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
    let readers = SqliteReaders::open(options.clone().pragma("query_only", "ON")).await?;
    let write = SqlxSqliteConnector::from_sqlx_sqlite_pool(write);
    let read = Reader {
        connections: Connections::Sqlite(readers),
        stalls: Arc::default(),
    };
    let writer = GroupCommitWriter::new(write.clone(), options.get_filename())?;
    let wal_index = WalIndex::open(options.get_filename());
    let wal_index = wal_index.context("DATABASE_URL: can't read SQLite's WAL index")?;
    Ok(Database {
        read,
        write,
        writer: Some(writer),
        wal_index: Some(Arc::new(wal_index)),
        _open_lock: Some(Arc::new(open_lock)),
    })
}

/// Creates the file of a new database, which SQLite would make readable for everyone, and restricts
/// the files of an old one. The WAL of a new one gets its file's permissions.
fn create_private(file: &Path) -> anyhow::Result<()> {
    // Not if it exists: closing it would release SQLite's locks on it in this process.
    // <https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_>
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

/// Whether a connection can be used again. A full disk rolls a transaction back by itself; sqlx
/// does not notice and would go on in it, so that nothing would ever be committed again.
async fn is_out_of_transactions(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // Until the ping returns, a rollback may be under way.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

/// The file that a URL names, as options without any other setting.
pub(super) fn parse(url: &str) -> anyhow::Result<SqliteConnectOptions> {
    let options = SqliteConnectOptions::from_str(url)
        .with_context(|| format!("DATABASE_URL: {url:?} is not a valid URL"))?;
    let file = options.get_filename();
    if url.contains(":memory:") || url.contains("mode=memory") || file.as_os_str().is_empty() {
        bail!("DATABASE_URL: an SQLite database must be a file, which API and worker share");
    }
    if file.exists() && !file.is_file() {
        bail!("DATABASE_URL: {} is not a file", file.display());
    }
    Ok(options)
}

/// Creates the folder of a database.
pub(super) fn create_folder(file: &Path) -> anyhow::Result<()> {
    let Some(folder) = file.parent() else {
        return Ok(());
    };
    std::fs::create_dir_all(folder)
        .with_context(|| format!("DATABASE_URL: can't create {}", folder.display()))
}

/// The options of every connection. With `FULL` a commit survives a loss of power, which is what a
/// 202 promises.
fn options(url: &str) -> anyhow::Result<SqliteConnectOptions> {
    Ok(parse(url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(STATEMENT_CACHE_CAPACITY)
        .foreign_keys(true)
        // Deleted data is overwritten.
        .pragma("secure_delete", "ON")
        .with_regexp())
}

/// Takes the lock, on a file beside the database, under which processes create and migrate it. It
/// is released when the returned file is dropped or the process dies.
pub(crate) async fn lock_file(database: &Path) -> anyhow::Result<File> {
    let path = database.with_extension("migration-lock");
    let lock = move || {
        let file = private_file::open(&path)?;
        file.lock()?;
        Ok(file)
    };
    tokio::task::spawn_blocking(lock).await?
}
