//! Leases: what the worker that holds a job writes while it runs.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use crate::events::{self, JobEvent};
use entity::bulk_update::{from_values, value_column};
use entity::clock::{db_after, now};
use entity::job::{Column, Entity, Model, Phase, Status, Warning};
use entity::source::FoundPage;
use entity::{post, source, step};
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{LockBehavior, LockType, OnConflict, SimpleExpr};
use sea_orm::{
    ActiveEnum, DatabaseTransaction, ExprTrait, QueryOrder, QuerySelect, Set, UpdateMany,
};

/// The longest lease that a worker may take.
pub const MAX_LEASE: Duration = Duration::from_secs(3600);

/// An attempt's exclusive right to write for a job, until a write returns [`LeaseStatus::Lost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: Uuid,
    /// The attempt that holds it.
    pub attempt: Uuid,
    /// How long each write renews the lease for.
    pub length: Duration,
}

/// What a write of an attempt found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseStatus {
    /// The attempt holds the job.
    Active,
    /// The job is to be canceled: the attempt must stop, and record that.
    CancelRequested,
    /// The job is another attempt's, or deleted; nothing was written.
    Lost,
}

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The phase that it is in.
    pub phase: Phase,
    /// 0 to 100.
    pub percent: i32,
    /// Words written so far.
    pub words: i32,
}

/// A finished step and the tokens that it cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The attempt's progress after the step.
    pub progress: Progress,
    /// The step's position, whose meaning depends on the writing pipeline.
    pub position: i32,
    /// The step's text.
    pub content: String,
    /// Tokens that the model has read.
    pub input_tokens: i32,
    /// Tokens that the model has written.
    pub output_tokens: i32,
}

/// What to do when another transaction has locked one of the jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Fail at once: one locked job must not block the batch.
    NoWait,
    /// Wait for it.
    Wait,
}

/// What an attempt tells while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptUpdate {
    /// How far it is.
    pub progress: Progress,
    /// What has happened,
    pub events: Vec<JobEvent>,
    /// after the event with this number.
    pub after: i32,
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateResult {
    /// Whether the attempt still holds its job.
    pub status: LeaseStatus,
    /// The number of the job's last event.
    pub last_event: i32,
    /// Whether the update's events are stored.
    pub stored: bool,
}

/// Records how far attempts of one worker are and what has happened in them, and renews their
/// leases. Events are not stored if there are others after the given one: an update whose outcome
/// was not known had been done after all.
pub async fn update(
    tx: &DatabaseTransaction,
    updates: &[(Lease, AttemptUpdate)],
    lock_mode: LockMode,
) -> Result<Vec<UpdateResult>, DbErr> {
    let locked = LockedJobs::lock(tx, updates.iter().map(|(lease, _)| lease), lock_mode).await?;
    let mut results = Vec::with_capacity(updates.len());
    let mut renewed = Vec::with_capacity(updates.len());
    let mut told = Vec::new();
    for (
        lease,
        AttemptUpdate {
            progress,
            events,
            after,
        },
    ) in updates
    {
        let status = locked.status(lease);
        let mut last_event = locked.job(lease).map_or(0, |job| job.last_event);
        let stored = status == LeaseStatus::Active && last_event == *after;
        if stored && !events.is_empty() {
            last_event += events.len() as i32;
            told.push((lease.job, last_event, events.clone()));
        }
        if status != LeaseStatus::Lost {
            renewed.push(vec![
                lease.job.into(),
                lease.attempt.into(),
                progress.phase.to_value().into(),
                progress.percent.into(),
                progress.words.into(),
                last_event.into(),
            ]);
        }
        results.push(UpdateResult {
            status,
            last_event,
            stored,
        });
    }
    if let Some((Lease { length, .. }, _)) = updates.first().filter(|_| !renewed.is_empty()) {
        from_values(extend_lease(tx, *length), renewed)
            .col_expr(Column::Phase, value_column(3))
            .col_expr(Column::Percent, value_column(4))
            .col_expr(Column::Words, value_column(5))
            .col_expr(Column::LastEvent, value_column(6))
            .filter(Expr::col(Column::Id).eq(value_column(1)))
            .filter(Expr::col(Column::AttemptId).eq(value_column(2)))
            .exec(tx)
            .await?;
    }
    if !told.is_empty() {
        events::insert(tx, told).await?;
        events::notify(tx).await?;
    }
    Ok(results)
}

/// Stores all warnings of an attempt's job, and renews its lease.
pub async fn set_warnings(
    db: &impl ConnectionTrait,
    lease: Lease,
    warnings: &[Warning],
) -> Result<LeaseStatus, DbErr> {
    let json = serde_json::to_string(warnings).map_err(|e| DbErr::Json(e.to_string()))?;
    let renewal = renewal(db, lease).col_expr(Column::Warnings, Expr::value(json));
    Ok(lease_status(renewal.exec_with_returning(db).await?.first()))
}

/// Removes finished steps of an attempt's job, and renews its lease.
pub async fn discard_steps(
    tx: &DatabaseTransaction,
    lease: Lease,
    positions: Range<i32>,
) -> Result<LeaseStatus, DbErr> {
    let renewed = renewal(tx, lease).exec_with_returning(tx).await?;
    let status = lease_status(renewed.first());
    if status != LeaseStatus::Lost {
        step::Entity::delete_many()
            .filter(step::Column::JobId.eq(lease.job))
            .filter(step::Column::Position.gte(positions.start))
            .filter(step::Column::Position.lt(positions.end))
            .exec(tx)
            .await?;
    }
    Ok(status)
}

/// Stores the pages that a search has found for the post of an attempt's job, so that it has at most
/// `max` sources, with the step that says so, and renews its lease. Done again it changes nothing.
pub async fn set_found_pages(
    tx: &DatabaseTransaction,
    lease: Lease,
    step: i32,
    pages: Vec<FoundPage>,
    max: usize,
) -> Result<LeaseStatus, DbErr> {
    let renewed = renewal(tx, lease).exec_with_returning(tx).await?;
    let status = lease_status(renewed.first());
    let done = step::Entity::find_by_id((lease.job, step)).one(tx).await?;
    let active = renewed.first().filter(|_| status == LeaseStatus::Active);
    if let (Some(job), None) = (active, done) {
        let (post, user) = (job.post_id, job.user_id);
        if source::Entity::replace_found(tx, post, user, pages, max).await? {
            // The present text cites what is gone.
            post::Entity::forget_grounding(tx, post).await?;
        }
        let done = step::ActiveModel {
            job_id: Set(lease.job),
            position: Set(step),
            content: Set(String::new()),
            created_at: Set(now()),
        };
        step::Entity::insert(done)
            .exec_without_returning(tx)
            .await?;
    }
    Ok(status)
}

/// Stores finished steps, each of another attempt of one worker, adds their tokens to their jobs,
/// and renews the leases. Storing a step again changes nothing: the answer to a commit may have
/// been lost.
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

/// Inserts steps, and subtracts the tokens of those that were stored already.
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
    let inserted = step::Entity::insert_many(rows)
        .on_conflict(OnConflict::columns(id).do_nothing().to_owned())
        .exec_with_returning_keys(tx)
        .await?;
    for (lease, done) in done {
        if inserted.contains(&(lease.job, done.position)) {
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

/// Jobs that are locked until the transaction ends, by the attempts that hold them.
pub(super) struct LockedJobs(HashMap<Uuid, Model>);

impl LockedJobs {
    /// Locks in the order of ids, so that callers do not deadlock.
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

/// Renews a lease, if its attempt still holds the job.
fn renewal(db: &impl ConnectionTrait, lease: Lease) -> UpdateMany<Entity> {
    extend_lease(db, lease.length)
        .filter(Column::Id.eq(lease.job))
        .filter(Column::AttemptId.eq(lease.attempt))
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
