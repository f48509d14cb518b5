//! Puts new jobs into the queue, and finished ones again.

use std::time::Duration;

use entity::clock::{new_id, new_id_after, now};
use entity::job::{ActiveModel, Column, Entity, Model, Review, SectionTask, Status};
use entity::{post, source, user};
use sea_orm::entity::prelude::*;
use sea_orm::{DatabaseTransaction, ExprTrait, QuerySelect, Set, SqlErr, UpdateMany};

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
    /// Whether the post is new, and so has no other job.
    pub is_first: bool,
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

/// Whether a user may have one more unfinished job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobQuota {
    /// Yes.
    Available,
    /// No, the user has as many as allowed.
    Exceeded,
    /// No, the user is disabled.
    AccountDisabled,
}

impl JobQuota {
    pub(super) fn check(self) -> Result<(), EnqueueError> {
        match self {
            JobQuota::Available => Ok(()),
            JobQuota::Exceeded => Err(EnqueueError::QuotaExceeded),
            JobQuota::AccountDisabled => Err(EnqueueError::AccountDisabled),
        }
    }
}

/// Whether a user may have one more unfinished job, of at most `max_active`; those that await the
/// review of their outlines do not count. Until `tx` ends the user gets no other job, and is not
/// disabled.
pub async fn check_quota(
    tx: &DatabaseTransaction,
    user: Uuid,
    max_active: u32,
) -> Result<JobQuota, DbErr> {
    let user_row = user::Entity::lock_for_quota(tx, user).await?;
    // The session was looked up before this transaction.
    if user_row.is_some_and(|user| user.disabled_at.is_some()) {
        return Ok(JobQuota::AccountDisabled);
    }
    let last = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::UserId.eq(user))
        .filter(Expr::cust(UNFINISHED))
        .filter(Column::Status.ne(Status::AwaitingReview))
        .offset(u64::from(max_active.saturating_sub(1)))
        .into_tuple::<Uuid>()
        .one(tx)
        .await?;
    Ok(match last {
        None => JobQuota::Available,
        Some(_) => JobQuota::Exceeded,
    })
}

/// Inserts a job and its delivery, for a user who may have `max_active` unfinished ones. It starts
/// from the post's present text, which stays as it is until `tx` ends.
pub async fn enqueue(
    tx: &DatabaseTransaction,
    new: NewJob,
    max_active: u32,
) -> Result<Model, EnqueueError> {
    check_quota(tx, new.user, max_active).await?.check()?;
    let turn = fair_order::next_turn(tx, new.user).await?;
    let id = if new.is_first {
        new_id()
    } else {
        next_id(tx, new.post).await?
    };
    let section = new.section.map(serde_json::to_value).transpose();
    let section = section.map_err(|error| DbErr::Json(error.to_string()))?;
    let delivery = delivery::new_id(Duration::ZERO);
    let row = ActiveModel {
        id: Set(id),
        post_id: Set(new.post),
        user_id: Set(new.user),
        status: Set(Status::Queued),
        percent: Set(0),
        words: Set(0),
        options: Set(new.options),
        model: Set(new.model),
        attempt: Set(0),
        max_attempts: Set(new.max_attempts),
        turn: Set(turn),
        delivery_id: Set(Some(delivery.clone())),
        request_id: Set(new.origin.request_id),
        traceparent: Set(new.origin.traceparent),
        input_tokens: Set(0),
        output_tokens: Set(0),
        // That it is queued, which the row itself tells.
        last_event: Set(1),
        base_version: Set(Some(0)),
        superseded: Set(false),
        review: Set(new.review.then_some(Review::Requested)),
        outline_version: Set(0),
        section: Set(section),
        keep_text: Set(false),
        created_at: Set(now()),
        // All others are null.
        ..Default::default()
    };
    let job = Entity::insert(row).exec_with_returning(tx).await;
    let mut job = job.map_err(unfinished_job)?;
    if !new.is_first {
        source::Entity::forget_failures(tx, new.post).await?;
        let base_version = lock_post(tx, new.post).await?;
        let set = Entity::update_many().col_expr(Column::BaseVersion, Expr::value(base_version));
        set.filter(Column::Id.eq(id)).exec(tx).await?;
        job.base_version = Some(base_version);
    }
    delivery::insert(tx, &delivery, &job, Duration::ZERO).await?;
    Ok(job)
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
    quota: JobQuota,
    attempts: i32,
    origin: RequestOrigin,
) -> Result<Model, EnqueueError> {
    let latest = Entity::of_post(before.post_id).one(tx).await?;
    match latest.filter(|latest| latest.id != before.id) {
        Some(latest) if latest.status.is_finished() => return Err(EnqueueError::AlreadyFinished),
        Some(_) => return Err(EnqueueError::AlreadyRunning),
        None => quota.check()?,
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
