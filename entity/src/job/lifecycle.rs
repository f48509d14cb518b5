//! What a job may become, and when. Each step is one conditional UPDATE of its
//! row; whoever comes too late changes nothing and is told so.
//!
//! ```text
//!             claim               finish
//!   queued ───────────▶ running ───────────▶ succeeded
//!    │  ▲  ◀─────────── │  │ │       fail
//!    │  │  retry_later  │  │ └─────────────▶ failed
//!    │  │  release      │  │ cancel            │
//!    │  │  rescue       │  ▼        stopped    │
//!    │  │               │ canceling ────────▶ canceled
//!    │  └───────────────┼──────────────────────┤
//!    └──────────────────┼────── cancel ────────┘
//!          requeue (from failed, canceled)
//! ```
//!
//! **Fencing.** A claim makes an attempt, whose id the job's row then carries
//! together with a lease. Everything that the worker writes later names that
//! id and renews the lease. When a worker is too late, its job has been taken
//! from it, the id in the row is another, and its write matches nothing: so a
//! job has one writer at any time, and a post is stored once.
//!
//! The functions that change several rows must be given a transaction; the
//! caller commits it, after it has put the delivery into the queue in it.

use std::time::Duration;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Func, SimpleExpr};
use sea_orm::{DatabaseTransaction, ExprTrait, QueryOrder, QuerySelect, Set, UpdateMany};

use super::{Column, Entity, Failure, Model, Phase, Status};
use crate::attempt::{self, Outcome};
use crate::clock::{db_after, db_now, now};
use crate::{post, step};

/// A worker's hold on a job: lost as soon as a write says [`Hold::Lost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: Uuid,
    /// The attempt that holds it.
    pub attempt: Uuid,
    /// For how long each write renews the hold.
    pub length: Duration,
}

/// What became of a worker's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It counts; go on.
    Kept,
    /// The owner wants it stopped: stop, then say [`stopped`].
    Canceling,
    /// The job is someone else's, or gone: stop, and write nothing.
    Lost,
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it does.
    pub phase: Phase,
    /// 0 to 100.
    pub percent: i32,
    /// Words written so far.
    pub words: i32,
}

/// A finished step and its price in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// 0 is the outline, and n the nth section.
    pub position: i32,
    /// What it brought.
    pub content: String,
    /// Tokens read by the model.
    pub input_tokens: i32,
    /// Tokens written by the model.
    pub output_tokens: i32,
}

/// What became of a job whose worker was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rescue {
    /// It is queued again.
    Requeued,
    /// Its attempts are used up.
    Failed,
    /// It was to be canceled anyway.
    Canceled,
    /// Someone was faster, or the worker is alive after all.
    Nothing,
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

/// A job to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// The post it is to write.
    pub post: Uuid,
    /// The post's owner.
    pub user: Uuid,
    /// The client's options, as the HTTP contract names them.
    pub options: Json,
    /// The model to ask.
    pub model: String,
    /// How many attempts may be made.
    pub max_attempts: i32,
}

/// Makes a job that waits for the delivery `delivery`. The database refuses a
/// second unfinished job for a post.
///
/// # Errors
/// When it is refused, or the database does not answer.
pub async fn create(tx: &DatabaseTransaction, new: NewJob, delivery: &str) -> Result<Model, DbErr> {
    let row = super::ActiveModel {
        id: Set(Uuid::now_v7()),
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
        attempt_id: Set(None),
        lease_until: Set(None),
        delivery_id: Set(Some(delivery.to_owned())),
        next_attempt_at: Set(None),
        input_tokens: Set(0),
        output_tokens: Set(0),
        error_code: Set(None),
        error_message: Set(None),
        error_retryable: Set(None),
        created_at: Set(now()),
        started_at: Set(None),
        finished_at: Set(None),
    };
    Entity::insert(row).exec_with_returning(tx).await
}

/// Takes a queued job that is due: its attempts are raised by one and it is
/// leased to `worker` for `lease`. `number` is the attempt that the delivery
/// was made for; None if the job is not waiting for just that one.
///
/// # Errors
/// When the database does not answer.
pub async fn claim(
    tx: &DatabaseTransaction,
    job: Uuid,
    number: i32,
    worker: &str,
    lease: Duration,
) -> Result<Option<(Lease, Model)>, DbErr> {
    let backend = tx.get_database_backend();
    let attempt = Uuid::now_v7();
    let claimed = Entity::update_many()
        .col_expr(Column::Status, Expr::value(Status::Running))
        .col_expr(Column::Attempt, Expr::value(number))
        .col_expr(Column::AttemptId, Expr::value(attempt))
        .col_expr(Column::LeaseUntil, db_after(backend, lease))
        .col_expr(Column::DeliveryId, null())
        .col_expr(Column::NextAttemptAt, null())
        .col_expr(
            Column::StartedAt,
            Func::coalesce([Expr::col(Column::StartedAt), Expr::value(now())]).into(),
        )
        .filter(Column::Id.eq(job))
        .filter(Column::Status.eq(Status::Queued))
        .filter(Column::Attempt.eq(number - 1))
        .filter(
            Column::NextAttemptAt
                .is_null()
                .or(Expr::col(Column::NextAttemptAt).lte(db_now(backend))),
        )
        .exec_with_returning(tx)
        .await?
        .pop();
    let Some(claimed) = claimed else {
        return Ok(None);
    };
    let row = attempt::ActiveModel {
        id: Set(attempt),
        job_id: Set(job),
        attempt: Set(number),
        worker: Set(worker.to_owned()),
        started_at: Set(now()),
        finished_at: Set(None),
        outcome: Set(None),
        error_code: Set(None),
        error_message: Set(None),
        error_retryable: Set(None),
    };
    attempt::Entity::insert(row).exec(tx).await?;
    let lease = Lease {
        job,
        attempt,
        length: lease,
    };
    Ok(Some((lease, claimed)))
}

/// Says how far an attempt is, and renews its lease.
///
/// # Errors
/// When the database does not answer.
pub async fn progress(
    db: &impl ConnectionTrait,
    lease: &Lease,
    progress: Progress,
) -> Result<Hold, DbErr> {
    let renewed = renewal(db, lease)
        .col_expr(Column::Phase, Expr::value(progress.phase))
        .col_expr(Column::Percent, Expr::value(progress.percent))
        .col_expr(Column::Words, Expr::value(progress.words));
    hold(renewed.exec_with_returning(db).await?)
}

/// Keeps a finished step, adds its price to the job, and renews the lease.
///
/// # Errors
/// When the database does not answer.
pub async fn checkpoint(
    tx: &DatabaseTransaction,
    lease: &Lease,
    done: &Checkpoint,
) -> Result<Hold, DbErr> {
    let renewed = renewal(tx, lease)
        .col_expr(
            Column::InputTokens,
            Expr::col(Column::InputTokens).add(done.input_tokens),
        )
        .col_expr(
            Column::OutputTokens,
            Expr::col(Column::OutputTokens).add(done.output_tokens),
        );
    let hold = hold(renewed.exec_with_returning(tx).await?)?;
    if hold != Hold::Lost {
        let row = step::ActiveModel {
            job_id: Set(lease.job),
            position: Set(done.position),
            content: Set(done.content.clone()),
            created_at: Set(now()),
        };
        step::Entity::insert(row).exec(tx).await?;
    }
    Ok(hold)
}

/// Stores the post and ends the job well. False if the job is no longer the
/// caller's, or is to be canceled; then nothing is stored.
///
/// # Errors
/// When the database does not answer.
pub async fn finish(
    tx: &DatabaseTransaction,
    lease: &Lease,
    text: &post::Text,
) -> Result<bool, DbErr> {
    let ended = ending(lease, Status::Succeeded)
        .col_expr(Column::Percent, Expr::value(100))
        .filter(Column::Status.eq(Status::Running));
    let Some(job) = ended.exec_with_returning(tx).await?.pop() else {
        return Ok(false);
    };
    post::Entity::write(tx, job.post_id, text, None).await?;
    close_attempt(tx, lease.attempt, Outcome::Succeeded, None).await?;
    forget_steps(tx, lease.job).await?;
    Ok(true)
}

/// Gives the job up. False if it is no longer the caller's, or is to be
/// canceled.
///
/// # Errors
/// When the database does not answer.
pub async fn fail(
    tx: &DatabaseTransaction,
    lease: &Lease,
    failure: &Failure,
) -> Result<bool, DbErr> {
    let ended = with_error(ending(lease, Status::Failed), failure)
        .filter(Column::Status.eq(Status::Running));
    let Some(job) = ended.exec_with_returning(tx).await?.pop() else {
        return Ok(false);
    };
    post::Entity::set_status(tx, job.post_id, post::Status::Failed).await?;
    close_attempt(tx, lease.attempt, Outcome::Failed, Some(failure)).await?;
    Ok(true)
}

/// Queues the job for another attempt, due after `delay` by the delivery
/// `delivery`. False if it is no longer the caller's, or is to be canceled.
///
/// # Errors
/// When the database does not answer.
pub async fn retry_later(
    tx: &DatabaseTransaction,
    lease: &Lease,
    failure: &Failure,
    delay: Duration,
    delivery: &str,
) -> Result<bool, DbErr> {
    let due = db_after(tx.get_database_backend(), delay);
    let queued = with_error(queueing(delivery), failure)
        .col_expr(Column::NextAttemptAt, due)
        .filter(Column::Id.eq(lease.job))
        .filter(Column::AttemptId.eq(lease.attempt))
        .filter(Column::Status.eq(Status::Running));
    if queued.exec(tx).await?.rows_affected == 0 {
        return Ok(false);
    }
    close_attempt(tx, lease.attempt, Outcome::Failed, Some(failure)).await?;
    Ok(true)
}

/// Gives the job back without counting the attempt, for a worker that stops.
/// False if it is no longer the caller's, or is to be canceled.
///
/// # Errors
/// When the database does not answer.
pub async fn release(
    tx: &DatabaseTransaction,
    lease: &Lease,
    delivery: &str,
) -> Result<bool, DbErr> {
    let queued = queueing(delivery)
        .col_expr(Column::Attempt, Expr::col(Column::Attempt).sub(1))
        .filter(Column::Id.eq(lease.job))
        .filter(Column::AttemptId.eq(lease.attempt))
        .filter(Column::Status.eq(Status::Running));
    if queued.exec(tx).await?.rows_affected == 0 {
        return Ok(false);
    }
    close_attempt(tx, lease.attempt, Outcome::Released, None).await?;
    Ok(true)
}

/// The worker has stopped a job that was to be canceled. False if it is no
/// longer the caller's.
///
/// # Errors
/// When the database does not answer.
pub async fn stopped(tx: &DatabaseTransaction, lease: &Lease) -> Result<bool, DbErr> {
    let ended = ending(lease, Status::Canceled).filter(Column::Status.eq(Status::Canceling));
    let Some(job) = ended.exec_with_returning(tx).await?.pop() else {
        return Ok(false);
    };
    post::Entity::set_status(tx, job.post_id, post::Status::Canceled).await?;
    close_attempt(tx, lease.attempt, Outcome::Canceled, None).await?;
    Ok(true)
}

/// Cancels a job for its owner: at once if it is queued, otherwise by asking
/// its worker to.
///
/// # Errors
/// When the database does not answer.
pub async fn cancel(tx: &DatabaseTransaction, job: Uuid) -> Result<Cancel, DbErr> {
    let queued = end(Status::Canceled)
        .col_expr(Column::DeliveryId, null())
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
/// make. None if it is in another state. What it had finished is kept.
///
/// # Errors
/// When the database does not answer.
pub async fn requeue(
    tx: &DatabaseTransaction,
    job: Uuid,
    attempts: i32,
    delivery: &str,
) -> Result<Option<Model>, DbErr> {
    let queued = queueing(delivery)
        .col_expr(
            Column::MaxAttempts,
            Expr::col(Column::Attempt).add(attempts),
        )
        .col_expr(Column::ErrorCode, null())
        .col_expr(Column::ErrorMessage, null())
        .col_expr(Column::ErrorRetryable, null())
        .col_expr(Column::FinishedAt, null())
        .filter(Column::Id.eq(job))
        .filter(Column::Status.is_in([Status::Failed, Status::Canceled]));
    let Some(job) = queued.exec_with_returning(tx).await?.pop() else {
        return Ok(None);
    };
    post::Entity::set_status(tx, job.post_id, post::Status::Generating).await?;
    Ok(Some(job))
}

/// Jobs whose worker has not been heard of for a whole lease, the longest
/// silent first.
///
/// # Errors
/// When the database does not answer.
pub async fn abandoned(db: &impl ConnectionTrait, limit: u64) -> Result<Vec<Model>, DbErr> {
    let now = db_now(db.get_database_backend());
    Entity::find()
        // Written out, for the partial index.
        .filter(Expr::cust("status IN ('running', 'canceling')"))
        .filter(Expr::col(Column::LeaseUntil).lt(now))
        .order_by_asc(Column::LeaseUntil)
        .limit(limit)
        .all(db)
        .await
}

/// Takes a job from a worker that was lost. The attempt counts: a job that
/// kills its workers must not kill them for ever.
///
/// # Errors
/// When the database does not answer.
pub async fn rescue(
    tx: &DatabaseTransaction,
    job: &Model,
    delivery: &str,
) -> Result<Rescue, DbErr> {
    let Some(attempt) = job.attempt_id else {
        return Ok(Rescue::Nothing);
    };
    let lost = Failure {
        code: "worker_lost",
        message: "The worker that wrote this post stopped unexpectedly.".to_owned(),
        retryable: true,
    };
    let (update, rescue, post) = if job.status == Status::Canceling {
        let canceled = end(Status::Canceled);
        (canceled, Rescue::Canceled, Some(post::Status::Canceled))
    } else if job.attempt >= job.max_attempts {
        let failed = with_error(end(Status::Failed), &lost);
        (failed, Rescue::Failed, Some(post::Status::Failed))
    } else {
        let queued = with_error(queueing(delivery), &lost);
        (queued, Rescue::Requeued, None)
    };
    let taken = update
        .filter(Column::Id.eq(job.id))
        .filter(Column::AttemptId.eq(attempt))
        .filter(Column::Status.eq(job.status))
        .filter(Expr::col(Column::LeaseUntil).lt(db_now(tx.get_database_backend())))
        .exec(tx)
        .await?;
    if taken.rows_affected == 0 {
        return Ok(Rescue::Nothing);
    }
    if let Some(post) = post {
        post::Entity::set_status(tx, job.post_id, post).await?;
    }
    close_attempt(tx, attempt, Outcome::Lost, Some(&lost)).await?;
    Ok(rescue)
}

/// Gives a queued job another delivery, instead of `lost`. False if it is no
/// longer queued for that one.
///
/// # Errors
/// When the database does not answer.
pub async fn redeliver(
    tx: &DatabaseTransaction,
    job: Uuid,
    lost: &str,
    delivery: &str,
) -> Result<bool, DbErr> {
    let given = Entity::update_many()
        .col_expr(Column::DeliveryId, Expr::value(delivery))
        .filter(Column::Id.eq(job))
        .filter(Column::Status.eq(Status::Queued))
        .filter(Column::DeliveryId.eq(lost))
        .exec(tx)
        .await?;
    Ok(given.rows_affected > 0)
}

fn renewal(db: &impl ConnectionTrait, lease: &Lease) -> UpdateMany<Entity> {
    let until = db_after(db.get_database_backend(), lease.length);
    Entity::update_many()
        .col_expr(Column::LeaseUntil, until)
        .filter(Column::Id.eq(lease.job))
        .filter(Column::AttemptId.eq(lease.attempt))
}

fn hold(mut updated: Vec<Model>) -> Result<Hold, DbErr> {
    Ok(match updated.pop().map(|job| job.status) {
        Some(Status::Canceling) => Hold::Canceling,
        Some(_) => Hold::Kept,
        None => Hold::Lost,
    })
}

/// The job waits for a delivery, held by no one.
fn queueing(delivery: &str) -> UpdateMany<Entity> {
    Entity::update_many()
        .col_expr(Column::Status, Expr::value(Status::Queued))
        .col_expr(Column::DeliveryId, Expr::value(delivery))
        .col_expr(Column::AttemptId, null())
        .col_expr(Column::LeaseUntil, null())
        .col_expr(Column::Phase, null())
}

/// The job is over, held by no one.
fn end(status: Status) -> UpdateMany<Entity> {
    Entity::update_many()
        .col_expr(Column::Status, Expr::value(status))
        .col_expr(Column::AttemptId, null())
        .col_expr(Column::LeaseUntil, null())
        .col_expr(Column::Phase, null())
        .col_expr(Column::FinishedAt, Expr::value(now()))
}

/// The holder ends the job.
fn ending(lease: &Lease, status: Status) -> UpdateMany<Entity> {
    let ended = end(status);
    let ended = match status {
        Status::Succeeded => ended
            .col_expr(Column::ErrorCode, null())
            .col_expr(Column::ErrorMessage, null())
            .col_expr(Column::ErrorRetryable, null()),
        _ => ended,
    };
    ended
        .filter(Column::Id.eq(lease.job))
        .filter(Column::AttemptId.eq(lease.attempt))
}

fn with_error(update: UpdateMany<Entity>, failure: &Failure) -> UpdateMany<Entity> {
    update
        .col_expr(Column::ErrorCode, Expr::value(failure.code))
        .col_expr(Column::ErrorMessage, Expr::value(failure.message.clone()))
        .col_expr(Column::ErrorRetryable, Expr::value(failure.retryable))
}

async fn close_attempt(
    tx: &DatabaseTransaction,
    attempt: Uuid,
    outcome: Outcome,
    failure: Option<&Failure>,
) -> Result<(), DbErr> {
    use attempt::Column;
    attempt::Entity::update_many()
        .col_expr(Column::FinishedAt, Expr::value(now()))
        .col_expr(Column::Outcome, Expr::value(outcome))
        .col_expr(Column::ErrorCode, Expr::value(failure.map(|f| f.code)))
        .col_expr(
            Column::ErrorMessage,
            Expr::value(failure.map(|f| f.message.clone())),
        )
        .col_expr(
            Column::ErrorRetryable,
            Expr::value(failure.map(|f| f.retryable)),
        )
        .filter(Column::Id.eq(attempt))
        .exec(tx)
        .await?;
    Ok(())
}

/// Once the post is stored, its steps are in it.
async fn forget_steps(tx: &DatabaseTransaction, job: Uuid) -> Result<(), DbErr> {
    step::Entity::delete_many()
        .filter(step::Column::JobId.eq(job))
        .exec(tx)
        .await?;
    Ok(())
}

fn null() -> SimpleExpr {
    Expr::cust("NULL")
}
