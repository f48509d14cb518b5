//! Records how an attempt ended, and what follows for its job.

use std::collections::HashMap;
use std::time::Duration;

use entity::attempt::{self, Outcome};
use entity::bulk_update::{from_values, value_column};
use entity::clock::db_after;
use entity::job::{Column, Entity, Model, Outline, Status};
use entity::step;
use sea_orm::entity::prelude::*;
use sea_orm::{DatabaseTransaction, ExprTrait, UpdateMany};

use super::transition::{
    Ending, JobError, WrittenPost, close_attempts, end_jobs, queue_job, set_error,
};
use super::{Lease, LeaseStatus, LockMode, lease::LockedJobs, review};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// With a post.
    Written(WrittenPost),
    /// With an outline that is to be reviewed.
    Planned(Outline),
    /// With an error; the next attempt is due after this delay at the earliest.
    Failed(JobError, Duration),
    /// Its worker is shutting down; the attempt does not count.
    Released,
    /// It was stopped because the job is to be canceled.
    Canceled,
    /// The job is another attempt's, or gone.
    Lost,
}

/// What was recorded for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordedOutcome {
    /// The post is stored.
    Succeeded,
    /// The outline is stored, and awaits its review.
    AwaitingReview,
    /// The job has failed, with this code.
    Failed(&'static str),
    /// The job is queued for another attempt, due after this delay.
    Retried(&'static str, Duration),
    /// The job is queued again, due at once.
    Released,
    /// The job is canceled.
    Canceled,
    /// Nothing: the job is another attempt's, or gone.
    Lost,
}

/// Stores posts and ends their jobs as succeeded. Returns false for those jobs that the caller no
/// longer holds, or that are to be canceled, of which nothing is stored.
pub async fn complete(
    tx: &DatabaseTransaction,
    written: &[(Lease, WrittenPost)],
    lock_mode: LockMode,
) -> Result<Vec<bool>, DbErr> {
    let locked = LockedJobs::lock(tx, written.iter().map(|(lease, _)| lease), lock_mode).await?;
    let is_active = |lease: &Lease| locked.status(lease) == LeaseStatus::Active;
    let active: Vec<_> = written
        .iter()
        .filter(|(lease, _)| is_active(lease))
        .collect();
    if !active.is_empty() {
        let events = |lease: &Lease, post: &WrittenPost| match locked.job(lease) {
            Some(job) if job.last_event == post.after => post.events.clone(),
            // A write whose outcome was not known had been done: tell it all.
            _ => post.told.retold(),
        };
        let texts: HashMap<_, _> = active
            .iter()
            .map(|(lease, post)| (lease.job, (&post.content, events(lease, post))))
            .collect();
        let words = active.iter().map(|(lease, _)| {
            let (content, events) = &texts[&lease.job];
            vec![
                lease.job.into(),
                lease.attempt.into(),
                content.word_count.into(),
                (events.len() as i32 + 1).into(),
            ]
        });
        let words: Vec<_> = words.collect();
        let ended = end_jobs(tx, Ending::Succeeded(texts), |update| {
            from_values(set_error(update, None), words)
                .col_expr(Column::Percent, Expr::value(100))
                .col_expr(Column::Words, value_column(3))
                .col_expr(
                    Column::LastEvent,
                    Expr::col(Column::LastEvent).add(value_column(4)),
                )
                .filter(Expr::col(Column::Id).eq(value_column(1)))
                .filter(Expr::col(Column::AttemptId).eq(value_column(2)))
                .filter(Column::Status.eq(Status::Running))
        });
        delete_steps(tx, ended.await?).await?;
    }
    Ok(written.iter().map(|(lease, _)| is_active(lease)).collect())
}

/// The posts now contain the text of their steps.
async fn delete_steps(tx: &DatabaseTransaction, ended: Vec<Model>) -> Result<(), DbErr> {
    step::Entity::delete_many()
        .filter(step::Column::JobId.is_in(ended.iter().map(|job| job.id)))
        .exec(tx)
        .await?;
    Ok(())
}

/// Records how an attempt at `job` ended that has no post, or could not [`complete`] it. A retry is
/// due after `backoff`, or later if the result says so. If this is repeated, the outcome is
/// recorded once: the answer to a commit may have been lost.
pub async fn record(
    tx: &DatabaseTransaction,
    lease: &Lease,
    job: &Model,
    result: &AttemptResult,
    backoff: Duration,
) -> Result<RecordedOutcome, DbErr> {
    let recorded = match result {
        AttemptResult::Failed(error, _) if is_last(job, error) => fail(tx, lease, error).await?,
        AttemptResult::Failed(error, delay) => {
            schedule_retry(tx, lease, error, backoff.max(*delay)).await?
        }
        AttemptResult::Planned(outline) => {
            let is_stopped = review::await_review(tx, lease, outline).await?;
            is_stopped.then_some(RecordedOutcome::AwaitingReview)
        }
        AttemptResult::Released => release(tx, lease).await?,
        AttemptResult::Written(_) | AttemptResult::Canceled | AttemptResult::Lost => None,
    };
    if let Some(recorded) = recorded {
        return Ok(recorded);
    }
    // A cancel that came before the result wins.
    if confirm_cancel(tx, lease).await? {
        return Ok(RecordedOutcome::Canceled);
    }
    let before = attempt::Entity::find_by_id(lease.attempt).one(tx).await?;
    let before = before.and_then(|attempt| attempt.outcome);
    Ok(match (before, result) {
        (Some(Outcome::Succeeded), AttemptResult::Written(_)) => RecordedOutcome::Succeeded,
        (Some(Outcome::Failed), AttemptResult::Failed(error, _)) if is_last(job, error) => {
            RecordedOutcome::Failed(error.code)
        }
        (Some(Outcome::Failed), AttemptResult::Failed(error, delay)) => {
            RecordedOutcome::Retried(error.code, *delay)
        }
        (Some(Outcome::Succeeded), AttemptResult::Planned(_)) => RecordedOutcome::AwaitingReview,
        (Some(Outcome::Released), AttemptResult::Released) => RecordedOutcome::Released,
        (Some(Outcome::Canceled), _) => RecordedOutcome::Canceled,
        _ => RecordedOutcome::Lost,
    })
}

/// Whether the job fails with this error.
fn is_last(job: &Model, error: &JobError) -> bool {
    !error.retryable || job.attempt >= job.max_attempts
}

// Each changes nothing if the caller no longer holds the job, or it is to be canceled.

async fn fail(
    tx: &DatabaseTransaction,
    lease: &Lease,
    error: &JobError,
) -> Result<Option<RecordedOutcome>, DbErr> {
    let ended = end_jobs(tx, Ending::Failed(Outcome::Failed, error), |update| {
        held_by(update, lease).filter(Column::Status.eq(Status::Running))
    });
    let failed = !ended.await?.is_empty();
    Ok(failed.then_some(RecordedOutcome::Failed(error.code)))
}

async fn schedule_retry(
    tx: &DatabaseTransaction,
    lease: &Lease,
    error: &JobError,
    delay: Duration,
) -> Result<Option<RecordedOutcome>, DbErr> {
    let due = db_after(tx.get_database_backend(), delay);
    let queued = queue_job(tx, delay, |update| {
        held_by(set_error(update, Some(error)), lease)
            .col_expr(Column::NextAttemptAt, due)
            .filter(Column::Status.eq(Status::Running))
    });
    let Some(job) = queued.await? else {
        return Ok(None);
    };
    close_attempts(tx, [job.id].into_iter(), Outcome::Failed, Some(error)).await?;
    Ok(Some(RecordedOutcome::Retried(error.code, delay)))
}

async fn release(
    tx: &DatabaseTransaction,
    lease: &Lease,
) -> Result<Option<RecordedOutcome>, DbErr> {
    let queued = queue_job(tx, Duration::ZERO, |update| {
        held_by(update, lease)
            .col_expr(Column::Attempt, Expr::col(Column::Attempt).sub(1))
            .filter(Column::Status.eq(Status::Running))
    });
    let Some(job) = queued.await? else {
        return Ok(None);
    };
    close_attempts(tx, [job.id].into_iter(), Outcome::Released, None).await?;
    Ok(Some(RecordedOutcome::Released))
}

async fn confirm_cancel(tx: &DatabaseTransaction, lease: &Lease) -> Result<bool, DbErr> {
    let ended = end_jobs(tx, Ending::Canceled(Outcome::Canceled, None), |update| {
        held_by(update, lease).filter(Column::Status.eq(Status::Canceling))
    });
    Ok(!ended.await?.is_empty())
}

pub(super) fn held_by(update: UpdateMany<Entity>, lease: &Lease) -> UpdateMany<Entity> {
    update
        .filter(Column::Id.eq(lease.job))
        .filter(Column::AttemptId.eq(lease.attempt))
}
