//! Reading, with an end to it.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, EntityTrait, ExecResult, QueryResult,
    Select, Statement, TransactionTrait,
};

use super::stall_detector::StallDetector;

/// How long an answer may take. None of ours takes nearly as long; this is for a
/// server that has vanished without a word.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// A database for queries that change nothing.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) db: DatabaseConnection,
    pub(super) silence: Arc<StallDetector>,
}

impl Reader {
    /// All that a query finds which may take long. On Postgres the server itself ends
    /// it after `limit`: one that was given up would go on there, beside the next.
    ///
    /// # Errors
    /// When it takes longer, or the database does not answer.
    pub async fn all_within<E: EntityTrait>(
        &self,
        limit: Duration,
        query: Select<E>,
    ) -> Result<Vec<E::Model>, DbErr> {
        if self.get_database_backend() != DbBackend::Postgres {
            return query.all(&self.db).await;
        }
        let found = async {
            let tx = self.db.begin().await?;
            let set = format!("SET LOCAL statement_timeout = {}", limit.as_millis());
            tx.execute_unprepared(&set).await?;
            let found = query.all(&tx).await?;
            tx.commit().await?;
            Ok(found)
        };
        self.with_timeout(found).await
    }

    /// What `work` brings; on Postgres an error if that takes too long. A file
    /// does not vanish, and a thread that reads it can't be stopped anyway.
    async fn with_timeout<T>(
        &self,
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        if self.get_database_backend() != DbBackend::Postgres {
            return work.await;
        }
        self.silence.with_timeout(QUERY_TIMEOUT, work).await?
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
