//! What tests do in the database, behind the API's back.

use std::time::Duration;

use entity::job;
use sea_orm::sea_query::Query;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, PaginatorTrait,
    QueryFilter, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait, Value,
};
use shared::database::Database;
use shared::queue;
use testing::TIMEOUT;
use tokio::time::{sleep, timeout};

use super::test_app::TestApp;

impl TestApp {
    /// Executes SQL.
    pub(crate) async fn execute(&self, sql: &str) {
        let executed = self.db.raw_connection().execute_unprepared(sql).await;
        executed.unwrap();
    }

    /// How many rows a table has.
    pub(crate) async fn count<E: EntityTrait<Model: Send + Sync>>(&self, _table: E) -> u64 {
        E::find().count(self.db.read()).await.unwrap()
    }

    /// How many deliveries wait in the queue.
    pub(crate) async fn count_deliveries(&self) -> i64 {
        queue::count_deliveries(self.db.read()).await.unwrap()
    }

    /// How many jobs are not over.
    pub(crate) async fn count_unfinished_jobs(&self) -> u64 {
        count_unfinished_jobs(&self.db).await
    }

    /// Sets a column of all rows.
    pub(crate) async fn set_all(&self, column: impl ColumnTrait, value: impl Into<Value>) {
        let mut update = Query::update();
        update.table(column.entity_name());
        update.value(column, value.into());
        self.db.raw_connection().execute(&update).await.unwrap();
    }

    /// A transaction of the test's own, which no one else writes beside.
    pub(crate) async fn begin(&self) -> DatabaseTransaction {
        let immediate = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let tx = self.db.raw_connection().begin_with_options(immediate).await;
        let tx = tx.unwrap();
        if self.db.backend() == DbBackend::Postgres {
            // Ours may not be idle for long.
            let set = "SET LOCAL idle_in_transaction_session_timeout = 0";
            tx.execute_unprepared(set).await.unwrap();
        }
        tx
    }

    /// Waits until so many or more wait for locks of others on Postgres.
    pub(crate) async fn wait_for_lock_waiters(&self, wanted: i64) {
        let all = "SELECT COUNT(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let all = Statement::from_string(DbBackend::Postgres, all);
        let enough = async {
            loop {
                let row = self.db.read().query_one_raw(all.clone()).await.unwrap();
                if row.unwrap().try_get_by_index::<i64>(0).unwrap() >= wanted {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(TIMEOUT, enough).await.expect("nobody waits");
    }
}

pub(super) async fn count_unfinished_jobs(db: &Database) -> u64 {
    use job::Status::{Canceling, Queued, Running};
    let unfinished = job::Column::Status.is_in([Queued, Running, Canceling]);
    let jobs = job::Entity::find().filter(unfinished).count(db.read());
    jobs.await.unwrap()
}
