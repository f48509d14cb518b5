//! What an early version has left behind on SQLite when it was stopped while it
//! made its tables: it did so statement by statement, and what it had made is not
//! recorded. No process has ever worked with that, so nothing is in it, and it is
//! removed, to be made again. A table that has rows is something else: the record
//! was lost, or the database is another program's. Then nothing is touched.

use std::collections::BTreeSet;

use anyhow::bail;
use migration::{MigrationSet, SETS};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, QueryResult,
    SqlxSqliteConnector, Statement,
};
use sqlx::sqlite::SqlitePoolOptions;

/// The only migrations that were ever applied so.
const FIRST_RELEASE: MigrationSet = SETS[0];

/// Something that a migration makes, in the order in which it may.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Table(String),
    Column { table: String, name: String },
    Index(String),
}

/// Makes the tables again what their record says they are.
pub(super) async fn remove(tx: &DatabaseTransaction) -> anyhow::Result<()> {
    let applied = FIRST_RELEASE.applied(tx).await?.len();
    if applied == FIRST_RELEASE.names().len() {
        return Ok(());
    }
    // What should be there, and what is to come, by making both.
    let model = in_memory().await?;
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
    // A migration that makes an index anew has dropped it first.
    let lost = |name: &str| !present.contains(&Part::Index(name.to_owned()));
    for (_, create) in recorded_indexes.iter().filter(|(name, _)| lost(name)) {
        tx.execute_unprepared(create).await?;
    }
    if !leftovers.is_empty() {
        tracing::warn!(
            parts = leftovers.len(),
            "the tables were half made, for an earlier start was broken off: making them again"
        );
    }
    Ok(())
}

/// The one row that a migration itself writes.
const MADE_ROWS: &str = "queue_state";

async fn refuse_rows(tx: &DatabaseTransaction, part: &Part) -> anyhow::Result<()> {
    let Part::Table(name) = part else {
        return Ok(());
    };
    let rows = query(tx, &format!("SELECT 1 FROM \"{name}\" LIMIT 2"))
        .await?
        .len();
    if rows > usize::from(name == MADE_ROWS) {
        bail!(
            "there is a table {name} with rows, and the record of migrations does not tell of it: \
             it is lost, or this is another program's database. Nothing was changed; go back to \
             a backup, or set DATABASE_URL to another file"
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
        // It goes with its table.
        Part::Column { table, .. } if leftovers.contains(&&Part::Table(table.clone())) => {
            return Ok(());
        }
        Part::Column { table, name } => format!("ALTER TABLE \"{table}\" DROP COLUMN \"{name}\""),
    };
    tx.execute_unprepared(&sql).await?;
    Ok(())
}

async fn in_memory() -> anyhow::Result<DatabaseConnection> {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect("sqlite::memory:")
        .await?;
    Ok(SqlxSqliteConnector::from_sqlx_sqlite_pool(pool))
}

/// All parts of a database: tables, then columns, then indexes. Dropped from the
/// end, none is in the way of another.
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
        let (table, name) = (text(&row, "table_name")?, text(&row, "name")?);
        parts.insert(Part::Column { table, name });
    }
    Ok(parts)
}

/// The indexes of a database, with the statements that make them.
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
