//! Migrates the tables, ours and apalis'.
//!
//! Every process does so when it starts, one at a time. A database may be newer than the program,
//! during an upgrade or after a rollback. The rules in [`migration`] make that harmless, unless a
//! migration's name says that it is not.

use anyhow::{Context, bail};
use migration::{BREAKING, SETS};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, RuntimeErr, TransactionTrait,
};

use crate::config::StorageSettings;
use crate::database::{Database, immediate, lock_file, refuse_missing};
use crate::queue;

mod leftovers;

/// How the database's migrations differ from the program's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaStatus {
    /// Migrations that are not applied yet.
    pub pending: Vec<String>,
    /// Applied migrations of a newer version.
    pub newer: Vec<String>,
}

impl SchemaStatus {
    /// A newer version's migration that this program is not compatible with.
    pub fn breaking(&self) -> Option<&str> {
        let mut newer = self.newer.iter().map(String::as_str);
        newer.find(|name| name.contains(BREAKING))
    }

    /// Fails if the program is not compatible with one of the newer migrations.
    fn refuse_breaking(&self) -> anyhow::Result<()> {
        if let Some(name) = self.breaking() {
            bail!(
                "the database is too new: a newer version has applied {name}, which this version is \
                 not compatible with. Start the newer version, or restore a backup from before"
            );
        }
        Ok(())
    }
}

/// The Postgres extensions that apalis needs.
const EXTENSIONS: [&str; 2] = ["hstore", "pgcrypto"];

const QUEUE_FAILED: &str = "can't migrate the queue's tables";

/// The advisory lock's key: an arbitrary number, the same in every process.
const MIGRATION_LOCK: i64 = 0x626c_6f67;

impl Database {
    /// Opens the database and migrates it, for a process that on Postgres opens `extra` connections
    /// besides those of the pool.
    pub async fn open_and_migrate(settings: &StorageSettings, extra: u32) -> anyhow::Result<Self> {
        let db = Database::open(settings).await?;
        db.migrate().await?;
        db.report_connections(extra).await?;
        Ok(db)
    }

    /// Opens a database that exists and needs no migration.
    pub async fn open_existing(settings: &StorageSettings) -> anyhow::Result<Self> {
        let advice = "set DATA_DIR or DATABASE_URL to those of the API, and start the API first";
        refuse_missing(settings, advice)?;
        let db = Database::open(settings).await?;
        let status = db.schema_status().await?;
        status.refuse_breaking()?;
        if !status.pending.is_empty() {
            bail!("the database lacks migrations of this version; {advice}");
        }
        Ok(db)
    }

    /// Opens a database of this service that may need migrations.
    pub async fn open_to_migrate(settings: &StorageSettings) -> anyhow::Result<Self> {
        refuse_missing(settings, "set DATA_DIR or DATABASE_URL to those of the API")?;
        let db = Database::open(settings).await?;
        db.check_compatible()
            .await
            .context("can't use the database")?;
        Ok(db)
    }

    /// How the database's migrations differ from the program's.
    pub async fn schema_status(&self) -> Result<SchemaStatus, DbErr> {
        status(self.raw_connection()).await
    }

    /// Fails if the database has tables, or will have once it is migrated, that this program can't
    /// work with: those of another program, or of a version that is too new. Returns the migrations
    /// of newer versions that it can work with.
    pub(crate) async fn check_compatible(&self) -> anyhow::Result<Vec<String>> {
        let status = self.schema_status().await?;
        let first = SETS[0].names().swap_remove(0);
        if status.pending.contains(&first) {
            bail!("it is not a database of this service");
        }
        status.refuse_breaking()?;
        Ok(status.newer)
    }

    /// Applies the pending migrations, apalis' and ours. If several processes do so at once, one
    /// works, and the others wait and find nothing to do.
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
        queue::create_tables(db).await.context(QUEUE_FAILED)?;
        if status.pending.is_empty() {
            return Ok(());
        }
        // All or nothing: sea-orm-migration by itself runs each statement alone on SQLite, and an
        // interrupted start would leave half of them applied.
        let tx = db.begin_with_options(immediate()).await?;
        leftovers::remove(&tx).await?;
        apply(&tx).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn migrate_postgres(&self) -> anyhow::Result<()> {
        // Processes that wait for a migration do so as long as it takes.
        let db = self.without_timeouts().await?;
        // The lock is released when the connection closes.
        sqlx::query("SELECT pg_advisory_lock($1)")
            .bind(MIGRATION_LOCK)
            .execute(db.get_postgres_connection_pool())
            .await?;
        let migrated = migrate_locked(&db).await;
        let closed = db.close().await;
        // Why it failed is worth more than that it can't be closed.
        migrated?;
        Ok(closed?)
    }
}

/// On Postgres sea-orm-migration runs each migration in a transaction of its own.
async fn migrate_locked(db: &DatabaseConnection) -> anyhow::Result<()> {
    checked_status(db).await?;
    // apalis would create the extensions, too, but its error would not say what to do.
    for name in EXTENSIONS {
        let create = format!("CREATE EXTENSION IF NOT EXISTS {name}");
        db.execute_unprepared(&create).await.with_context(|| {
            format!(
                "the Postgres extensions {} are required, and {name} can't be created: install \
                 Postgres' contrib package if it is missing, and have a superuser run CREATE \
                 EXTENSION for both in this database",
                EXTENSIONS.join(" and ")
            )
        })?;
    }
    queue::create_tables(db).await.context(QUEUE_FAILED)?;
    for _ in 0..MAX_DEADLOCKS {
        match apply(db).await {
            Err(error) if is_deadlock(&error) => {
                tracing::info!("a migration met a transaction of another process; trying again");
            }
            done => return done,
        }
    }
    apply(db).await
}

/// How often a migration is tried again. It locks several tables, and processes of an older release
/// that go on working may lock the same ones in another order: Postgres ends one of the two.
const MAX_DEADLOCKS: usize = 20;

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
const DEADLOCK_DETECTED: &str = "40P01";

fn is_deadlock(error: &anyhow::Error) -> bool {
    let Some(
        DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause)),
    ) = error.downcast_ref()
    else {
        return false;
    };
    let code = cause.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == DEADLOCK_DETECTED)
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

/// The status of a database that the program is compatible with.
async fn checked_status(db: &DatabaseConnection) -> anyhow::Result<SchemaStatus> {
    let status = status(db).await?;
    status.refuse_breaking()?;
    if !status.newer.is_empty() {
        let newer = status.newer.join(", ");
        tracing::warn!(
            newer,
            "the database has migrations of a newer version; this version is compatible with them"
        );
    }
    Ok(status)
}

async fn apply<'c, C>(db: &'c C) -> anyhow::Result<()>
where
    &'c C: migration::IntoSchemaManagerConnection<'c>,
{
    for set in SETS {
        set.up(db, None)
            .await
            .context("can't migrate the database")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::error::Error;
    use std::fmt;

    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;

    /// An error of Postgres with this code.
    #[derive(Debug)]
    struct Refusal(&'static str);

    impl fmt::Display for Refusal {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Refusal {}

    impl DatabaseError for Refusal {
        fn message(&self) -> &str {
            self.0
        }
        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }
        fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
            self
        }
        fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
            self
        }
        fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
            self
        }
        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    #[test]
    fn only_a_deadlock_has_a_migration_tried_again() {
        for (code, expected) in [("40P01", true), ("42P07", false)] {
            let cause = sqlx::Error::Database(Box::new(Refusal(code)));
            let error = DbErr::Exec(RuntimeErr::SqlxError(cause.into()));
            let error = anyhow::Error::from(error).context("can't migrate the database");
            assert_eq!(is_deadlock(&error), expected, "{code}");
        }
    }
}
