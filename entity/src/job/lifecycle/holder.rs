//! What the worker that holds a job may do with it.

use std::collections::HashMap;
use std::time::Duration;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{LockBehavior, LockType, OnConflict, SimpleExpr};
use sea_orm::{
    ActiveEnum, DatabaseTransaction, ExprTrait, QueryOrder, QuerySelect, Set, UpdateMany,
};

use super::{close_attempt, close_attempts, end, null, queueing, with_error};
use crate::attempt::{self, Outcome};
use crate::clock::{db_after, now};
use crate::given::{given, with_list};
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

/// What is done where another transaction holds a job that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contended {
    /// Nothing at all, at once: no other job has to wait for that one.
    Fail,
    /// It is waited for.
    Wait,
}

/// Says how far an attempt is, and renews its lease.
pub async fn progress(
    db: &impl ConnectionTrait,
    lease: Lease,
    progress: Progress,
) -> Result<Hold, DbErr> {
    let renewed = renewal(db, lease.length)
        .col_expr(Column::Phase, Expr::value(progress.phase))
        .col_expr(Column::Percent, Expr::value(progress.percent))
        .col_expr(Column::Words, Expr::value(progress.words))
        .filter(Column::Id.eq(lease.job))
        .filter(Column::AttemptId.eq(lease.attempt));
    Ok(hold(renewed.exec_with_returning(db).await?.first()))
}

/// Keeps finished steps, each of another attempt of one worker, adds their
/// price to their jobs, and renews the leases. Once, however often it is tried:
/// that a commit went well may be lost on the way.
pub async fn checkpoint(
    tx: &DatabaseTransaction,
    done: &[(Lease, Checkpoint)],
    contended: Contended,
) -> Result<Vec<Hold>, DbErr> {
    let held = Held::of(tx, done.iter().map(|(lease, _)| lease), contended).await?;
    let kept: Vec<_> = done.iter().filter(|(lease, _)| held.has(lease)).collect();
    if let Some((Lease { length, .. }, _)) = kept.first() {
        let list = kept.iter().map(|(lease, done)| {
            vec![
                lease.job.into(),
                lease.attempt.into(),
                done.progress.phase.to_value().into(),
                done.progress.percent.into(),
                done.progress.words.into(),
                done.input_tokens.into(),
                done.output_tokens.into(),
            ]
        });
        let renewed = with_list(renewal(tx, *length), list)
            .col_expr(Column::Phase, given(3))
            .col_expr(Column::Percent, given(4))
            .col_expr(Column::Words, given(5));
        billed(renewed, [given(6), given(7)])
            .filter(Expr::col(Column::Id).eq(given(1)))
            .filter(Expr::col(Column::AttemptId).eq(given(2)))
            .exec(tx)
            .await?;
        keep_steps(tx, &kept).await?;
    }
    Ok(done.iter().map(|(lease, _)| held.hold(lease)).collect())
}

/// Those that were there already are not paid for twice.
async fn keep_steps(tx: &DatabaseTransaction, done: &[&(Lease, Checkpoint)]) -> Result<(), DbErr> {
    let rows = done.iter().map(|(lease, done)| step::ActiveModel {
        job_id: Set(lease.job),
        position: Set(done.position),
        content: Set(done.content.clone()),
        created_at: Set(now()),
    });
    let id = [step::Column::JobId, step::Column::Position];
    let kept = step::Entity::insert_many(rows)
        .on_conflict(OnConflict::columns(id).do_nothing().to_owned())
        .exec_with_returning_keys(tx)
        .await?;
    for (lease, done) in done {
        if kept.contains(&(lease.job, done.position)) {
            continue;
        }
        let refund = [done.input_tokens, done.output_tokens].map(|tokens| Expr::value(-tokens));
        let again = Entity::update_many().filter(Column::Id.eq(lease.job));
        billed(again, refund).exec(tx).await?;
    }
    Ok(())
}

fn billed(update: UpdateMany<Entity>, [input, output]: [SimpleExpr; 2]) -> UpdateMany<Entity> {
    let sum = |column, tokens| Expr::col(column).add(tokens);
    update
        .col_expr(Column::InputTokens, sum(Column::InputTokens, input))
        .col_expr(Column::OutputTokens, sum(Column::OutputTokens, output))
}

/// Stores posts and ends their jobs well, and says of each whether it did. Not
/// if the job is no longer the caller's, or is to be canceled; then nothing is
/// stored of it.
pub async fn finish(
    tx: &DatabaseTransaction,
    written: &[(Lease, post::Text)],
    contended: Contended,
) -> Result<Vec<bool>, DbErr> {
    let held = Held::of(tx, written.iter().map(|(lease, _)| lease), contended).await?;
    let stored = |lease: &Lease| held.hold(lease) == Hold::Kept;
    let ended: Vec<_> = written.iter().filter(|(lease, _)| stored(lease)).collect();
    if !ended.is_empty() {
        let list = ended.iter().map(|(lease, text)| {
            vec![
                lease.job.into(),
                lease.attempt.into(),
                text.word_count.into(),
            ]
        });
        with_list(end(tx, Status::Succeeded), list)
            .col_expr(Column::ErrorCode, null())
            .col_expr(Column::ErrorMessage, null())
            .col_expr(Column::ErrorRetryable, null())
            .col_expr(Column::Percent, Expr::value(100))
            .col_expr(Column::Words, given(3))
            .filter(Expr::col(Column::Id).eq(given(1)))
            .filter(Expr::col(Column::AttemptId).eq(given(2)))
            .filter(Column::Status.eq(Status::Running))
            .exec(tx)
            .await?;
        let posts = ended
            .iter()
            .filter_map(|(lease, text)| Some((held.job(lease)?.post_id, text)));
        post::Entity::write_all(tx, posts).await?;
        let attempts = ended.iter().map(|(lease, _)| lease.attempt);
        close_attempts(tx, attempts, Outcome::Succeeded, None).await?;
        forget_steps(tx, ended.iter().map(|(lease, _)| lease.job)).await?;
    }
    Ok(written.iter().map(|(lease, _)| stored(lease)).collect())
}

/// Jobs, locked until the transaction ends, by the attempts that hold them.
struct Held(HashMap<Uuid, Model>);

impl Held {
    /// In the order of their ids, so that no two who lock several wait for each
    /// other.
    async fn of(
        tx: &DatabaseTransaction,
        leases: impl Iterator<Item = &Lease>,
        contended: Contended,
    ) -> Result<Self, DbErr> {
        let jobs = Entity::find()
            .filter(Column::Id.is_in(leases.map(|lease| lease.job)))
            .order_by_asc(Column::Id);
        let jobs = match contended {
            Contended::Fail => jobs.lock_with_behavior(LockType::Update, LockBehavior::Nowait),
            Contended::Wait => jobs.lock_exclusive(),
        };
        let jobs = jobs.all(tx).await?;
        let by_attempt = |job: Model| Some((job.attempt_id?, job));
        Ok(Held(jobs.into_iter().filter_map(by_attempt).collect()))
    }

    fn job(&self, lease: &Lease) -> Option<&Model> {
        self.0.get(&lease.attempt)
    }

    fn has(&self, lease: &Lease) -> bool {
        self.0.contains_key(&lease.attempt)
    }

    fn hold(&self, lease: &Lease) -> Hold {
        hold(self.job(lease))
    }
}

/// Gives the job up. False if it is no longer the caller's, or is to be
/// canceled.
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
pub async fn stopped(tx: &DatabaseTransaction, lease: &Lease) -> Result<bool, DbErr> {
    let ended = ending(tx, lease, Status::Canceled).filter(Column::Status.eq(Status::Canceling));
    let Some(job) = ended.exec_with_returning(tx).await?.pop() else {
        return Ok(false);
    };
    post::Entity::set_status(tx, job.post_id, post::Status::Canceled).await?;
    close_attempt(tx, lease.attempt, Outcome::Canceled, None).await?;
    Ok(true)
}

/// How an attempt ended, if that is recorded.
pub async fn recorded(db: &impl ConnectionTrait, lease: &Lease) -> Result<Option<Outcome>, DbErr> {
    let attempt = attempt::Entity::find_by_id(lease.attempt).one(db).await?;
    Ok(attempt.and_then(|attempt| attempt.outcome))
}

fn renewal(db: &impl ConnectionTrait, lease: Duration) -> UpdateMany<Entity> {
    let until = db_after(db.get_database_backend(), lease);
    Entity::update_many().col_expr(Column::LeaseUntil, until)
}

fn hold(job: Option<&Model>) -> Hold {
    match job.map(|job| job.status) {
        Some(Status::Canceling) => Hold::Canceling,
        Some(_) => Hold::Kept,
        None => Hold::Lost,
    }
}

/// The holder ends the job.
fn ending(db: &impl ConnectionTrait, lease: &Lease, status: Status) -> UpdateMany<Entity> {
    end(db, status)
        .filter(Column::Id.eq(lease.job))
        .filter(Column::AttemptId.eq(lease.attempt))
}

/// Once the posts are stored, their steps are in them.
async fn forget_steps(
    tx: &DatabaseTransaction,
    jobs: impl Iterator<Item = Uuid>,
) -> Result<(), DbErr> {
    step::Entity::delete_many()
        .filter(step::Column::JobId.is_in(jobs))
        .exec(tx)
        .await?;
    Ok(())
}
