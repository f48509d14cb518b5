//! The schema's migrations. One that has been released is never edited, and none imports an entity:
//! entities change, migrations don't.
//!
//! **A migration only adds**: tables, indexes, and columns that are nullable or have a default.
//! During an upgrade, and after a rollback, the previous version's programs work on the database
//! that the new ones have migrated, so nothing that they read or write may be missing or change its
//! meaning. What no program reads or writes any more may be dropped by the release after that, in a
//! migration whose name contains `breaking`: a program that does not know it refuses to use the
//! database, and says why. The programs of the first release look into their own table only, so
//! such a migration has to insert its name there, too. Any other migration that a program does not
//! know it takes for an addition, and goes on. The tables of apalis are not ours to change: a new
//! column there breaks the statements that running programs have prepared.

use sea_orm_migration::MigratorTraitSelf;
pub use sea_orm_migration::prelude::*;

mod m20261122_000001_accounts;
mod m20261122_000002_posts_and_jobs;
mod m20261122_000003_reliability;
mod m20261122_000004_administration;
mod m20261123_000005_regenerations_and_retries;
mod m20261127_000006_quotas_and_deletion;
mod m20261129_000007_warnings;
mod m20261130_000008_job_events;
mod m20261130_000009_api_keys;
mod m20261130_000010_revisions;
mod m20261130_000011_steering;
mod m20261130_000012_browser_sessions;
mod m20261130_000013_sources;

/// The part of a migration's name by which programs that don't know it refuse the database.
pub const BREAKING: &str = "breaking";

/// Our migrations in order, by the tables that record them. apalis' own tables are made by
/// `shared::queue`.
pub const SETS: [MigrationSet; 2] = [
    // Closed: the programs of the first release refuse a database if this table has a name that
    // they don't know.
    MigrationSet {
        table: "seaql_migrations",
        list: first_release,
    },
    MigrationSet {
        table: "schema_migrations",
        list: since,
    },
];

/// Migrations that are recorded in one table.
#[derive(Clone, Copy, Debug)]
pub struct MigrationSet {
    /// The table's name.
    pub table: &'static str,
    list: fn() -> Vec<Box<dyn MigrationTrait>>,
}

fn first_release() -> Vec<Box<dyn MigrationTrait>> {
    vec![
        Box::new(m20261122_000001_accounts::Migration),
        Box::new(m20261122_000002_posts_and_jobs::Migration),
        Box::new(m20261122_000003_reliability::Migration),
        Box::new(m20261122_000004_administration::Migration),
        Box::new(m20261123_000005_regenerations_and_retries::Migration),
    ]
}

fn since() -> Vec<Box<dyn MigrationTrait>> {
    vec![
        Box::new(m20261127_000006_quotas_and_deletion::Migration),
        Box::new(m20261129_000007_warnings::Migration),
        Box::new(m20261130_000008_job_events::Migration),
        Box::new(m20261130_000009_api_keys::Migration),
        Box::new(m20261130_000010_revisions::Migration),
        Box::new(m20261130_000011_steering::Migration),
        Box::new(m20261130_000012_browser_sessions::Migration),
        Box::new(m20261130_000013_sources::Migration),
    ]
}

impl MigrationSet {
    /// The names of the set's migrations, in order.
    pub fn names(&self) -> Vec<String> {
        let names = (self.list)().into_iter();
        names.map(|migration| migration.name().to_owned()).collect()
    }

    /// The names that the table has in this database; none if there is no table.
    pub async fn applied<'c>(
        &self,
        db: impl IntoSchemaManagerConnection<'c>,
    ) -> Result<Vec<String>, DbErr> {
        let manager = SchemaManager::new(db);
        if !manager.has_table(self.table).await? {
            return Ok(Vec::new());
        }
        let names = Query::select()
            .column("version")
            .from(self.table)
            .order_by("version", Order::Asc)
            .take();
        let rows = manager.get_connection().query_all(&names).await?;
        rows.iter().map(|row| row.try_get_by_index(0)).collect()
    }

    /// The applied migrations that this program does not know.
    pub async fn newer<'c>(
        &self,
        db: impl IntoSchemaManagerConnection<'c>,
    ) -> Result<Vec<String>, DbErr> {
        let known = self.names();
        let mut newer = self.applied(db).await?;
        newer.retain(|name| !known.contains(name));
        Ok(newer)
    }

    /// Applies the first `steps` pending migrations, or all.
    pub async fn up<'c, C>(&self, db: &'c C, steps: Option<u32>) -> Result<(), DbErr>
    where
        &'c C: IntoSchemaManagerConnection<'c>,
    {
        let migrator = Migrator {
            set: *self,
            newer: self.newer(db).await?,
        };
        migrator.up(db, steps).await
    }
}

/// A set, for sea-orm-migration. That fails on a recorded name that is not in its list, so the list
/// includes the newer migrations.
struct Migrator {
    set: MigrationSet,
    newer: Vec<String>,
}

impl MigratorTraitSelf for Migrator {
    fn migrations(&self) -> Vec<Box<dyn MigrationTrait>> {
        let newer = self.newer.iter().cloned();
        let newer = newer.map(|name| Box::new(Newer(name)) as Box<dyn MigrationTrait>);
        (self.set.list)().into_iter().chain(newer).collect()
    }

    fn migration_table_name(&self) -> DynIden {
        self.set.table.into_iden()
    }
}

/// A migration of a newer version, which has applied it.
struct Newer(String);

impl MigrationName for Newer {
    fn name(&self) -> &str {
        &self.0
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Newer {
    async fn up(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Migration(format!("{} is not known here", self.0)))
    }
}
