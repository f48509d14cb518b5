//! What happened to jobs, for those who watch them. `shared::events` has the contents.

use sea_orm::entity::prelude::*;
use sea_orm::{DbBackend, FromQueryResult, QueryOrder, QuerySelect, Statement};

use crate::clock::Timestamp;
use crate::job;

/// A row of `job_events`: events of a job that were stored together.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "job_events")]
pub struct Model {
    /// The job.
    #[sea_orm(primary_key, auto_increment = false)]
    pub job_id: Uuid,
    /// The number of the last of them: 1, 2, 3, ... for each job, across its attempts. The first
    /// event, that the job is queued, is never stored.
    #[sea_orm(primary_key, auto_increment = false)]
    pub seq: i32,
    /// `events`; `end` if the last one is the end; or `compacted`.
    pub kind: String,
    /// The events, as a JSON array; or what has taken their place.
    pub data: String,
}

impl ActiveModelBehavior for ActiveModel {}

impl Entity {
    /// A job's events, in order.
    pub fn of_job(job: Uuid) -> Select<Entity> {
        Entity::find()
            .filter(Column::JobId.eq(job))
            .order_by_asc(Column::Seq)
    }

    /// The events of several jobs, each after the given one, in order.
    pub async fn after(
        db: &impl ConnectionTrait,
        jobs: &[(Uuid, i32)],
    ) -> Result<Vec<Model>, DbErr> {
        let backend = db.get_database_backend();
        let mut found = Vec::new();
        for some in jobs.chunks(MAX_JOBS) {
            let row = |n: usize| match backend {
                DbBackend::Postgres => format!("(${}::uuid, ${}::int)", 2 * n + 1, 2 * n + 2),
                _ => "(?, ?)".to_owned(),
            };
            let rows: Vec<String> = (0..some.len()).map(row).collect();
            let sql = format!(
                "SELECT e.job_id, e.seq, e.kind, e.data \
                 FROM (VALUES {}) AS watched CROSS JOIN job_events AS e \
                 WHERE e.job_id = watched.column1 AND e.seq > watched.column2",
                rows.join(", ")
            );
            let values = some
                .iter()
                .flat_map(|(job, seq)| [(*job).into(), (*seq).into()]);
            let statement = Statement::from_sql_and_values(backend, sql, values);
            found.extend(Model::find_by_statement(statement).all(db).await?);
        }
        // A sort by the database would be of all of them, too, and cannot use the index.
        found.sort_unstable_by_key(|event| (event.job_id, event.seq));
        Ok(found)
    }

    /// Of the `limit` oldest finished jobs whose events are all there still, those that finished
    /// before `before`.
    pub async fn uncompacted(
        db: &impl ConnectionTrait,
        before: Timestamp,
        limit: u64,
    ) -> Result<Vec<Uuid>, DbErr> {
        let ended: Vec<Uuid> = Entity::find()
            .select_only()
            .column(Column::JobId)
            // Literally the condition of the partial index.
            .filter(Expr::cust("kind = 'end'"))
            .order_by_asc(Column::JobId)
            .limit(limit)
            .into_tuple()
            .all(db)
            .await?;
        if ended.is_empty() {
            return Ok(ended);
        }
        job::Entity::find()
            .select_only()
            .column(job::Column::Id)
            .filter(job::Column::Id.is_in(ended))
            .filter(job::Column::FinishedAt.lt(before))
            // In the order in which several are locked.
            .order_by_asc(job::Column::Id)
            .into_tuple()
            .all(db)
            .await
    }
}

/// How many jobs one statement has: databases limit its parameters.
const MAX_JOBS: usize = 500;
