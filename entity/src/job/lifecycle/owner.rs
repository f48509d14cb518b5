//! What the owner of a job may do with it.

use sea_orm::entity::prelude::*;
use sea_orm::{DatabaseTransaction, ExprTrait, QuerySelect, Set};

use super::{UNFINISHED, end, line, null, queueing};
use crate::clock::{new_id, new_id_after, now};
use crate::job::{self, Column, Entity, Model, Status};
use crate::{post, user};

/// Whether a user may have one more unfinished job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// They may.
    Free,
    /// They have as many as they may have.
    Full,
    /// They are disabled, and may have none.
    Disabled,
}

/// Whether a user may have one more unfinished job, who may have `most`. Until
/// `tx` ends they get no other, and are not disabled.
pub async fn room(tx: &DatabaseTransaction, user: Uuid, most: u32) -> Result<Room, DbErr> {
    let held = user::Entity::hold_to_count(tx, user).await?;
    // The session was looked up before this transaction.
    if held.is_some_and(|user| user.disabled_at.is_some()) {
        return Ok(Room::Disabled);
    }
    let last = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::UserId.eq(user))
        .filter(Expr::cust(UNFINISHED))
        .offset(u64::from(most.saturating_sub(1)))
        .into_tuple::<Uuid>()
        .one(tx)
        .await?;
    Ok(match last {
        None => Room::Free,
        Some(_) => Room::Full,
    })
}

/// A job to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// The post it is to write.
    pub post: Uuid,
    /// The post's owner.
    pub user: Uuid,
    /// Whether the post is new, too, and so has no other job.
    pub is_first: bool,
    /// The client's options, as the HTTP contract names them.
    pub options: Json,
    /// The model to ask.
    pub model: String,
    /// How many attempts may be made.
    pub max_attempts: i32,
    /// The request that asks for it.
    pub origin: Origin,
}

/// The request that a job comes from. It goes with the job, so that the log of
/// every attempt can tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Its id, as logs have it.
    pub request_id: Option<String>,
    /// Its place in a distributed trace, as W3C's `traceparent` has it.
    pub traceparent: Option<String>,
}

/// Makes a job that waits for the delivery `delivery`. The database refuses a
/// second unfinished job for a post. The caller has locked its owner with
/// [`room`], so that no other is made at the same time.
///
/// # Errors
/// When it is refused, or the database does not answer.
pub async fn create(tx: &DatabaseTransaction, new: NewJob, delivery: &str) -> Result<Model, DbErr> {
    let turn = line::next_turn(tx, new.user).await?;
    let id = match new.is_first {
        true => new_id(),
        false => next_id(tx, new.post).await?,
    };
    let row = job::ActiveModel {
        id: Set(id),
        post_id: Set(new.post),
        user_id: Set(new.user),
        status: Set(Status::Queued),
        phase: Set(None),
        percent: Set(0),
        words: Set(0),
        options: Set(new.options),
        model: Set(new.model),
        attempt: Set(0),
        max_attempts: Set(new.max_attempts),
        turn: Set(turn),
        attempt_id: Set(None),
        lease_until: Set(None),
        delivery_id: Set(Some(delivery.to_owned())),
        request_id: Set(new.origin.request_id),
        traceparent: Set(new.origin.traceparent),
        next_attempt_at: Set(None),
        input_tokens: Set(0),
        output_tokens: Set(0),
        error_code: Set(None),
        error_message: Set(None),
        error_retryable: Set(None),
        created_at: Set(now()),
        retried_at: Set(None),
        started_at: Set(None),
        finished_at: Set(None),
    };
    Entity::insert(row).exec_with_returning(tx).await
}

/// An id for a post's next job. The latest job of a post is the one with the
/// greatest id, and no clock may decide which that is.
async fn next_id(tx: &DatabaseTransaction, post: Uuid) -> Result<Uuid, DbErr> {
    let latest = Entity::of_post(post)
        .select_only()
        .column(Column::Id)
        .into_tuple()
        .one(tx)
        .await?;
    Ok(latest.map_or_else(new_id, new_id_after))
}

/// What a request to cancel brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// It was queued, and is over.
    Canceled(Model),
    /// It runs; its worker will stop it.
    Canceling(Model),
    /// It was over already, or does not exist.
    TooLate,
}

/// Cancels a job for its owner: at once if it is queued, otherwise by asking
/// its worker to.
pub async fn cancel(tx: &DatabaseTransaction, job: Uuid) -> Result<Cancel, DbErr> {
    let queued = end(tx, Status::Canceled)
        .col_expr(Column::NextAttemptAt, null())
        .filter(Column::Id.eq(job))
        .filter(Column::Status.eq(Status::Queued));
    if let Some(job) = queued.exec_with_returning(tx).await?.pop() {
        post::Entity::set_status(tx, job.post_id, post::Status::Canceled).await?;
        return Ok(Cancel::Canceled(job));
    }
    let running = Entity::update_many()
        .col_expr(Column::Status, Expr::value(Status::Canceling))
        .filter(Column::Id.eq(job))
        .filter(Column::Status.is_in([Status::Running, Status::Canceling]));
    Ok(match running.exec_with_returning(tx).await?.pop() {
        Some(job) => Cancel::Canceling(job),
        None => Cancel::TooLate,
    })
}

/// Queues a job again that failed or was canceled, with `attempts` more to
/// make, for the request `origin`. None if it is in another state. What it had
/// finished is kept; its times begin anew, for nobody wants to know how long it
/// lay about as failed.
pub async fn requeue(
    tx: &DatabaseTransaction,
    job: &Model,
    attempts: i32,
    origin: Origin,
    delivery: &str,
) -> Result<Option<Model>, DbErr> {
    let turn = line::next_turn(tx, job.user_id).await?;
    let queued = queueing(delivery)
        .col_expr(Column::Turn, Expr::value(turn))
        .col_expr(
            Column::MaxAttempts,
            Expr::col(Column::Attempt).add(attempts),
        )
        .col_expr(Column::ErrorCode, null())
        .col_expr(Column::ErrorMessage, null())
        .col_expr(Column::ErrorRetryable, null())
        .col_expr(Column::RetriedAt, Expr::value(now()))
        .col_expr(Column::StartedAt, null())
        .col_expr(Column::FinishedAt, null())
        .col_expr(Column::RequestId, Expr::value(origin.request_id))
        .col_expr(Column::Traceparent, Expr::value(origin.traceparent))
        .filter(Column::Id.eq(job.id))
        .filter(Column::Status.is_in([Status::Failed, Status::Canceled]));
    let Some(job) = queued.exec_with_returning(tx).await?.pop() else {
        return Ok(None);
    };
    post::Entity::set_status(tx, job.post_id, post::Status::Generating).await?;
    Ok(Some(job))
}
