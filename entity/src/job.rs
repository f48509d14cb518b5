//! Generation jobs.

mod outline;
mod warning;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Alias, Query, SimpleExpr};
use sea_orm::{ActiveEnum, ExprTrait, QueryOrder, QuerySelect};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::batch_delete::delete_selected;
use crate::clock::Timestamp;

pub use outline::{Outline, PlannedSection, Review, SectionTask};
pub use warning::{Warning, WarningCode};

/// A row of `generation_jobs`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "generation_jobs")]
pub struct Model {
    /// UUIDv7, so that ids sort by age.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The post that it writes.
    pub post_id: Uuid,
    /// The owner, who is the post's.
    pub user_id: Uuid,
    /// The status.
    pub status: Status,
    /// The phase of the running attempt; null if none runs.
    pub phase: Option<Phase>,
    /// The progress, 0 to 100.
    pub percent: i32,
    /// How many words have been written so far.
    pub words: i32,
    /// The client's options, in the API's format.
    pub options: Json,
    /// The model that the client has chosen.
    pub model: String,
    /// How many attempts were made that count.
    pub attempt: i32,
    /// How many attempts may be made.
    pub max_attempts: i32,
    /// The round of the fair queue in which the job is claimed, while it is queued.
    pub turn: i64,
    /// The attempt that holds the job, while it runs.
    pub attempt_id: Option<Uuid>,
    /// When the attempt's lease expires.
    pub lease_until: Option<Timestamp>,
    /// The job's current or last delivery: a ULID of the time at which the job is due.
    pub delivery_id: Option<String>,
    /// When the next attempt is due, if the job waits for a retry.
    pub next_attempt_at: Option<Timestamp>,
    /// How many tokens the models have read.
    pub input_tokens: i32,
    /// How many tokens the models have written.
    pub output_tokens: i32,
    /// The number of the job's latest event.
    pub last_event: i32,
    /// A JSON array of [`Warning`]s; null if there are none.
    pub warnings: Option<String>,
    /// The [`post::Model::text_version`](crate::post::Model) from which it started, 0 for null. Null
    /// if a release before revisions has queued it: then its text replaces any other.
    pub base_version: Option<i32>,
    /// Whether that text was replaced meanwhile, so that the job's text is a revision beside it.
    pub superseded: bool,
    /// Where the review of its outline is; null if there is none.
    pub review: Option<Review>,
    /// The [`Outline`] as JSON, once it is to be reviewed.
    pub outline: Option<String>,
    /// Incremented by every change of the outline.
    pub outline_version: i32,
    /// The [`SectionTask`] as JSON; null if the job writes the whole post.
    pub section: Option<Json>,
    /// Whether what it has written is kept when it is canceled.
    pub keep_text: bool,
    /// The API's code of the latest error.
    pub error_code: Option<String>,
    /// The latest error's message for the user.
    pub error_message: Option<String>,
    /// Whether another attempt could help.
    pub error_retryable: Option<bool>,
    /// The id of the request that has queued it, as in logs.
    pub request_id: Option<String>,
    /// The W3C `traceparent` of that request.
    pub traceparent: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When a client last retried it after it had finished, or approved its outline.
    pub retried_at: Option<Timestamp>,
    /// When the first attempt since then started.
    pub started_at: Option<Timestamp>,
    /// When it finished.
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
    /// Its outline waits for the review of its owner. No worker holds it.
    AwaitingReview,
    /// A worker holds it and has been asked to stop.
    Canceling,
    /// The post is stored.
    Succeeded,
    /// Its last attempt failed.
    Failed,
    /// It was canceled.
    Canceled,
}

impl Status {
    /// Whether the job stays as it is until a client retries it.
    pub fn is_finished(self) -> bool {
        matches!(self, Status::Succeeded | Status::Failed | Status::Canceled)
    }

    /// The condition of this status, in SQL that matches one of the partial indexes on ids.
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
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, Deserialize, ToSchema,
)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::None)",
    rename_all = "snake_case"
)]
#[serde(rename_all = "snake_case")]
#[schema(as = JobPhase)]
pub enum Phase {
    /// Looking for sources on the web.
    Researching,
    /// Reading the sources.
    Reading,
    /// Finding what in them has to do with the topic.
    Checking,
    /// Title and headings.
    Outline,
    /// The sections, one after the other.
    Writing,
    /// Putting them together.
    Assembling,
}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// When its durations begin: when it was created, last retried, or its outline approved.
    pub fn requested_at(&self) -> Timestamp {
        self.retried_at.unwrap_or(self.created_at)
    }

    /// Its outline, if it has one that is to be reviewed or was approved.
    pub fn read_outline(&self) -> Option<Outline> {
        serde_json::from_str(self.outline.as_deref()?).ok()
    }

    /// The section that it is to write; None if it writes the whole post.
    pub fn section_task(&self) -> Option<SectionTask> {
        serde_json::from_value(self.section.clone()?).ok()
    }
}

impl Entity {
    /// The jobs that `user` may see and change: their own.
    pub fn owned_by(user: Uuid) -> Select<Entity> {
        Entity::find().filter(Column::UserId.eq(user))
    }

    /// A post's jobs, the latest first.
    pub fn of_post(post: Uuid) -> Select<Entity> {
        Entity::find()
            .filter(Column::PostId.eq(post))
            .order_by_desc(Column::Id)
    }

    /// The latest job of each of `posts`, in any order.
    pub fn latest_of_posts(posts: Vec<Uuid>) -> Select<Entity> {
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
    }
}

/// The part of a job whose changes clients wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobState {
    /// The status.
    pub status: Status,
    /// The phase of the running attempt.
    pub phase: Option<Phase>,
}

/// How many ids one statement has: databases limit its parameters.
const MAX_IDS: usize = 500;

impl Entity {
    /// The states of those of `jobs` that exist, in any order.
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

    /// Deletes up to `limit` jobs that finished before `before`, with their attempts and steps, and
    /// returns how many. Their posts stay.
    pub async fn delete_finished(
        db: &impl ConnectionTrait,
        before: Timestamp,
        limit: u64,
    ) -> Result<u64, DbErr> {
        let is_old = Column::FinishedAt.lt(before);
        let jobs = Entity::find().filter(is_old.clone()).limit(limit);
        // Checked again: a job that the delete had to wait for may have been retried.
        let delete = delete_selected(jobs, Column::Id).filter(is_old);
        Ok(delete.exec(db).await?.rows_affected)
    }
}
