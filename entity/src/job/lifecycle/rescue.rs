//! What anyone may do with a job that was left behind.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::SimpleExpr;
use sea_orm::{DatabaseTransaction, DbBackend, ExprTrait, QueryOrder, QuerySelect};

use super::{MAX_LEASE, close_attempt, end, queueing, with_error};
use crate::attempt::Outcome;
use crate::clock::{db_after, db_now};
use crate::job::{Column, Entity, Failure, Model, Status};
use crate::post;

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

/// Jobs whose lease has expired, the longest expired first.
pub async fn abandoned(db: &impl ConnectionTrait, limit: u64) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        // Written out, for the partial index.
        .filter(Expr::cust("status IN ('running', 'canceling')"))
        .filter(is_expired(db.get_database_backend()))
        .order_by_asc(Column::LeaseUntil)
        .limit(limit)
        .all(db)
        .await
}

/// Whether a lease has expired. One that ends later than any worker may ask for
/// was made before the clock was set back, and its worker has not renewed it since.
fn is_expired(backend: DbBackend) -> SimpleExpr {
    let until = || Expr::col(Column::LeaseUntil);
    let is_over = until().lt(db_now(backend));
    is_over.or(until().gt(db_after(backend, MAX_LEASE * 2)))
}

/// Takes a job from a worker that was lost. The attempt counts: a job that
/// kills its workers must not kill them for ever.
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
        let canceled = end(tx, Status::Canceled);
        (canceled, Rescue::Canceled, Some(post::Status::Canceled))
    } else if job.attempt >= job.max_attempts {
        let failed = with_error(end(tx, Status::Failed), &lost);
        (failed, Rescue::Failed, Some(post::Status::Failed))
    } else {
        let queued = with_error(queueing(delivery), &lost);
        (queued, Rescue::Requeued, None)
    };
    let taken = update
        .filter(Column::Id.eq(job.id))
        .filter(Column::AttemptId.eq(attempt))
        .filter(Column::Status.eq(job.status))
        .filter(is_expired(tx.get_database_backend()))
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
