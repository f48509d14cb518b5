//! Puts new jobs into the queue, and finished ones again.

use std::collections::{BTreeSet, HashMap};
use std::slice;
use std::time::Duration;

use entity::clock::{new_id, new_id_after, now};
use entity::job::{Column, Entity, Model, Review, SectionTask, Status};
use entity::{post, source, user};
use sea_orm::entity::prelude::*;
use sea_orm::{DatabaseTransaction, ExprTrait, IntoActiveModel, QuerySelect, SqlErr, UpdateMany};

use super::lease::LockMode;
use super::transition::{UNFINISHED, queue_job, set_error, sql_null};
use super::{delivery, fair_order};
use crate::events;

/// A job to insert.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// The post it is to write.
    pub post: Uuid,
    /// The post's owner.
    pub user: Uuid,
    /// Whether it is to stop for the review of its outline.
    pub review: bool,
    /// The section that it is to write; None for the whole post.
    pub section: Option<SectionTask>,
    /// The client's options, as the HTTP contract names them.
    pub options: Json,
    /// The model to use.
    pub model: String,
    /// How many attempts may be made.
    pub max_attempts: i32,
    /// The request that asks for it.
    pub origin: RequestOrigin,
}

/// The request that a job comes from. It is stored with the job for the log of every attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestOrigin {
    /// The request's id, as in logs.
    pub request_id: Option<String>,
    /// The request's W3C `traceparent`.
    pub traceparent: Option<String>,
}

/// Why no job was queued.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// The user has as many unfinished jobs as allowed.
    #[error("the user has too many unfinished jobs")]
    QuotaExceeded,
    /// The user is disabled.
    #[error("the user is disabled")]
    AccountDisabled,
    /// The user is gone.
    #[error("the user is deleted")]
    AccountDeleted,
    /// Another job of the post is unfinished, or this one is.
    #[error("the post has an unfinished job")]
    AlreadyRunning,
    /// The job has succeeded, or a later job of the post has finished.
    #[error("the job is finished for good")]
    AlreadyFinished,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// How many more unfinished jobs a user may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobQuota {
    /// So many.
    Left(u32),
    /// None, the user is disabled.
    AccountDisabled,
    /// None, the user is gone.
    AccountDeleted,
}

impl JobQuota {
    /// Takes one.
    pub fn take(&mut self) -> Result<(), EnqueueError> {
        match self {
            JobQuota::Left(0) => Err(EnqueueError::QuotaExceeded),
            JobQuota::Left(left) => {
                *left -= 1;
                Ok(())
            }
            JobQuota::AccountDisabled => Err(EnqueueError::AccountDisabled),
            JobQuota::AccountDeleted => Err(EnqueueError::AccountDeleted),
        }
    }
}

/// How many more unfinished jobs a user may have, of at most `max_active`; those that await the
/// review of their outlines do not count. Until `tx` ends the user gets no other job, and is not
/// disabled.
pub async fn quota(
    tx: &DatabaseTransaction,
    user: Uuid,
    max_active: u32,
) -> Result<JobQuota, DbErr> {
    let quotas = quotas(tx, [user].into(), max_active, LockMode::Wait).await?;
    Ok(quotas
        .get(&user)
        .copied()
        .unwrap_or(JobQuota::AccountDeleted))
}

/// As [`quota`], for several users, of whom those are left out that are gone.
pub async fn quotas(
    tx: &DatabaseTransaction,
    users: BTreeSet<Uuid>,
    max_active: u32,
    lock_mode: LockMode,
) -> Result<HashMap<Uuid, JobQuota>, DbErr> {
    // The sessions were looked up before this transaction.
    let fail_fast = lock_mode == LockMode::NoWait;
    let locked = user::Entity::lock_all_for_quota(tx, users, fail_fast).await?;
    let disabled = locked.iter().filter(|user| user.disabled_at.is_some());
    let disabled = disabled.map(|user| (user.id, JobQuota::AccountDisabled));
    let active = Expr::cust(format!(
        "(SELECT COUNT(*) FROM (SELECT 1 FROM generation_jobs WHERE user_id = users.id \
         AND {UNFINISHED} AND status <> 'awaiting_review' LIMIT {max_active}) AS active)"
    ));
    // Not with the lock: on Postgres its query might count what was there before the lock.
    let active: Vec<(Uuid, i64)> = user::Entity::find()
        .select_only()
        .column(user::Column::Id)
        .expr(active)
        .filter(user::Column::Id.is_in(locked.iter().map(|user| user.id)))
        .into_tuple()
        .all(tx)
        .await?;
    let left = |active: i64| max_active.saturating_sub(u32::try_from(active).unwrap_or(u32::MAX));
    let active = active.into_iter();
    let quotas = active.map(|(user, active)| (user, JobQuota::Left(left(active))));
    Ok(quotas.chain(disabled).collect())
}

/// Inserts the first jobs of new posts and their deliveries, for users whose [`quotas`] allow them.
pub async fn enqueue_first(
    tx: &DatabaseTransaction,
    new: Vec<NewJob>,
) -> Result<Vec<Model>, DbErr> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let owners: Vec<Uuid> = new.iter().map(|new| new.user).collect();
    let turns = fair_order::next_turns(tx, &owners).await?;
    let jobs = new.into_iter().zip(turns);
    let jobs = jobs.map(|(new, turn)| queued_job(new_id(), new, turn));
    let jobs = jobs.collect::<Result<Vec<Model>, DbErr>>()?;
    let rows = jobs.iter().map(|job| job.clone().into_active_model());
    Entity::insert_many(rows).exec_without_returning(tx).await?;
    delivery::insert(tx, &jobs, Duration::ZERO).await?;
    Ok(jobs)
}

/// Inserts a job of a post that has others and its delivery, for a user who may have `max_active`
/// unfinished ones. It starts from the post's present text, which stays as it is until `tx` ends.
pub async fn enqueue(
    tx: &DatabaseTransaction,
    new: NewJob,
    max_active: u32,
) -> Result<Model, EnqueueError> {
    quota(tx, new.user, max_active).await?.take()?;
    let turn = fair_order::next_turn(tx, new.user).await?;
    let post = new.post;
    let mut job = queued_job(next_id(tx, post).await?, new, turn)?;
    let inserted = Entity::insert(job.clone().into_active_model());
    let inserted = inserted.exec_without_returning(tx).await;
    inserted.map_err(unfinished_job)?;
    source::Entity::forget_failures(tx, post).await?;
    let base_version = Some(lock_post(tx, post).await?);
    let set = Entity::update_many().col_expr(Column::BaseVersion, Expr::value(base_version));
    set.filter(Column::Id.eq(job.id)).exec(tx).await?;
    job.base_version = base_version;
    delivery::insert(tx, slice::from_ref(&job), Duration::ZERO).await?;
    Ok(job)
}

/// The row of a job that is queued now.
fn queued_job(id: Uuid, new: NewJob, turn: i64) -> Result<Model, DbErr> {
    let section = new.section.map(serde_json::to_value).transpose();
    Ok(Model {
        id,
        post_id: new.post,
        user_id: new.user,
        status: Status::Queued,
        phase: None,
        percent: 0,
        words: 0,
        options: new.options,
        model: new.model,
        attempt: 0,
        max_attempts: new.max_attempts,
        turn,
        attempt_id: None,
        lease_until: None,
        delivery_id: Some(delivery::new_id(Duration::ZERO)),
        next_attempt_at: None,
        input_tokens: 0,
        output_tokens: 0,
        // That it is queued, which the row itself tells.
        last_event: 1,
        warnings: None,
        base_version: Some(0),
        superseded: false,
        review: new.review.then_some(Review::Requested),
        outline: None,
        outline_version: 0,
        section: section.map_err(|error| DbErr::Json(error.to_string()))?,
        keep_text: false,
        error_code: None,
        error_message: None,
        error_retryable: None,
        request_id: new.origin.request_id,
        traceparent: new.origin.traceparent,
        created_at: now(),
        retried_at: None,
        started_at: None,
        finished_at: None,
    })
}

/// What a client's request for further attempts sets: their number, the place in the queue, the
/// origin, and when the job's times start again.
pub(super) fn requested_again(
    update: UpdateMany<Entity>,
    turn: i64,
    attempts: i32,
    origin: RequestOrigin,
) -> UpdateMany<Entity> {
    update
        .col_expr(Column::Turn, Expr::value(turn))
        .col_expr(
            Column::MaxAttempts,
            Expr::col(Column::Attempt).add(attempts),
        )
        .col_expr(Column::RetriedAt, Expr::value(now()))
        .col_expr(Column::StartedAt, sql_null())
        .col_expr(Column::RequestId, Expr::value(origin.request_id))
        .col_expr(Column::Traceparent, Expr::value(origin.traceparent))
}

/// Locks a post after its job, and returns the version from which the job starts.
async fn lock_post(tx: &DatabaseTransaction, post: Uuid) -> Result<i32, DbErr> {
    let version: Option<Option<i32>> = post::Entity::find_by_id(post)
        .select_only()
        .column(post::Column::TextVersion)
        .lock_exclusive()
        .into_tuple()
        .one(tx)
        .await?;
    Ok(version.flatten().unwrap_or_default())
}

/// A unique index refuses a second unfinished job of a post.
fn unfinished_job(error: DbErr) -> EnqueueError {
    match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => EnqueueError::AlreadyRunning,
        _ => EnqueueError::Database(error),
    }
}

/// An id for a post's next job. A post's latest job is the one with the greatest id, which must not
/// depend on the clock.
async fn next_id(tx: &DatabaseTransaction, post: Uuid) -> Result<Uuid, DbErr> {
    let latest = Entity::of_post(post)
        .select_only()
        .column(Column::Id)
        .into_tuple()
        .one(tx)
        .await?;
    Ok(latest.map_or_else(new_id, new_id_after))
}

/// Who retries a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetriedBy {
    /// Its owner, who has seen the text that it is to replace.
    Owner,
    /// An admin: an edit of the owner's since the job was asked for stays.
    Admin,
}

/// Queues a failed or canceled job again, which may have `attempts` more. The caller has locked it
/// after it has checked its owner's `quota`. Finished steps are kept; the job's times start again,
/// so that they do not include how long it was finished. A job that writes a section is finished for
/// good when there is another text than the one that its section is of.
pub async fn retry(
    tx: &DatabaseTransaction,
    before: &Model,
    by: RetriedBy,
    mut quota: JobQuota,
    attempts: i32,
    origin: RequestOrigin,
) -> Result<Model, EnqueueError> {
    let latest = Entity::of_post(before.post_id).one(tx).await?;
    match latest.filter(|latest| latest.id != before.id) {
        Some(latest) if latest.status.is_finished() => return Err(EnqueueError::AlreadyFinished),
        Some(_) => return Err(EnqueueError::AlreadyRunning),
        None => quota.take()?,
    }
    let turn = fair_order::next_turn(tx, before.user_id).await?;
    let base_version = match by {
        RetriedBy::Owner => Some(lock_post(tx, before.post_id).await?),
        RetriedBy::Admin => before.base_version,
    };
    if before.section.is_some() && base_version != before.base_version {
        return Err(EnqueueError::AlreadyFinished);
    }
    let queued = queue_job(tx, Duration::ZERO, |update| {
        requested_again(set_error(update, None), turn, attempts, origin)
            .col_expr(Column::BaseVersion, Expr::value(base_version))
            .col_expr(Column::Superseded, Expr::value(false))
            .col_expr(Column::KeepText, Expr::value(false))
            .col_expr(Column::FinishedAt, sql_null())
            .filter(Column::Id.eq(before.id))
            .filter(Column::Status.is_in([Status::Failed, Status::Canceled]))
    });
    let job = match queued.await {
        Ok(Some(job)) => job,
        Ok(None) if before.status == Status::Succeeded => {
            return Err(EnqueueError::AlreadyFinished);
        }
        Ok(None) => return Err(EnqueueError::AlreadyRunning),
        Err(error) => return Err(unfinished_job(error)),
    };
    source::Entity::forget_failures(tx, job.post_id).await?;
    events::replace_end(tx, before).await?;
    post::Entity::set_statuses(tx, [job.post_id].into_iter(), post::Status::Generating).await?;
    Ok(job)
}
