//! Opening the database: SQLite in a file by default, Postgres for many
//! machines. The two behave alike to everyone else.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::FutureExt;
use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, SqlxPostgresConnector,
    SqlxSqliteConnector, TransactionTrait,
};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, PgPool};
use tokio::time::timeout;
use tracing::Instrument;

use crate::config::StorageSettings;
use crate::migrate::lock_file;
use crate::private_file;

mod group_commit;
mod reader;
mod stall_detector;

use group_commit::GroupCommitWriter;
pub use reader::Reader;
use stall_detector::StallDetector;

/// How long a write waits for other writers on SQLite.
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long anyone waits for a connection to Postgres: clients are told soon
/// when it is away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// For how long a connection to Postgres is taken to live without a look.
const SKIP_PING_WITHIN: Duration = Duration::from_secs(1);

/// How long a server may take to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a transaction may take on Postgres. One that has to wait for others
/// fails earlier; this is for a server that has vanished without a word, of
/// which the system tells only after a quarter of an hour.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a process that stops waits for its last writes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Prepared statements that a connection keeps. Those about many rows at once
/// come in as many forms as there are numbers of rows.
const STATEMENT_CACHE_CAPACITY: usize = 500;

/// How long a statement may take on Postgres, which ends it then: as long as who
/// has asked for it waits at most.
const STATEMENT_TIMEOUT: &str = "30s";

const SQLITE_READERS: u32 = 4;

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
            return open_postgres(&url, settings.database_max_connections).await;
        }
        if url.starts_with("sqlite:") {
            return open_sqlite(&url).await;
        }
        bail!("DATABASE_URL: it must begin with sqlite:// or postgres://")
    }

    /// Opens the database and brings its tables up to date, as every process does
    /// that starts. On Postgres it is one that needs `extra` connections of others
    /// besides those of the settings.
    ///
    /// # Errors
    /// As [`Database::open`] and [`Database::migrate`].
    pub async fn open_and_migrate(settings: &StorageSettings, extra: u32) -> anyhow::Result<Self> {
        let db = Database::open(settings).await?;
        db.migrate().await?;
        db.report_connections(extra).await?;
        Ok(db)
    }

    /// Opens a database that the service has already, and makes none.
    ///
    /// # Errors
    /// As [`Database::open`], and when it is not there, or lacks tables.
    pub async fn open_existing(settings: &StorageSettings) -> anyhow::Result<Self> {
        let advice = "set DATA_DIR or DATABASE_URL as the API has it, and start the API first";
        let url = settings.url();
        if url.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(&url);
            let options = options.with_context(|| format!("DATABASE_URL: can't read {url:?}"))?;
            let file = options.get_filename();
            if !file.exists() {
                bail!("there is no database {}; {advice}", file.display());
            }
        }
        let db = Database::open(settings).await?;
        let status = db.schema_status().await?;
        status.refuse_breaking()?;
        if !status.pending.is_empty() {
            bail!("the database lacks tables that this version wants; {advice}");
        }
        Ok(db)
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
    async fn report_connections(&self, extra: u32) -> anyhow::Result<()> {
        if self.backend() != DbBackend::Postgres {
            return Ok(());
        }
        let pool = self.write.get_postgres_connection_pool();
        let wanted = i64::from(pool.options().get_max_connections() + extra);
        let (allowed, free) = server_connections(pool).await?;
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

async fn open_sqlite(url: &str) -> anyhow::Result<Database> {
    let options = sqlite_options(url)?;
    // Of several that turn a new file's log on at once, SQLite lets some fail.
    let lock = lock_file(options.get_filename()).await;
    let _lock = lock.with_context(|| format!("DATABASE_URL: can't open {url}"))?;
    create_private(options.get_filename()).context("DATABASE_URL")?;
    let write = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(SQLITE_BUSY_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_release(|connection, _| is_out_of_transactions(connection).boxed())
        .connect_with(options.clone())
        .await
        .with_context(|| format!("DATABASE_URL: can't open {url}"))?;
    let read = SqlitePoolOptions::new()
        .max_connections(SQLITE_READERS)
        .acquire_timeout(SQLITE_BUSY_TIMEOUT)
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
fn sqlite_options(url: &str) -> anyhow::Result<SqliteConnectOptions> {
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
        .busy_timeout(SQLITE_BUSY_TIMEOUT)
        .statement_cache_capacity(STATEMENT_CACHE_CAPACITY)
        .foreign_keys(true)
        // What is deleted is overwritten, and not only forgotten.
        .pragma("secure_delete", "ON")
        .with_regexp())
}

async fn open_postgres(url: &str, max_connections: u32) -> anyhow::Result<Database> {
    let silence = Arc::new(StallDetector::default());
    let (before, after) = (silence.clone(), silence.clone());
    let pool = PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A ping takes as long as a small query, so one that was in use a moment
        // ago is trusted.
        .test_before_acquire(false)
        .before_acquire(move |connection, since| {
            let (is_trusted, silence) = (since.idle_for < SKIP_PING_WITHIN, before.clone());
            async move { Ok(is_trusted || ping(connection, &silence).await.is_ok()) }.boxed()
        })
        // sqlx looks by itself, but for as long as it takes: a connection whose
        // server has vanished would keep its place among the others.
        .after_release(move |connection, _| {
            let silence = after.clone();
            async move { Ok(!silence.is_recent() || ping(connection, &silence).await?) }.boxed()
        })
        .connect_with(postgres_options(url)?)
        .await
        .context("DATABASE_URL: can't connect to Postgres")?;
    let pool = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
    let read = Reader {
        db: pool.clone(),
        silence,
    };
    let db = Database {
        read,
        write: pool,
        writer: None,
    };
    db.synchronize_clock().await?;
    Ok(db)
}

/// How many connections a server allows to its ordinary users, and how many of them
/// are free.
async fn server_connections(pool: &PgPool) -> Result<(i64, i64), sqlx::Error> {
    sqlx::query_as(
        // The second is only there from Postgres 16 on. Of others' sessions, an ordinary
        // user sees no more than how many there are of each database.
        "WITH server AS (SELECT current_setting('max_connections')::bigint \
         - current_setting('superuser_reserved_connections')::bigint \
         - COALESCE(current_setting('reserved_connections', true), '0')::bigint AS allowed) \
         SELECT allowed, allowed - (SELECT sum(numbackends)::bigint FROM pg_stat_database) \
         FROM server",
    )
    .fetch_one(pool)
    .await
}

/// Whether a connection can be used. An error if not: it is then dropped without
/// a farewell.
async fn ping(connection: &mut PgConnection, silence: &StallDetector) -> Result<bool, sqlx::Error> {
    match silence.with_timeout(PING_TIMEOUT, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

/// How every connection to Postgres is made.
fn postgres_options(url: &str) -> anyhow::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url).context("DATABASE_URL: can't read it")?;
    let options = options.statement_cache_capacity(STATEMENT_CACHE_CAPACITY);
    // A process that freezes in a transaction must not hold its locks for long, and
    // nobody waits for ever for those of who is not one of us.
    let options = options.options([
        ("idle_in_transaction_session_timeout", "10s"),
        ("lock_timeout", "15s"),
        ("statement_timeout", STATEMENT_TIMEOUT),
    ]);
    // By which operators tell the sessions apart.
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(Path::file_name);
    Ok(match (options.get_application_name(), program) {
        (None, Some(program)) => options.application_name(&format!("blog-{}", program.display())),
        _ => options,
    })
}
