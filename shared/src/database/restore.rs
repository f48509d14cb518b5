//! Puts a copy of an SQLite database in the place of the present one.
//!
//! While the service is stopped: [`OpenLock`] holds off its processes, SQLite's exclusive lock all
//! other programs. All that may fail is done to a draft; then the present database gets a second
//! name, and the draft is renamed over the first one. So whenever the machine stops there is either
//! the whole old database or the whole new one.
//!
//! A WAL left behind would be applied to whatever file has the name that it belongs to, and destroy
//! it. So the present database's is written into it and removed before anything has that name.
//!
//! A backup is older than what clients have, which it must not be mistaken for: see
//! [`after_restore`].

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use chrono::Utc;
use entity::{api_key, session};
use sea_orm::TransactionTrait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteLockingMode};
use sqlx::{ConnectOptions, Connection};
use tokio::task::spawn_blocking;

use super::draft::{Draft, sync_folder_of};
use super::group_commit::{BUSY_TIMEOUT, immediate};
use super::sqlite::create_folder;
use super::{Database, OpenLock, lock_file, sqlite_file};
use crate::config::StorageSettings;
use crate::events;

/// How a backup is restored.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreOptions {
    /// Whether all API keys are revoked.
    pub revoke_api_keys: bool,
}

/// What was revoked in a restored database.
#[derive(Clone, Copy, Debug)]
pub struct Revoked {
    /// How many sessions were ended.
    pub sessions: u64,
    /// How many API keys were revoked.
    pub api_keys: u64,
}

/// What a restore has done.
#[derive(Debug)]
pub struct Restored {
    /// Where the database is.
    pub database: PathBuf,
    /// Where the one is now that was there before, if there was one.
    pub kept: Option<PathBuf>,
    /// What was revoked in it.
    pub revoked: Revoked,
    /// What people have done to protect accounts since the backup, and is undone: actions of the
    /// audit trail of the database that was there before, and how often each was done.
    pub undone: Vec<(String, i64)>,
    /// Migrations of a newer version that the backup has; this one is compatible with them.
    pub newer: Vec<String>,
}

/// Replaces the database by a copy of `backup`, which is only read. The present database is kept
/// beside it, under another name.
///
/// # Errors
/// On Postgres; if any process uses the database; if `backup` is damaged, or not a database that
/// this program can work with. Then nothing is changed.
pub async fn restore(
    settings: &StorageSettings,
    backup: &Path,
    options: RestoreOptions,
) -> anyhow::Result<Restored> {
    let Some(database) = sqlite_file(settings)? else {
        bail!(
            "the database is on Postgres, and this command restores SQLite only: use pg_restore, \
             as docs/operations.md says under Backups"
        );
    };
    let refused = || format!("can't restore {}", backup.display());
    check_file(backup, &database).with_context(refused)?;
    create_folder(&database)?;
    // Of processes that start.
    let _migration_lock = lock_file(&database).await?;
    let _open_lock = OpenLock::exclusive(&database)?;
    // A link is followed, as SQLite does: the WAL is beside the file itself.
    let database = database.canonicalize().unwrap_or(database);
    let mut present = Present::lock(&database).await?;
    let highest = present.highest_event().await;
    let drafted = draft_of(backup, &database, options, highest).await;
    let Drafted {
        draft,
        revoked,
        newer,
    } = match drafted.with_context(refused) {
        Ok(drafted) => drafted,
        Err(error) => {
            present.release().await;
            return Err(error);
        }
    };
    let undone = present.close(&draft).await;

    // Nothing is awaited any more: no signal interrupts it.
    let kept = keep(&database)?;
    draft.replace(&database)?;
    Ok(Restored {
        database,
        kept,
        revoked,
        undone,
        newer,
    })
}

/// Refuses what is not a file by itself.
fn check_file(backup: &Path, database: &Path) -> anyhow::Result<()> {
    let found = backup.metadata()?;
    if !found.is_file() {
        bail!("it is not a file");
    }
    let id = |file: &std::fs::Metadata| (file.dev(), file.ino());
    if database
        .metadata()
        .is_ok_and(|present| id(&present) == id(&found))
    {
        bail!("it is the database itself");
    }
    for suffix in LOGS {
        let log = with_suffix(backup, suffix);
        if log.metadata().is_ok_and(|log| log.len() > 0) {
            bail!(
                "it is in use or was not closed, for its last changes are in {}; copy it with \
                 `DATABASE_URL=sqlite://{} api backup FILE`, and restore that",
                log.display(),
                backup.display()
            );
        }
    }
    Ok(())
}

async fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let (from, to) = (from.to_owned(), to.to_owned());
    // Into the file that is there: a new one would have the mode of the backup.
    let copy = move || {
        let mut to = std::fs::File::options().write(true).open(to)?;
        std::io::copy(&mut std::fs::File::open(from)?, &mut to)
    };
    spawn_blocking(copy).await??;
    Ok(())
}

/// Names what is most often the matter with a file.
fn describe(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref().and_then(primary_code) {
        Some(SQLITE_NOTADB) => anyhow!("it is not an SQLite database"),
        _ => error.context("it is damaged"),
    }
}

/// A database that is ready to be put in its place.
struct Drafted {
    draft: Draft,
    revoked: Revoked,
    newer: Vec<String>,
}

/// Makes of a backup the database that the service goes on with.
async fn draft_of(
    backup: &Path,
    database: &Path,
    options: RestoreOptions,
    highest_event: i32,
) -> anyhow::Result<Drafted> {
    let draft = Draft::beside(database)?;
    copy(backup, draft.path()).await?;
    draft.check().await.map_err(describe)?;
    let db = Database::open(&draft.settings()).await?;
    let prepared = async {
        let newer = db.check_compatible().await?;
        anyhow::Ok((prepare(&db, options, highest_event).await?, newer))
    };
    let prepared = prepared.await;
    db.close().await;
    let (revoked, newer) = prepared?;
    // All of it is in the file, and no connection is left.
    close_without_wal(lock(draft.path(), BUSY_TIMEOUT).await?).await?;
    Ok(Drafted {
        draft,
        revoked,
        newer,
    })
}

/// Prepares a database that was restored by other means than [`restore`], which does it by itself, for
/// the clients of its later past. Sessions that were revoked since the backup would be good again, and so all are
/// ended; who has one that was not has a refresh token that the backup does not know. Events would
/// be given numbers again that clients have of other events, and so these are raised.
pub async fn after_restore(db: &Database, options: RestoreOptions) -> anyhow::Result<Revoked> {
    prepare(db, options, 0).await
}

async fn prepare(
    db: &Database,
    options: RestoreOptions,
    highest_event: i32,
) -> anyhow::Result<Revoked> {
    db.migrate().await?;
    let db = db.without_timeouts().await?;
    let tx = db.begin_with_options(immediate()).await?;
    let sessions = session::Entity::revoke_everyones(&tx).await?;
    let api_keys = match options.revoke_api_keys {
        true => api_key::Entity::revoke_everyones(&tx).await?,
        false => 0,
    };
    events::raise_numbers(&tx, highest_event).await?;
    tx.commit().await?;
    Ok(Revoked { sessions, api_keys })
}

/// The files in which SQLite has changes that are not in the database's own yet.
const LOGS: [&str; 2] = ["-wal", "-journal"];

/// SQLite's index of the WAL, which it makes anew.
const WAL_INDEX: &str = "-shm";

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Gives the database another name beside its own, and removes what SQLite would take for a part of
/// the one that comes. Only where SQLite could not write the WAL into its database is there one,
/// which is kept likewise. Returns the other name; None if there is no database.
fn keep(database: &Path) -> anyhow::Result<Option<PathBuf>> {
    let time = Utc::now().format(".before-restore-%Y%m%dT%H%M%S%.3fZ");
    let kept = with_suffix(database, &time.to_string());
    let doing = || {
        format!(
            "can't keep the present database as {}; if you have a copy of it, delete it and try \
             again",
            kept.display()
        )
    };
    let mut found = false;
    for suffix in ["", LOGS[0], LOGS[1]] {
        let link = std::fs::hard_link(with_suffix(database, suffix), with_suffix(&kept, suffix));
        match link {
            Ok(()) => found |= suffix.is_empty(),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(doing),
        }
    }
    sync_folder_of(database).with_context(doing)?;
    for suffix in [LOGS[0], LOGS[1], WAL_INDEX] {
        let log = with_suffix(database, suffix);
        match std::fs::remove_file(&log) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("can't remove {}", log.display()));
            }
            _ => {}
        }
    }
    sync_folder_of(database).with_context(doing)?;
    Ok(found.then_some(kept))
}

const SQLITE_BUSY: i32 = 5;
const SQLITE_NOTADB: i32 = 26;

/// SQLite's code of an error, without what extends it.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    Some(code.parse::<i32>().ok()? & 0xff)
}

/// Opens a database for one connection alone: until it is closed, no other can be used.
async fn lock(file: &Path, timeout: Duration) -> Result<SqliteConnection, sqlx::Error> {
    let mut connection = SqliteConnectOptions::new()
        .filename(file)
        .locking_mode(SqliteLockingMode::Exclusive)
        .busy_timeout(timeout)
        .connect()
        .await?;
    // Fails if there is any other connection to a database with a WAL. The lock then outlasts the
    // transaction.
    match execute(&mut connection, &["BEGIN EXCLUSIVE", "COMMIT"]).await {
        Ok(()) => Ok(connection),
        Err(error) => {
            // Not by dropping it, which would not wait for SQLite to be done with the files.
            let _ = connection.close().await;
            Err(error)
        }
    }
}

/// Writes the WAL into its database, removes it, and closes the connection.
async fn close_without_wal(mut connection: SqliteConnection) -> Result<(), sqlx::Error> {
    let done = execute(&mut connection, &["PRAGMA journal_mode = DELETE"]).await;
    connection.close().await?;
    done
}

async fn execute(
    connection: &mut SqliteConnection,
    statements: &[&'static str],
) -> Result<(), sqlx::Error> {
    for sql in statements {
        sqlx::query(*sql).execute(&mut *connection).await?;
    }
    Ok(())
}

/// The database that is to be replaced.
struct Present {
    /// None if there is no database, or it is damaged.
    locked: Option<SqliteConnection>,
}

impl Present {
    /// Locks the database against all other programs. One that is so damaged that SQLite can't read
    /// it can't be locked, and is replaced all the same.
    async fn lock(database: &Path) -> anyhow::Result<Self> {
        if !database.exists() {
            return Ok(Present { locked: None });
        }
        match lock(database, Duration::ZERO).await {
            Ok(connection) => Ok(Present {
                locked: Some(connection),
            }),
            Err(error) if primary_code(&error) == Some(SQLITE_BUSY) => bail!(
                "{} is in use by another program, such as sqlite3 or a worker of an earlier \
                 version: stop it first",
                database.display()
            ),
            Err(_) => Ok(Present { locked: None }),
        }
    }

    /// The highest number of an event; 0 where it can't be found out.
    async fn highest_event(&mut self) -> i32 {
        let Some(connection) = &mut self.locked else {
            return 0;
        };
        let highest = "SELECT COALESCE(MAX(last_event), 0) FROM generation_jobs";
        let highest = sqlx::query_scalar(highest).fetch_one(connection).await;
        highest.unwrap_or_default()
    }

    /// Closes it, to be replaced by `draft`. Returns [`Restored::undone`].
    async fn close(self, draft: &Draft) -> Vec<(String, i64)> {
        let Some(mut connection) = self.locked else {
            return Vec::new();
        };
        // It only informs: nothing where it can't be found out.
        let undone = undone(&mut connection, draft).await.unwrap_or_default();
        // If it fails the WAL is still there, and is kept with its database.
        let _ = close_without_wal(connection).await;
        undone
    }

    /// Leaves it as it is.
    async fn release(self) {
        if let Some(connection) = self.locked {
            let _ = connection.close().await;
        }
    }
}

async fn undone(
    present: &mut SqliteConnection,
    draft: &Draft,
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query("ATTACH DATABASE ? AS backup")
        .bind(draft.path().to_str())
        .execute(&mut *present)
        .await?;
    let undone = sqlx::query_as(
        "SELECT action, COUNT(*) FROM main.audit_events \
         WHERE id NOT IN (SELECT id FROM backup.audit_events) AND action IN \
         ('password_changed', 'account_deleted', 'api_key_revoked', 'role_changed', \
         'user_disabled') GROUP BY action ORDER BY action",
    );
    let undone = undone.fetch_all(&mut *present).await;
    execute(present, &["DETACH DATABASE backup"]).await?;
    undone
}
