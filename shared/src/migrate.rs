//! Bringing the tables up to date, ours and the queue's.
//!
//! Every process does so when it starts, and one waits for the other. A database
//! may be newer than the program: while an upgrade is under way, or after it was
//! taken back. The rules in [`migration`] make that harmless, unless a migration
//! says that it is not.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use migration::{BREAKING, SETS};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, SqliteTransactionMode,
    SqlxPostgresConnector, Statement, TransactionOptions, TransactionTrait,
};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::config::StorageSettings;
use crate::database::{Database, lock_file};
use crate::queue;

mod leftovers;

/// How the tables differ from those that this program knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaStatus {
    /// Migrations that this program has and the database lacks.
    pub pending: Vec<String>,
    /// Migrations that the database has from a newer version.
    pub newer: Vec<String>,
}

impl SchemaStatus {
    /// A newer version's migration that this program can't work with.
    pub fn breaking(&self) -> Option<&str> {
        let mut newer = self.newer.iter().map(String::as_str);
        newer.find(|name| name.contains(BREAKING))
    }

    /// # Errors
    /// When a newer version has applied a migration that this program can't work with.
    pub(crate) fn refuse_breaking(&self) -> anyhow::Result<()> {
        if let Some(name) = self.breaking() {
            bail!(
                "the database is too new: a newer version has applied {name}, and this version \
                 can't work with that. Start the newer version, or go back to a backup from before"
            );
        }
        Ok(())
    }
}

/// Extensions of Postgres that the queue's library wants.
const EXTENSIONS: [&str; 2] = ["hstore", "pgcrypto"];

/// Any number of our own; it only has to be the same in every process.
const MIGRATION_LOCK: i64 = 0x626c_6f67;

impl Database {
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

    /// How the tables differ from those that this program knows.
    pub async fn schema_status(&self) -> Result<SchemaStatus, DbErr> {
        status(&self.read().db).await
    }

    /// Brings the tables up to date, the queue's and ours. Several processes
    /// may do so at once: one works, the others wait and find nothing to do.
    ///
    /// # Errors
    /// When a migration fails, or a newer version has applied one that this program
    /// can't work with.
    pub async fn migrate(&self) -> anyhow::Result<()> {
        match self.backend() {
            DbBackend::Postgres => self.migrate_postgres().await,
            _ => self.migrate_sqlite().await,
        }
    }

    async fn migrate_sqlite(&self) -> anyhow::Result<()> {
        let db = self.raw_connection();
        let options = db.get_sqlite_connection_pool().connect_options();
        let _lock = lock_file(options.get_filename()).await?;
        let status = checked_status(db).await?;
        queue::create_tables(db)
            .await
            .context("the queue's tables can't be made")?;
        if status.pending.is_empty() {
            return Ok(());
        }
        // All or nothing: by itself the library would run each statement alone, and
        // a start that is broken off would leave half of them behind.
        let immediate = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let tx = db.begin_with_options(immediate).await?;
        leftovers::remove(&tx).await?;
        apply(&tx).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn migrate_postgres(&self) -> anyhow::Result<()> {
        let pool = self.raw_connection().get_postgres_connection_pool();
        let options = pool.connect_options().as_ref().clone();
        // A migration, and whoever waits for it, may take as long as it takes.
        let patient = ["lock_timeout", "statement_timeout"].map(|name| (name, "0"));
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options.options(patient))
            .await?;
        let mut lock = pool.acquire().await?;
        // It ends with its connection.
        sqlx::query("SELECT pg_advisory_lock($1)")
            .bind(MIGRATION_LOCK)
            .execute(&mut *lock)
            .await?;
        let db = SqlxPostgresConnector::from_sqlx_postgres_pool(pool.clone());
        let migrated = migrate_locked(&db).await;
        lock.detach();
        pool.close().await;
        migrated
    }
}

/// On Postgres the library runs each migration in a transaction of its own.
async fn migrate_locked(db: &DatabaseConnection) -> anyhow::Result<()> {
    checked_status(db).await?;
    make_extensions(db).await?;
    queue::create_tables(db)
        .await
        .context("the queue's tables can't be made")?;
    apply(db).await
}

/// The queue's library would do so too, but its error would not say what to do.
async fn make_extensions(db: &DatabaseConnection) -> anyhow::Result<()> {
    let made = Statement::from_string(DbBackend::Postgres, "SELECT extname FROM pg_extension");
    let made = db.query_all_raw(made).await?.into_iter();
    let made: Result<Vec<String>, _> = made.map(|row| row.try_get_by_index(0)).collect();
    let made = made?;
    let missing = EXTENSIONS
        .iter()
        .filter(|name| !made.iter().any(|made| made == *name));
    for name in missing {
        let make = format!("CREATE EXTENSION IF NOT EXISTS {name}");
        db.execute_unprepared(&make).await.with_context(|| {
            format!(
                "Postgres' extensions {} are wanted, and {name} can't be made: install Postgres' \
                 contrib package if need be, and have a superuser run CREATE EXTENSION for both \
                 in this database",
                EXTENSIONS.join(" and ")
            )
        })?;
    }
    Ok(())
}

async fn status(db: &DatabaseConnection) -> Result<SchemaStatus, DbErr> {
    let mut status = SchemaStatus::default();
    for set in SETS {
        let applied = set.applied(db).await?;
        let known = set.names().into_iter();
        let pending = known.filter(|name| !applied.contains(name));
        status.pending.extend(pending);
        status.newer.extend(set.newer(db).await?);
    }
    Ok(status)
}

/// The status of a database that this program can work with.
async fn checked_status(db: &DatabaseConnection) -> anyhow::Result<SchemaStatus> {
    let status = status(db).await?;
    status.refuse_breaking()?;
    if !status.newer.is_empty() {
        let newer = status.newer.join(", ");
        tracing::warn!(
            newer,
            "the database is newer than this program, which goes on with it: they are compatible"
        );
    }
    Ok(status)
}

async fn apply<'c, C>(db: &'c C) -> anyhow::Result<()>
where
    &'c C: migration::IntoSchemaManagerConnection<'c>,
{
    for set in SETS {
        set.up(db, None).await.context("the tables can't be made")?;
    }
    Ok(())
}
