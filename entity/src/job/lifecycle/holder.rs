//! What the worker that holds a job may do with it.

use std::time::Duration;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Func, OnConflict};
use sea_orm::{DatabaseTransaction, ExprTrait, Set, UpdateMany};

use super::{close_attempt, end, line, null, queueing, with_error};
use crate::attempt::{self, Outcome};
use crate::clock::{db_after, db_now, now};
use crate::job::{Column, Entity, Failure, Model, Phase, Status};
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
    /// How far the attempt is with it.
    pub progress: Progress,
    /// 0 is the outline, and n the nth section.
    pub position: i32,
    /// What it brought.
    pub content: String,
    /// Tokens read by the model.
    pub input_tokens: i32,
    /// Tokens written by the model.
    pub output_tokens: i32,
}

/// Takes the first job in line: its attempts are raised by one and it is leased
/// to `worker` for `lease`, and begins with `phase`. None if nobody waits, or
/// others are taking those who do.
///
/// # Errors
/// When the database does not answer.
pub async fn claim(
    tx: &DatabaseTransaction,
    worker: &str,
    lease: Duration,
    phase: Phase,
) -> Result<Option<(Lease, Model)>, DbErr> {
    line::join_due(tx).await?;
    let attempt = Uuid::now_v7();
    let backend = tx.get_database_backend();
    let claimed = Entity::update_many()
        .col_expr(Column::Status, Expr::value(Status::Running))
        .col_expr(Column::Phase, Expr::value(phase))
        .col_expr(Column::Attempt, Expr::col(Column::Attempt).add(1))
        .col_expr(Column::AttemptId, Expr::value(attempt))
        .col_expr(Column::LeaseUntil, db_after(backend, lease))
        .col_expr(
            Column::StartedAt,
            Func::coalesce([Expr::col(Column::StartedAt), db_now(backend)]).into(),
        )
        .filter(Expr::col(Column::Id).eq(line::first()))
        .exec_with_returning(tx)
        .await?
        .pop();
    let Some(claimed) = claimed else {
        return Ok(None);
    };
    // By the database's clock: attempts are listed in this order.
    let begun = claimed.lease_until.map_or_else(now, |until| until - lease);
    let row = attempt::ActiveModel {
        id: Set(attempt),
        job_id: Set(claimed.id),
        attempt: Set(claimed.attempt),
        worker: Set(worker.to_owned()),
        started_at: Set(begun),
        finished_at: Set(None),
        outcome: Set(None),
        error_code: Set(None),
        error_message: Set(None),
        error_retryable: Set(None),
    };
    attempt::Entity::insert(row)
        .exec_without_returning(tx)
        .await?;
    let lease = Lease {
        job: claimed.id,
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
    lease: Lease,
    progress: Progress,
) -> Result<Hold, DbErr> {
    let renewed = renewal(db, &lease, progress);
    hold(renewed.exec_with_returning(db).await?)
}

/// Keeps a finished step, adds its price to the job, and renews the lease. Once,
/// however often it is tried: that a commit went well may be lost on the way.
///
/// # Errors
/// When the database does not answer.
pub async fn checkpoint(
    tx: &DatabaseTransaction,
    lease: Lease,
    done: Checkpoint,
) -> Result<Hold, DbErr> {
    let price = [done.input_tokens, done.output_tokens];
    let renewed = renewal(tx, &lease, done.progress);
    let hold = hold(billed(renewed, price).exec_with_returning(tx).await?)?;
    if hold == Hold::Lost {
        return Ok(hold);
    }
    let row = step::ActiveModel {
        job_id: Set(lease.job),
        position: Set(done.position),
        content: Set(done.content),
        created_at: Set(now()),
    };
    let id = [step::Column::JobId, step::Column::Position];
    let kept = step::Entity::insert(row)
        .on_conflict(OnConflict::columns(id).do_nothing().to_owned())
        .exec_without_returning(tx)
        .await?;
    if kept == 0 {
        let again = Entity::update_many().filter(Column::Id.eq(lease.job));
        billed(again, price.map(|tokens| -tokens)).exec(tx).await?;
    }
    Ok(hold)
}

fn billed(update: UpdateMany<Entity>, [input, output]: [i32; 2]) -> UpdateMany<Entity> {
    let sum = |column, tokens: i32| Expr::col(column).add(tokens);
    update
        .col_expr(Column::InputTokens, sum(Column::InputTokens, input))
        .col_expr(Column::OutputTokens, sum(Column::OutputTokens, output))
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
    let ended = ending(tx, lease, Status::Succeeded)
        .col_expr(Column::Percent, Expr::value(100))
        .col_expr(Column::Words, Expr::value(text.word_count))
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
    let ended = with_error(ending(tx, lease, Status::Failed), failure)
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

/// Gives the job back without counting the attempt, for a worker that can't go on.
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
    let ended = ending(tx, lease, Status::Canceled).filter(Column::Status.eq(Status::Canceling));
    let Some(job) = ended.exec_with_returning(tx).await?.pop() else {
        return Ok(false);
    };
    post::Entity::set_status(tx, job.post_id, post::Status::Canceled).await?;
    close_attempt(tx, lease.attempt, Outcome::Canceled, None).await?;
    Ok(true)
}

fn renewal(db: &impl ConnectionTrait, lease: &Lease, progress: Progress) -> UpdateMany<Entity> {
    let until = db_after(db.get_database_backend(), lease.length);
    Entity::update_many()
        .col_expr(Column::LeaseUntil, until)
        .col_expr(Column::Phase, Expr::value(progress.phase))
        .col_expr(Column::Percent, Expr::value(progress.percent))
        .col_expr(Column::Words, Expr::value(progress.words))
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

/// The holder ends the job.
fn ending(db: &impl ConnectionTrait, lease: &Lease, status: Status) -> UpdateMany<Entity> {
    let ended = end(db, status);
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

/// Once the post is stored, its steps are in it.
async fn forget_steps(tx: &DatabaseTransaction, job: Uuid) -> Result<(), DbErr> {
    step::Entity::delete_many()
        .filter(step::Column::JobId.eq(job))
        .exec(tx)
        .await?;
    Ok(())
}
