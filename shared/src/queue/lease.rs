//! What the worker that holds a job may do with it while it runs.

use std::collections::HashMap;
use std::time::Duration;

use entity::bulk_update::{from_values, value_column};
use entity::clock::{db_after, now};
use entity::job::{Column, Entity, Model, Phase, Status, Warning};
use entity::step;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{LockBehavior, LockType, OnConflict, SimpleExpr};
use sea_orm::{
    ActiveEnum, DatabaseTransaction, ExprTrait, QueryOrder, QuerySelect, Set, UpdateMany,
};

/// The longest lease that a worker may take.
pub const MAX_LEASE: Duration = Duration::from_secs(3600);

/// An attempt's exclusive right to write for a job, until a write answers
/// [`LeaseStatus::Lost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: Uuid,
    /// The attempt that holds it.
    pub attempt: Uuid,
    /// For how long each write renews it.
    pub length: Duration,
}

/// What a write of an attempt found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseStatus {
    /// The attempt holds the job.
    Active,
    /// The job is to be canceled: stop, then record that.
    CancelRequested,
    /// The job is another attempt's, or deleted; nothing was written.
    Lost,
}

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// 0 to 100.
    pub percent: i32,
    /// Words written so far.
    pub words: i32,
}

/// A finished step and the tokens that it cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// How far the attempt has come with it.
    pub progress: Progress,
    /// Its place among the steps, which depends on the way of writing.
    pub position: i32,
    /// Its text.
    pub content: String,
    /// Tokens read by the model.
    pub input_tokens: i32,
    /// Tokens written by the model.
    pub output_tokens: i32,
}

/// What to do when another transaction has locked one of the jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Fail at once, so that the other jobs need not wait for it.
    NoWait,
    /// Wait for it.
    Wait,
}

/// Records how far an attempt has come, and its `warnings` if they have changed, and
/// renews its lease.
pub async fn renew(
    db: &impl ConnectionTrait,
    lease: Lease,
    progress: Progress,
    warnings: Option<&[Warning]>,
) -> Result<LeaseStatus, DbErr> {
    let mut renewed = extend_lease(db, lease.length)
        .col_expr(Column::Phase, Expr::value(progress.phase))
        .col_expr(Column::Percent, Expr::value(progress.percent))
        .col_expr(Column::Words, Expr::value(progress.words))
        .filter(Column::Id.eq(lease.job))
        .filter(Column::AttemptId.eq(lease.attempt));
    if let Some(warnings) = warnings {
        let json = serde_json::to_string(warnings).map_err(|e| DbErr::Json(e.to_string()))?;
        renewed = renewed.col_expr(Column::Warnings, Expr::value(json));
    }
    Ok(lease_status(renewed.exec_with_returning(db).await?.first()))
}

/// Stores finished steps, each of another attempt of one worker, adds their tokens
/// to their jobs, and renews the leases. Storing a step again changes nothing: the
/// answer to a commit may have been lost.
pub async fn checkpoint(
    tx: &DatabaseTransaction,
    done: &[(Lease, Checkpoint)],
    lock_mode: LockMode,
) -> Result<Vec<LeaseStatus>, DbErr> {
    let locked = LockedJobs::lock(tx, done.iter().map(|(lease, _)| lease), lock_mode).await?;
    let active: Vec<_> = done.iter().filter(|(lease, _)| locked.has(lease)).collect();
    if let Some((Lease { length, .. }, _)) = active.first() {
        let list = active.iter().map(|(lease, done)| {
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
        let renewed = from_values(extend_lease(tx, *length), list)
            .col_expr(Column::Phase, value_column(3))
            .col_expr(Column::Percent, value_column(4))
            .col_expr(Column::Words, value_column(5));
        add_usage(renewed, [value_column(6), value_column(7)])
            .filter(Expr::col(Column::Id).eq(value_column(1)))
            .filter(Expr::col(Column::AttemptId).eq(value_column(2)))
            .exec(tx)
            .await?;
        insert_steps(tx, &active).await?;
    }
    Ok(done.iter().map(|(lease, _)| locked.status(lease)).collect())
}

/// Tokens of steps that were stored already are not counted again.
async fn insert_steps(
    tx: &DatabaseTransaction,
    done: &[&(Lease, Checkpoint)],
) -> Result<(), DbErr> {
    let rows = done.iter().map(|(lease, done)| step::ActiveModel {
        job_id: Set(lease.job),
        position: Set(done.position),
        content: Set(done.content.clone()),
        created_at: Set(now()),
    });
    let id = [step::Column::JobId, step::Column::Position];
    let active = step::Entity::insert_many(rows)
        .on_conflict(OnConflict::columns(id).do_nothing().to_owned())
        .exec_with_returning_keys(tx)
        .await?;
    for (lease, done) in done {
        if active.contains(&(lease.job, done.position)) {
            continue;
        }
        let refund = [done.input_tokens, done.output_tokens].map(|tokens| Expr::value(-tokens));
        let again = Entity::update_many().filter(Column::Id.eq(lease.job));
        add_usage(again, refund).exec(tx).await?;
    }
    Ok(())
}

fn add_usage(update: UpdateMany<Entity>, [input, output]: [SimpleExpr; 2]) -> UpdateMany<Entity> {
    let sum = |column, tokens| Expr::col(column).add(tokens);
    update
        .col_expr(Column::InputTokens, sum(Column::InputTokens, input))
        .col_expr(Column::OutputTokens, sum(Column::OutputTokens, output))
}

/// Jobs, locked until the transaction ends, by the attempts that hold them.
pub(super) struct LockedJobs(HashMap<Uuid, Model>);

impl LockedJobs {
    /// In the order of their ids, so that no two who lock several wait for each
    /// other.
    pub(super) async fn lock(
        tx: &DatabaseTransaction,
        leases: impl Iterator<Item = &Lease>,
        lock_mode: LockMode,
    ) -> Result<Self, DbErr> {
        let jobs = Entity::find()
            .filter(Column::Id.is_in(leases.map(|lease| lease.job)))
            .order_by_asc(Column::Id);
        let jobs = match lock_mode {
            LockMode::NoWait => jobs.lock_with_behavior(LockType::Update, LockBehavior::Nowait),
            LockMode::Wait => jobs.lock_exclusive(),
        };
        let jobs = jobs.all(tx).await?;
        let by_attempt = |job: Model| Some((job.attempt_id?, job));
        Ok(LockedJobs(
            jobs.into_iter().filter_map(by_attempt).collect(),
        ))
    }

    pub(super) fn job(&self, lease: &Lease) -> Option<&Model> {
        self.0.get(&lease.attempt)
    }

    fn has(&self, lease: &Lease) -> bool {
        self.0.contains_key(&lease.attempt)
    }

    pub(super) fn status(&self, lease: &Lease) -> LeaseStatus {
        lease_status(self.job(lease))
    }
}

fn extend_lease(db: &impl ConnectionTrait, lease: Duration) -> UpdateMany<Entity> {
    let until = db_after(db.get_database_backend(), lease);
    Entity::update_many().col_expr(Column::LeaseUntil, until)
}

fn lease_status(job: Option<&Model>) -> LeaseStatus {
    match job.map(|job| job.status) {
        Some(Status::Canceling) => LeaseStatus::CancelRequested,
        Some(_) => LeaseStatus::Active,
        None => LeaseStatus::Lost,
    }
}
