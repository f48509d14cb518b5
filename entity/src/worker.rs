//! Workers, as they tell of themselves. Nothing depends on it: a job has its
//! lease. It is there for those who look after the service.

use std::time::Duration;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ExprTrait, FromQueryResult, IntoActiveModel, QueryOrder, QuerySelect, Statement};

use crate::clock::{Timestamp, db_ago, db_now};

/// How often a worker is heard of.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// A worker that has not been heard of for so long is not alive.
const LOST_AFTER: Duration = Duration::from_secs(15);

/// A row of `job_workers`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "job_workers")]
pub struct Model {
    /// Unique for each start.
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    /// The machine's name.
    pub host: String,
    /// The program's version.
    pub version: String,
    /// The kind of agent that it calls.
    pub agent: String,
    /// The agent's model, if jobs don't say.
    pub model: String,
    /// How many jobs it does at once.
    pub concurrency: i32,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was last heard of, by the database's clock.
    pub seen_at: Timestamp,
}

impl ActiveModelBehavior for ActiveModel {}

/// A worker, and how it is at the moment.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct WorkerStatus {
    /// What it told of itself.
    #[sea_orm(nested)]
    pub worker: Model,
    /// Whether it has been heard of lately.
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
    /// Tells that it is there; for the first time, or again.
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
    /// Up to `most` workers, those that were heard of last first.
    pub async fn list(db: &impl ConnectionTrait, most: u64) -> Result<Vec<WorkerStatus>, DbErr> {
        let lately = db_ago(db.get_database_backend(), LOST_AFTER);
        Entity::find()
            .expr_as(Expr::col(Column::SeenAt).gt(lately), "alive")
            .order_by_desc(Column::SeenAt)
            .limit(most)
            .into_model()
            .all(db)
            .await
    }

    /// Up to `most` jobs that workers hold, those that were not heard of for
    /// longest first.
    pub async fn running_jobs(
        db: &impl ConnectionTrait,
        most: u64,
    ) -> Result<Vec<RunningJob>, DbErr> {
        let sql = "SELECT attempt.worker, job.id AS job_id FROM generation_jobs job \
             JOIN job_attempts attempt ON attempt.id = job.attempt_id \
             WHERE job.status IN ('running', 'canceling') \
             ORDER BY job.lease_until LIMIT $1";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let backend = db.get_database_backend();
        RunningJob::find_by_statement(Statement::from_sql_and_values(backend, sql, [most.into()]))
            .all(db)
            .await
    }

    /// Removes workers that have not been heard of since `before`, and says how
    /// many.
    pub async fn delete_lost(db: &impl ConnectionTrait, before: Timestamp) -> Result<u64, DbErr> {
        let silent = Entity::delete_many().filter(Column::SeenAt.lt(before));
        Ok(silent.exec(db).await?.rows_affected)
    }
}
