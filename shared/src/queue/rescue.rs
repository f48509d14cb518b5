//! Rescues jobs whose worker or delivery was lost.

use std::time::Duration;

use entity::attempt::Outcome;
use entity::clock::{db_after, db_now};
use entity::job::{Column, Entity, Model, Status};
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::SimpleExpr;
use sea_orm::{DatabaseTransaction, DbBackend, ExprTrait, QueryOrder, QuerySelect, UpdateMany};

use super::transition::{Ending, JobError, close_attempts, end_jobs, queue_job, set_error};
use super::{MAX_LEASE, delivery};

/// What became of a job whose worker was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RescueOutcome {
    /// It is queued again.
    Requeued,
    /// It has failed, for its attempts are used up.
    Failed,
    /// It was to be canceled anyway.
    Canceled,
    /// Another process was faster, or the worker is alive after all.
    Skipped,
}

/// Jobs whose lease has expired, the longest expired first.
pub async fn expired_leases(db: &impl ConnectionTrait, limit: u64) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        // Written out, for the partial index.
        .filter(Expr::cust("status IN ('running', 'canceling')"))
        .filter(is_expired(db.get_database_backend()))
        .order_by_asc(Column::LeaseUntil)
        .limit(limit)
        .all(db)
        .await
}

/// The condition that a lease has expired. One that ends later than the longest lease allows was
/// made before the clock was set back, and its worker has not renewed it since.
fn is_expired(backend: DbBackend) -> SimpleExpr {
    let until = || Expr::col(Column::LeaseUntil);
    let is_over = until().lt(db_now(backend));
    is_over.or(until().gt(db_after(backend, MAX_LEASE * 2)))
}

/// Takes a job from a lost worker. The attempt counts: a job that crashes its workers must not do
/// so for ever.
pub async fn rescue(tx: &DatabaseTransaction, job: &Model) -> Result<RescueOutcome, DbErr> {
    let Some(attempt) = job.attempt_id else {
        return Ok(RescueOutcome::Skipped);
    };
    let lost = JobError {
        code: "worker_lost",
        message: "The worker that wrote this post stopped unexpectedly.".to_owned(),
        retryable: true,
    };
    let backend = tx.get_database_backend();
    let select = |update: UpdateMany<Entity>| {
        update
            .filter(Column::Id.eq(job.id))
            .filter(Column::AttemptId.eq(attempt))
            .filter(Column::Status.eq(job.status))
            .filter(is_expired(backend))
    };
    let (is_done, outcome) = if job.status == Status::Canceling {
        let ending = Ending::Canceled(Outcome::Lost, Some(&lost));
        let canceled = end_jobs(tx, ending, select).await?;
        (!canceled.is_empty(), RescueOutcome::Canceled)
    } else if job.attempt >= job.max_attempts {
        let failed = end_jobs(tx, Ending::Failed(Outcome::Lost, &lost), select).await?;
        (!failed.is_empty(), RescueOutcome::Failed)
    } else {
        let select = |update| select(set_error(update, Some(&lost)));
        let queued = queue_job(tx, Duration::ZERO, select).await?;
        let ids = queued.iter().map(|job| job.id);
        close_attempts(tx, ids, Outcome::Lost, Some(&lost)).await?;
        (queued.is_some(), RescueOutcome::Requeued)
    };
    Ok(if is_done {
        outcome
    } else {
        RescueOutcome::Skipped
    })
}

/// Replaces the delivery of a queued job. False if `job` is outdated: no longer queued, or with
/// another delivery.
pub async fn redeliver(tx: &DatabaseTransaction, job: &Model) -> Result<bool, DbErr> {
    let Some(lost) = &job.delivery_id else {
        return Ok(false);
    };
    let id = delivery::new_id(Duration::ZERO);
    let changed = Entity::update_many()
        .col_expr(Column::DeliveryId, Expr::value(id.as_str()))
        .filter(Column::Id.eq(job.id))
        .filter(Column::Status.eq(Status::Queued))
        .filter(Column::DeliveryId.eq(lost))
        .exec_with_returning(tx)
        .await?;
    if changed.is_empty() {
        return Ok(false);
    }
    delivery::delete(tx, &[lost]).await?;
    delivery::insert(tx, &changed, Duration::ZERO).await?;
    Ok(true)
}
