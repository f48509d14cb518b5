//! What all transitions share: a job is queued or ended together with its attempt, post and
//! delivery.

use std::collections::HashMap;
use std::slice;
use std::time::Duration;

use entity::attempt::{self, Outcome};
use entity::clock::db_now;
use entity::job::{Column, Entity, Model, Status};
use entity::post::{self, AgentText, PostContent, StoredText};
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::SimpleExpr;
use sea_orm::{DatabaseTransaction, ExprTrait, UpdateMany};

use super::{delivery, kept_text};
use crate::events::{self, JobEvent, Snapshot};

/// Literally the condition of the partial index.
pub(super) const UNFINISHED: &str =
    "status IN ('queued', 'running', 'canceling', 'awaiting_review')";

/// An error as the client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    /// The contract's `error.code`.
    pub code: &'static str,
    /// A message for the user, without keys, addresses or stack traces.
    pub message: String,
    /// Whether another attempt could help.
    pub retryable: bool,
}

/// A finished post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenPost {
    /// What is stored.
    pub content: PostContent,
    /// The events that complete what was told of the text,
    pub events: Vec<JobEvent>,
    /// after the event with this number.
    pub after: i32,
    /// What all events together then tell.
    pub told: Snapshot,
}

/// How a job ends.
pub(super) enum Ending<'a> {
    /// With these posts, by the ids of the jobs that wrote them. The update counts their events.
    Succeeded(HashMap<Uuid, (&'a PostContent, Vec<JobEvent>)>),
    /// Together with its last attempt, whose outcome and error this is.
    Failed(Outcome, &'a JobError),
    /// Together with its running attempt, whose outcome and error this is.
    Canceled(Outcome, Option<&'a JobError>),
    /// While no attempt ran.
    CanceledInQueue,
}

impl Ending<'_> {
    fn status(&self) -> Status {
        match self {
            Ending::Succeeded(_) => Status::Succeeded,
            Ending::Failed(..) => Status::Failed,
            Ending::Canceled(..) | Ending::CanceledInQueue => Status::Canceled,
        }
    }
}

/// Ends the jobs to which `select` restricts the update, and returns them. All jobs end here.
pub(super) async fn end_jobs(
    tx: &DatabaseTransaction,
    ending: Ending<'_>,
    select: impl FnOnce(UpdateMany<Entity>) -> UpdateMany<Entity>,
) -> Result<Vec<Model>, DbErr> {
    let mut update = released()
        .col_expr(Column::Status, Expr::value(ending.status()))
        .col_expr(Column::NextAttemptAt, sql_null())
        .col_expr(Column::FinishedAt, db_now(tx.get_database_backend()));
    if let Ending::Failed(_, error) = &ending {
        update = set_error(update, Some(error));
    }
    if !matches!(ending, Ending::Succeeded(_)) {
        update = count_events(update, 1);
    }
    let mut ended = select(update).exec_with_returning(tx).await?;
    if ended.is_empty() {
        return Ok(ended);
    }
    let jobs = ended.iter().map(|job| job.id);
    let posts = ended.iter().map(|job| job.post_id);
    let mut versions = HashMap::new();
    let mut told = HashMap::new();
    match ending {
        Ending::Succeeded(written) => {
            let new = ended.iter().filter_map(|job| {
                let (content, _) = written.get(&job.id)?;
                Some(agent_text(job, content))
            });
            versions = post::Entity::store_agent_texts(tx, new.collect()).await?;
            close_attempts(tx, jobs, Outcome::Succeeded, None).await?;
            told = written
                .into_iter()
                .map(|(id, (_, events))| (id, events))
                .collect();
        }
        Ending::Failed(outcome, error) => {
            post::Entity::set_statuses(tx, posts, post::Status::Failed).await?;
            close_attempts(tx, jobs, outcome, Some(error)).await?;
        }
        Ending::Canceled(outcome, error) => {
            post::Entity::set_statuses(tx, posts, post::Status::Canceled).await?;
            close_attempts(tx, jobs, outcome, error).await?;
            (versions, told) = kept_text::store(tx, &mut ended).await?;
        }
        Ending::CanceledInQueue => {
            let deliveries = ended.iter().filter_map(|job| job.delivery_id.clone());
            delivery::delete_in_order(tx, deliveries.collect()).await?;
            post::Entity::set_statuses(tx, posts, post::Status::Canceled).await?;
            (versions, told) = kept_text::store(tx, &mut ended).await?;
        }
    }
    mark_superseded(tx, &mut ended, &versions).await?;
    let told = ended.iter().map(|job| {
        let mut events: Vec<JobEvent> = told.remove(&job.id).unwrap_or_default();
        let stored = versions.get(&job.post_id);
        events.push(JobEvent::end(job, stored.map(|stored| stored.version)));
        (job.id, job.last_event, events)
    });
    events::insert(tx, told).await?;
    events::notify(tx).await?;
    Ok(ended)
}

/// A job's text.
pub(super) fn agent_text<'a>(job: &'a Model, content: &'a PostContent) -> AgentText<'a> {
    AgentText {
        post: job.post_id,
        base_version: job.base_version,
        content,
        model: &job.model,
        options: &job.options,
    }
}

/// Marks the jobs whose texts did not become the present ones of their posts.
async fn mark_superseded(
    tx: &DatabaseTransaction,
    ended: &mut [Model],
    stored: &HashMap<Uuid, StoredText>,
) -> Result<(), DbErr> {
    let is_superseded = |job: &&mut Model| {
        let stored = stored.get(&job.post_id);
        stored.is_some_and(|stored| stored.superseded)
    };
    let mut jobs = Vec::new();
    for job in ended.iter_mut().filter(is_superseded) {
        job.superseded = true;
        jobs.push(job.id);
    }
    // `IN ()` is written as `1 = 2`, for which the whole table is read.
    if !jobs.is_empty() {
        let update = Entity::update_many().col_expr(Column::Superseded, Expr::value(true));
        update.filter(Column::Id.is_in(jobs)).exec(tx).await?;
    }
    Ok(())
}

/// Tells of a job's new status. Its row has counted the event.
pub(super) fn status_event(job: &Model) -> (Uuid, i32, Vec<JobEvent>) {
    (job.id, job.last_event, vec![JobEvent::status(job)])
}

pub(super) fn count_events(update: UpdateMany<Entity>, events: i32) -> UpdateMany<Entity> {
    update.col_expr(Column::LastEvent, Expr::col(Column::LastEvent).add(events))
}

/// Queues the job to which `select` restricts the update, to be claimed after `delay`, and inserts
/// its delivery. None if there is no such job.
pub(super) async fn queue_job(
    tx: &DatabaseTransaction,
    delay: Duration,
    select: impl FnOnce(UpdateMany<Entity>) -> UpdateMany<Entity>,
) -> Result<Option<Model>, DbErr> {
    let id = delivery::new_id(delay);
    let update = count_events(released(), 1)
        .col_expr(Column::Status, Expr::value(Status::Queued))
        .col_expr(Column::DeliveryId, Expr::value(id.as_str()));
    let queued = select(update).exec_with_returning(tx).await?.pop();
    if let Some(job) = &queued {
        delivery::insert(tx, slice::from_ref(job), delay).await?;
        events::insert(tx, [status_event(job)]).await?;
    }
    Ok(queued)
}

/// An update after which no attempt holds the job.
pub(super) fn released() -> UpdateMany<Entity> {
    Entity::update_many()
        .col_expr(Column::AttemptId, sql_null())
        .col_expr(Column::LeaseUntil, sql_null())
        .col_expr(Column::Phase, sql_null())
}

pub(super) fn set_error(
    update: UpdateMany<Entity>,
    error: Option<&JobError>,
) -> UpdateMany<Entity> {
    let message = error.map(|error| error.message.clone());
    update
        .col_expr(Column::ErrorCode, Expr::value(error.map(|e| e.code)))
        .col_expr(Column::ErrorMessage, Expr::value(message))
        .col_expr(
            Column::ErrorRetryable,
            Expr::value(error.map(|e| e.retryable)),
        )
}

/// Ends the running attempts of jobs.
pub(super) async fn close_attempts(
    tx: &DatabaseTransaction,
    jobs: impl Iterator<Item = Uuid>,
    outcome: Outcome,
    error: Option<&JobError>,
) -> Result<(), DbErr> {
    use attempt::Column;
    let message = error.map(|error| error.message.clone());
    attempt::Entity::update_many()
        .col_expr(Column::FinishedAt, db_now(tx.get_database_backend()))
        .col_expr(Column::Outcome, Expr::value(outcome))
        .col_expr(Column::ErrorCode, Expr::value(error.map(|e| e.code)))
        .col_expr(Column::ErrorMessage, Expr::value(message))
        .col_expr(
            Column::ErrorRetryable,
            Expr::value(error.map(|e| e.retryable)),
        )
        .filter(Column::JobId.is_in(jobs))
        .filter(Column::FinishedAt.is_null())
        .exec(tx)
        .await?;
    Ok(())
}

pub(super) fn sql_null() -> SimpleExpr {
    Expr::cust("NULL")
}
