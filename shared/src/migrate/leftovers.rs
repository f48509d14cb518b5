//! Removes what an interrupted migration of the first release has left behind on SQLite: that
//! version ran each statement alone, and did not record what it had created. No process has ever
//! used it, so it is empty, and is dropped and created again. If a table has rows, the record of
//! migrations was lost, or the database is another program's; then nothing is changed.

use std::collections::BTreeSet;

use anyhow::bail;
use migration::{MigrationSet, SETS};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, QueryResult, SqlxSqliteConnector,
    Statement,
};
use sqlx::sqlite::SqlitePoolOptions;

/// The migrations that may have been interrupted.
const FIRST_RELEASE: MigrationSet = SETS[0];

/// Something that a migration creates. Parts sort in an order in which they can be created.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Table(String),
    Column { table: String, name: String },
    Index(String),
}

/// Restores the tables that the record of migrations describes.
pub(super) async fn remove(tx: &DatabaseTransaction) -> anyhow::Result<()> {
    let applied = FIRST_RELEASE.applied(tx).await?.len();
    if applied == FIRST_RELEASE.names().len() {
        return Ok(());
    }
    // What the recorded migrations create, and what all do, found out by applying them.
    let pool = SqlitePoolOptions::new().max_connections(1);
    let pool = pool.connect("sqlite::memory:").await?;
    let model = SqlxSqliteConnector::from_sqlx_sqlite_pool(pool);
    let steps = u32::try_from(applied)?;
    if steps > 0 {
        FIRST_RELEASE.up(&model, Some(steps)).await?;
    }
    let recorded = parts(&model).await?;
    let recorded_indexes = index_statements(&model).await?;
    FIRST_RELEASE.up(&model, None).await?;
    let complete = parts(&model).await?;

    let present = parts(tx).await?;
    let is_leftover = |part: &&Part| complete.contains(part) && !recorded.contains(part);
    let leftovers: Vec<&Part> = present.iter().filter(is_leftover).collect();
    for part in &leftovers {
        refuse_rows(tx, part).await?;
    }
    for part in leftovers.iter().rev() {
        drop_part(tx, part, &leftovers).await?;
    }
    // A migration that replaces an index drops the old one first.
    let lost = |name: &str| !present.contains(&Part::Index(name.to_owned()));
    for (_, create) in recorded_indexes.iter().filter(|(name, _)| lost(name)) {
        tx.execute_unprepared(create).await?;
    }
    if !leftovers.is_empty() {
        tracing::warn!(
            parts = leftovers.len(),
            "an earlier start was interrupted while it created tables: creating them again"
        );
    }
    Ok(())
}

/// The table into which a migration itself inserts one row.
const FILLED_TABLE: &str = "queue_state";

async fn refuse_rows(tx: &DatabaseTransaction, part: &Part) -> anyhow::Result<()> {
    let Part::Table(name) = part else {
        return Ok(());
    };
    let rows = query(tx, &format!("SELECT 1 FROM \"{name}\" LIMIT 2"))
        .await?
        .len();
    if rows > usize::from(name == FILLED_TABLE) {
        bail!(
            "the table {name} has rows, but no migration is recorded that creates it: the record \
             was lost, or this is another program's database. Nothing was changed; restore a \
             backup, or set DATABASE_URL to another file"
        );
    }
    Ok(())
}

async fn drop_part(
    tx: &DatabaseTransaction,
    part: &Part,
    leftovers: &[&Part],
) -> Result<(), DbErr> {
    let sql = match part {
        Part::Index(name) => format!("DROP INDEX IF EXISTS \"{name}\""),
        Part::Table(name) => format!("DROP TABLE \"{name}\""),
        // Dropped with its table.
        Part::Column { table, .. } if leftovers.contains(&&Part::Table(table.clone())) => {
            return Ok(());
        }
        Part::Column { table, name } => format!("ALTER TABLE \"{table}\" DROP COLUMN \"{name}\""),
    };
    tx.execute_unprepared(&sql).await?;
    Ok(())
}

/// All parts of a database: tables, then columns, then indexes. They can be dropped from the end.
async fn parts(db: &impl ConnectionTrait) -> Result<BTreeSet<Part>, DbErr> {
    let text = |row: &QueryResult, column: &str| row.try_get::<String>("", column);
    let mut parts = BTreeSet::new();
    let all = "SELECT type, name FROM sqlite_master \
               WHERE type IN ('table', 'index') AND sql IS NOT NULL";
    for row in query(db, all).await? {
        let name = text(&row, "name")?;
        parts.insert(match text(&row, "type")?.as_str() {
            "table" => Part::Table(name),
            _ => Part::Index(name),
        });
    }
    let columns = "SELECT tables.name AS table_name, columns.name AS name \
                   FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns \
                   WHERE tables.type = 'table'";
    for row in query(db, columns).await? {
        let table = text(&row, "table_name")?;
        let name = text(&row, "name")?;
        parts.insert(Part::Column { table, name });
    }
    Ok(parts)
}

/// The indexes of a database, with the statements that create them.
async fn index_statements(db: &impl ConnectionTrait) -> Result<Vec<(String, String)>, DbErr> {
    let all = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL";
    let rows = query(db, all).await?;
    let statement = |row: &QueryResult| Ok((row.try_get("", "name")?, row.try_get("", "sql")?));
    rows.iter().map(statement).collect()
}

async fn query(db: &impl ConnectionTrait, sql: &str) -> Result<Vec<QueryResult>, DbErr> {
    db.query_all_raw(Statement::from_string(DbBackend::Sqlite, sql))
        .await
}
