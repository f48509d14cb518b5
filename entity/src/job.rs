//! Generation jobs.

mod warning;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Alias, Query, SimpleExpr};
use sea_orm::{ActiveEnum, ExprTrait, QueryOrder, QuerySelect, QueryTrait};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;

pub use warning::{Warning, WarningCode};

/// A row of `generation_jobs`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "generation_jobs")]
pub struct Model {
    /// UUIDv7, so that ids sort by age.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The post it writes.
    pub post_id: Uuid,
    /// Whose it is; the same as the post's.
    pub user_id: Uuid,
    /// Where it stands.
    pub status: Status,
    /// What the running attempt does; null until one has begun.
    pub phase: Option<Phase>,
    /// How far the post is, 0 to 100.
    pub percent: i32,
    /// Words written so far.
    pub words: i32,
    /// The client's options, as the HTTP contract names them.
    pub options: Json,
    /// The model that was asked for.
    pub model: String,
    /// Attempts made so far that count.
    pub attempt: i32,
    /// How many may be made.
    pub max_attempts: i32,
    /// The number of the round of the fair queue in which it is claimed, while it
    /// waits.
    pub turn: i64,
    /// The attempt that holds the job, while it runs.
    pub attempt_id: Option<Uuid>,
    /// Until when the holder need not be heard of.
    pub lease_until: Option<Timestamp>,
    /// The delivery that stands for it in the queue, or last did: a ULID whose
    /// time is the moment that the job is due.
    pub delivery_id: Option<String>,
    /// When the next attempt is due, if the job waits for one after an error.
    pub next_attempt_at: Option<Timestamp>,
    /// Tokens that the models read for it.
    pub input_tokens: i32,
    /// Tokens that the models wrote for it.
    pub output_tokens: i32,
    /// A JSON array of [`Warning`]s; null if there are none.
    pub warnings: Option<String>,
    /// The contract's code of the latest error.
    pub error_code: Option<String>,
    /// The latest error in words fit for a user.
    pub error_message: Option<String>,
    /// Whether another attempt could help.
    pub error_retryable: Option<bool>,
    /// The id of the request that it comes from, as logs have it.
    pub request_id: Option<String>,
    /// That request's place in a distributed trace, as W3C's `traceparent` has it.
    pub traceparent: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was last asked to be tried again, after it was over.
    pub retried_at: Option<Timestamp>,
    /// When the first attempt began since it was asked for, or last tried again.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
}

/// A job's status.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, Deserialize, ToSchema,
)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::None)",
    rename_all = "snake_case"
)]
#[serde(rename_all = "snake_case")]
#[schema(as = JobStatus)]
pub enum Status {
    /// It waits for a worker.
    Queued,
    /// A worker holds it.
    Running,
    /// A worker holds it and has been asked to stop.
    Canceling,
    /// The post is stored.
    Succeeded,
    /// It was given up.
    Failed,
    /// Its owner called it off.
    Canceled,
}

impl Status {
    /// Whether nothing more will happen unless someone asks for it.
    pub fn is_finished(self) -> bool {
        matches!(self, Status::Succeeded | Status::Failed | Status::Canceled)
    }

    /// This status as the partial indexes have it: in SQL that leads to one of them,
    /// in the order of ids.
    pub fn index_predicate(self) -> String {
        let name = self.to_value();
        match self {
            Status::Succeeded => format!("status = '{name}'"),
            _ => format!("status <> 'succeeded' AND status = '{name}'"),
        }
    }

    /// [`Self::index_predicate`] as a condition.
    pub fn is_in_index(self) -> SimpleExpr {
        Expr::cust(self.index_predicate())
    }
}

/// What a running attempt does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, ToSchema)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::None)",
    rename_all = "snake_case"
)]
#[serde(rename_all = "snake_case")]
#[schema(as = JobPhase)]
pub enum Phase {
    /// Title and headings.
    Outline,
    /// The sections, one after the other.
    Writing,
    /// Putting them together.
    Assembling,
}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// From when on its times are measured: when it was asked for, or last asked
    /// to be tried again.
    pub fn requested_at(&self) -> Timestamp {
        self.retried_at.unwrap_or(self.created_at)
    }
}

impl Entity {
    /// The jobs that `user` may see and steer: the owner's own.
    pub fn owned_by(user: Uuid) -> Select<Entity> {
        Entity::find().filter(Column::UserId.eq(user))
    }

    /// A post's jobs, the latest first.
    pub fn of_post(post: Uuid) -> Select<Entity> {
        Entity::find()
            .filter(Column::PostId.eq(post))
            .order_by_desc(Column::Id)
    }

    /// The latest job of each of `posts`, in no order.
    pub async fn latest_of_posts(
        db: &impl ConnectionTrait,
        posts: impl IntoIterator<Item = Uuid>,
    ) -> Result<Vec<Model>, DbErr> {
        // Postgres before 18 has no MAX for uuid.
        let newer = Alias::new("newer");
        let newer = Query::select()
            .expr(Expr::value(1))
            .from_as(Entity, newer.clone())
            .and_where(Expr::col((newer.clone(), Column::PostId)).equals((Entity, Column::PostId)))
            .and_where(Expr::col((newer, Column::Id)).gt(Expr::col((Entity, Column::Id))))
            .take();
        Entity::find()
            .filter(Column::PostId.is_in(posts))
            .filter(Expr::exists(newer).not())
            .all(db)
            .await
    }
}

/// What clients wait for a change of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobState {
    /// Where the job stands.
    pub status: Status,
    /// What the running attempt does.
    pub phase: Option<Phase>,
}

/// How many ids one statement names: databases bound it.
const MAX_IDS: usize = 500;

impl Entity {
    /// The states of those of `jobs` that exist, in no order.
    pub async fn states(
        db: &impl ConnectionTrait,
        jobs: &[Uuid],
    ) -> Result<Vec<(Uuid, JobState)>, DbErr> {
        let mut states = Vec::with_capacity(jobs.len());
        for some in jobs.chunks(MAX_IDS) {
            let rows: Vec<(Uuid, Status, Option<Phase>)> = Entity::find()
                .select_only()
                .columns([Column::Id, Column::Status, Column::Phase])
                .filter(Column::Id.is_in(some.iter().copied()))
                .into_tuple()
                .all(db)
                .await?;
            let rows = rows.into_iter();
            states.extend(rows.map(|(id, status, phase)| (id, JobState { status, phase })));
        }
        Ok(states)
    }
}

impl Entity {
    /// Removes up to `limit` jobs that were over before `before`, with their
    /// attempts and steps, and says how many. Their posts stay.
    pub async fn delete_finished(
        db: &impl ConnectionTrait,
        before: Timestamp,
        limit: u64,
    ) -> Result<u64, DbErr> {
        let finished = Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::FinishedAt.lt(before))
            .limit(limit)
            .into_query();
        // Asked twice: whoever waited for one that is retried meets the new row.
        let removed = Entity::delete_many()
            .filter(Column::Id.in_subquery(finished))
            .filter(Column::FinishedAt.lt(before))
            .exec(db)
            .await?;
        Ok(removed.rows_affected)
    }
}
