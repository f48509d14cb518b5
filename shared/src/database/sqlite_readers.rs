//! Read-only connections to SQLite.
//!
//! Not a pool of sqlx's, which pings a connection after each use, by a task of its own. SQLite runs
//! on a thread for each connection, so a ping costs as much as a query of ours: most of its time it
//! is handed to the thread and back. And a file can't become unreachable.

use std::sync::Arc;

use sea_orm::{DbErr, ExecResult, QueryResult, RuntimeErr, Statement};
use sea_query_sqlx::SqlxValues;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Sqlite};
use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::group_commit::BUSY_TIMEOUT;

const MAX_CONNECTIONS: usize = 4;

/// The connections, which are opened when they are needed. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct SqliteReaders(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: SqliteConnectOptions,
    /// One permit for each slot that is free.
    free: Semaphore,
    slots: [Mutex<Option<SqliteConnection>>; MAX_CONNECTIONS],
}

/// A connection in use.
struct Slot<'a> {
    connection: MutexGuard<'a, Option<SqliteConnection>>,
    // After the guard: it is dropped after it.
    _permit: SemaphorePermit<'a>,
}

impl SqliteReaders {
    /// Opens the first connection.
    pub(super) async fn open(options: SqliteConnectOptions) -> sqlx::Result<Self> {
        let first = options.connect().await?;
        let mut slots = [const { Mutex::const_new(None) }; MAX_CONNECTIONS];
        *slots[0].get_mut() = Some(first);
        Ok(SqliteReaders(Arc::new(Inner {
            options,
            free: Semaphore::new(MAX_CONNECTIONS),
            slots,
        })))
    }

    /// Runs a query for its rows.
    pub(super) async fn fetch_all(&self, statement: &Statement) -> Result<Vec<QueryResult>, DbErr> {
        let mut slot = self.slot().await?;
        let connection = self.connection(&mut slot).await?;
        let rows = query(statement).fetch_all(connection).await;
        let rows = slot.checked(rows)?;
        Ok(rows.into_iter().map(QueryResult::from).collect())
    }

    /// Runs a query for its first row.
    pub(super) async fn fetch_one(
        &self,
        statement: &Statement,
    ) -> Result<Option<QueryResult>, DbErr> {
        let mut slot = self.slot().await?;
        let connection = self.connection(&mut slot).await?;
        let row = query(statement).fetch_optional(connection).await;
        let row = slot.checked(row)?;
        Ok(row.map(QueryResult::from))
    }

    /// Executes a statement, which can't change anything.
    pub(super) async fn execute(&self, statement: &Statement) -> Result<ExecResult, DbErr> {
        let mut slot = self.slot().await?;
        let connection = self.connection(&mut slot).await?;
        let result = query(statement).execute(connection).await;
        slot.checked(result).map(ExecResult::from)
    }

    /// Executes statements without parameters.
    pub(super) async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let mut slot = self.slot().await?;
        let connection = self.connection(&mut slot).await?;
        let result = connection.execute(AssertSqlSafe(sql)).await;
        slot.checked(result).map(ExecResult::from)
    }

    /// Closes each connection once it is no longer used.
    pub(super) async fn close(&self) -> Result<(), DbErr> {
        self.0.free.close();
        for slot in &self.0.slots {
            if let Some(connection) = slot.lock().await.take() {
                connection.close().await.map_err(query_error)?;
            }
        }
        Ok(())
    }

    /// Waits for a free slot.
    async fn slot(&self) -> Result<Slot<'_>, DbErr> {
        let permit = timeout(BUSY_TIMEOUT, self.0.free.acquire());
        let permit = permit
            .await
            .map_err(|_| query_error(sqlx::Error::PoolTimedOut))?;
        let permit = permit.map_err(|_| query_error(sqlx::Error::PoolClosed))?;
        let free = self.0.slots.iter().find_map(|slot| slot.try_lock().ok());
        Ok(Slot {
            // There are as many permits as slots, so one is free unless all are being closed.
            connection: free.ok_or_else(|| query_error(sqlx::Error::PoolClosed))?,
            _permit: permit,
        })
    }

    async fn connection<'s>(
        &self,
        slot: &'s mut Slot<'_>,
    ) -> Result<&'s mut SqliteConnection, DbErr> {
        match &mut *slot.connection {
            Some(connection) => Ok(connection),
            empty => Ok(empty.insert(self.0.options.connect().await.map_err(query_error)?)),
        }
    }
}

impl Slot<'_> {
    /// Closes the connection if a query has failed: who knows in which state that left it. One whose
    /// caller gave up is used again; it ends with its next row.
    fn checked<T>(&mut self, result: sqlx::Result<T>) -> Result<T, DbErr> {
        if result.is_err() {
            *self.connection = None;
        }
        result.map_err(query_error)
    }
}

fn query(statement: &Statement) -> Query<'_, Sqlite, SqlxValues> {
    let values = statement.values.clone();
    let values = values.unwrap_or_else(|| sea_orm::sea_query::Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(statement.sql.as_str()), SqlxValues(values))
}

pub(super) fn query_error(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}
