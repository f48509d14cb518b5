//! Read-only queries, with a timeout.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, FromQueryResult,
    QueryResult, SelectModel, Selector, Statement, TransactionTrait,
};
use sqlx::Row;

use super::sqlite_readers::{SqliteReaders, query_error};
use super::stall_detector::StallDetector;
use crate::clock::ClockReading;

/// The timeout of a query on Postgres. None of ours takes nearly as long; this detects a server
/// that has become unreachable without closing its connections.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection for read-only queries.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(super) connections: Connections,
    pub(super) stalls: Arc<StallDetector>,
}

/// Where queries run.
#[derive(Clone, Debug)]
pub(super) enum Connections {
    Sqlite(SqliteReaders),
    /// The pool that is written to as well.
    Postgres(DatabaseConnection),
}

impl Reader {
    /// The rows of a query that may be slow. On Postgres the server itself cancels it after
    /// `limit`: a query that only its client gave up would go on there, beside the next one.
    pub async fn all_within<M: FromQueryResult + Send + Sync>(
        &self,
        limit: Duration,
        query: Selector<SelectModel<M>>,
    ) -> Result<Vec<M>, DbErr> {
        let Connections::Postgres(db) = &self.connections else {
            return query.all(self).await;
        };
        let rows = async {
            let tx = db.begin().await?;
            let set = format!("SET LOCAL statement_timeout = {}", limit.as_millis());
            tx.execute_unprepared(&set).await?;
            let rows = query.all(&tx).await?;
            tx.commit().await?;
            Ok(rows)
        };
        self.with_timeout(rows).await
    }

    /// What the clock that all processes share shows.
    pub(crate) async fn clock(&self) -> Result<ClockReading, DbErr> {
        let Connections::Postgres(db) = &self.connections else {
            let earliest = Instant::now();
            return Ok(ClockReading {
                time: Utc::now(),
                earliest,
                latest: Instant::now(),
            });
        };
        let reading = async {
            let mut connection = db.get_postgres_connection_pool().acquire().await?;
            // One round trip, of a connection that is there: the server is taken to have read its
            // clock in the middle.
            let earliest = Instant::now();
            let row = sqlx::raw_sql("SELECT clock_timestamp()")
                .fetch_one(&mut *connection)
                .await?;
            Ok(ClockReading {
                latest: Instant::now(),
                earliest,
                time: row.try_get(0)?,
            })
        };
        let reading = async { reading.await.map_err(query_error) };
        self.with_timeout(reading).await
    }

    /// Closes the connections once they are no longer used.
    pub(super) async fn close(self) -> Result<(), DbErr> {
        match self.connections {
            Connections::Sqlite(readers) => readers.close().await,
            Connections::Postgres(db) => db.close().await,
        }
    }

    /// Awaits `work`, which asks Postgres, with a timeout. A file can't become unreachable, and a
    /// thread that reads it can't be canceled anyway.
    async fn with_timeout<T>(
        &self,
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        self.stalls.with_timeout(QUERY_TIMEOUT, work).await?
    }
}

#[async_trait]
impl ConnectionTrait for Reader {
    fn get_database_backend(&self) -> DbBackend {
        match self.connections {
            Connections::Sqlite(_) => DbBackend::Sqlite,
            Connections::Postgres(_) => DbBackend::Postgres,
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        match &self.connections {
            Connections::Sqlite(readers) => readers.execute(&statement).await,
            Connections::Postgres(db) => self.with_timeout(db.execute_raw(statement)).await,
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        match &self.connections {
            Connections::Sqlite(readers) => readers.execute_unprepared(sql).await,
            Connections::Postgres(db) => self.with_timeout(db.execute_unprepared(sql)).await,
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        match &self.connections {
            Connections::Sqlite(readers) => readers.fetch_one(&statement).await,
            Connections::Postgres(db) => self.with_timeout(db.query_one_raw(statement)).await,
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match &self.connections {
            Connections::Sqlite(readers) => readers.fetch_all(&statement).await,
            Connections::Postgres(db) => self.with_timeout(db.query_all_raw(statement)).await,
        }
    }
}
