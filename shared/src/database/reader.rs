//! Read-only queries, with a timeout.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, EntityTrait, ExecResult, QueryResult,
    Select, Statement, TransactionTrait,
};

use super::stall_detector::StallDetector;

/// The timeout of a query on Postgres. None of ours takes nearly as long; this detects a server
/// that has become unreachable without closing its connections.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection for read-only queries.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) db: DatabaseConnection,
    pub(super) stalls: Arc<StallDetector>,
}

impl Reader {
    /// The rows of a query that may be slow. On Postgres the server itself cancels it after
    /// `limit`: a query that only its client gave up would go on there, beside the next one.
    pub async fn all_within<E: EntityTrait>(
        &self,
        limit: Duration,
        query: Select<E>,
    ) -> Result<Vec<E::Model>, DbErr> {
        if self.get_database_backend() != DbBackend::Postgres {
            return query.all(&self.db).await;
        }
        let rows = async {
            let tx = self.db.begin().await?;
            let set = format!("SET LOCAL statement_timeout = {}", limit.as_millis());
            tx.execute_unprepared(&set).await?;
            let rows = query.all(&tx).await?;
            tx.commit().await?;
            Ok(rows)
        };
        self.with_timeout(rows).await
    }

    /// Awaits `work`, on Postgres with a timeout. A file can't become unreachable, and a thread
    /// that reads it can't be canceled anyway.
    async fn with_timeout<T>(
        &self,
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        if self.get_database_backend() != DbBackend::Postgres {
            return work.await;
        }
        self.stalls.with_timeout(QUERY_TIMEOUT, work).await?
    }
}

#[async_trait]
impl ConnectionTrait for Reader {
    fn get_database_backend(&self) -> DbBackend {
        self.db.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.with_timeout(self.db.execute_raw(statement)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.with_timeout(self.db.execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.with_timeout(self.db.query_one_raw(statement)).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.with_timeout(self.db.query_all_raw(statement)).await
    }
}
