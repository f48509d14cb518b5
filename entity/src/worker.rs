//! Workers and their heartbeats, for operators to look at. Nothing else depends on them: a job is
//! protected by its lease.

use std::time::Duration;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ExprTrait, FromQueryResult, IntoActiveModel, QueryOrder, QuerySelect, Statement};

use crate::clock::{Timestamp, db_ago, db_now};

/// How often a worker sends a heartbeat.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// A worker without a heartbeat for this long counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(15);

/// A row of `job_workers`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "job_workers")]
pub struct Model {
    /// Unique for each start of a worker.
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    /// The machine's host name.
    pub host: String,
    /// The program's version.
    pub version: String,
    /// The kind of agent that the worker calls.
    pub agent: String,
    /// The agent's default model.
    pub model: String,
    /// How many jobs it runs at once.
    pub concurrency: i32,
    /// When the worker started.
    pub started_at: Timestamp,
    /// When the last heartbeat came, by the database's clock.
    pub seen_at: Timestamp,
}

impl ActiveModelBehavior for ActiveModel {}

/// A worker, and whether it is alive.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct WorkerStatus {
    /// The worker's row.
    #[sea_orm(nested)]
    pub worker: Model,
    /// Whether a heartbeat came within the last 15 seconds.
    pub alive: bool,
}

/// A job that a worker holds.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct RunningJob {
    /// The worker's name.
    pub worker: String,
    /// The job.
    pub job_id: Uuid,
}

impl Model {
    /// Records a heartbeat, inserting the worker's row with the first one.
    pub async fn heartbeat(self, tx: &impl ConnectionTrait) -> Result<(), DbErr> {
        let seen = Entity::update_many()
            .col_expr(Column::SeenAt, db_now(tx.get_database_backend()))
            .filter(Column::Name.eq(&self.name))
            .exec(tx)
            .await?;
        if seen.rows_affected == 0 {
            Entity::insert(self.into_active_model())
                .on_conflict(OnConflict::column(Column::Name).do_nothing().to_owned())
                .exec_without_returning(tx)
                .await?;
        }
        Ok(())
    }
}

impl Entity {
    /// Up to `limit` workers, by their last heartbeat, the latest first.
    pub async fn list(db: &impl ConnectionTrait, limit: u64) -> Result<Vec<WorkerStatus>, DbErr> {
        let lately = db_ago(db.get_database_backend(), LOST_AFTER);
        Entity::find()
            .expr_as(Expr::col(Column::SeenAt).gt(lately), "alive")
            .order_by_desc(Column::SeenAt)
            .limit(limit)
            .into_model()
            .all(db)
            .await
    }

    /// Up to `limit` jobs that workers hold, by the end of their leases, the earliest first.
    pub async fn running_jobs(
        db: &impl ConnectionTrait,
        limit: u64,
    ) -> Result<Vec<RunningJob>, DbErr> {
        let sql = "SELECT attempt.worker, job.id AS job_id FROM generation_jobs job \
             JOIN job_attempts attempt ON attempt.id = job.attempt_id \
             WHERE job.status IN ('running', 'canceling') \
             ORDER BY job.lease_until LIMIT $1";
        let limit = [i64::try_from(limit).unwrap_or(i64::MAX).into()];
        let jobs = Statement::from_sql_and_values(db.get_database_backend(), sql, limit);
        RunningJob::find_by_statement(jobs).all(db).await
    }

    /// Deletes workers without a heartbeat since `before`, and returns how many.
    pub async fn delete_lost(db: &impl ConnectionTrait, before: Timestamp) -> Result<u64, DbErr> {
        let lost = Entity::delete_many().filter(Column::SeenAt.lt(before));
        Ok(lost.exec(db).await?.rows_affected)
    }
}
