//! Cancels jobs, and takes them out of the queue before their posts are deleted.

use entity::job::{Column, Entity, Model, Status};
use entity::user;
use sea_orm::entity::prelude::*;
use sea_orm::{DatabaseTransaction, ExprTrait, QueryOrder, QuerySelect, QueryTrait};

use super::delivery;
use super::transition::{Ending, UNFINISHED, count_events, end_jobs, status_event};
use crate::events;

/// How many jobs one transaction cancels at most, so that nobody has to wait long for it.
pub const CANCEL_BATCH: u64 = 200;

const NOT_CANCELING: &str = "status <> 'canceling'";

/// Cancels a job: at once if no worker holds it, else by asking its worker to stop. What it has
/// written becomes the post's text if `keep_text`. None if it has finished already.
pub async fn cancel(
    tx: &DatabaseTransaction,
    job: Uuid,
    keep_text: bool,
) -> Result<Option<Model>, DbErr> {
    if keep_text {
        let keep = Entity::update_many().col_expr(Column::KeepText, Expr::value(true));
        keep.filter(Column::Id.eq(job)).exec(tx).await?;
    }
    Ok(cancel_locked(tx, &[job]).await?.pop())
}

/// Cancels jobs, and returns those that had not finished.
pub async fn cancel_many(tx: &DatabaseTransaction, jobs: &[Uuid]) -> Result<Vec<Model>, DbErr> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let jobs = Entity::find().filter(Column::Id.is_in(jobs.iter().copied()));
    let jobs = lock_in_order(tx, jobs).await?;
    cancel_locked(tx, &jobs).await
}

/// Several jobs must be locked: a worker that holds one of them may be about to release the
/// delivery of another.
async fn cancel_locked(tx: &DatabaseTransaction, jobs: &[Uuid]) -> Result<Vec<Model>, DbErr> {
    // `IN ()` is written as `1 = 2`, for which the whole table is read.
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let mut canceled = end_jobs(tx, Ending::CanceledInQueue, |update| {
        update
            .filter(Column::Id.is_in(jobs.iter().copied()))
            .filter(Column::Status.is_in([Status::Queued, Status::AwaitingReview]))
    })
    .await?;
    let before = Entity::find()
        .filter(Column::Id.is_in(jobs.iter().copied()))
        .filter(Column::Status.eq(Status::Canceling));
    canceled.extend(before.all(tx).await?);
    let canceling = count_events(Entity::update_many(), 1)
        .col_expr(Column::Status, Expr::value(Status::Canceling))
        .filter(Column::Id.is_in(jobs.iter().copied()))
        .filter(Column::Status.eq(Status::Running));
    let canceling = canceling.exec_with_returning(tx).await?;
    events::insert(tx, canceling.iter().map(status_event)).await?;
    events::notify(tx).await?;
    canceled.extend(canceling);
    Ok(canceled)
}

/// Cancels up to `limit` jobs of a user, and returns them. The caller has locked the user's row.
pub async fn cancel_for_user(
    tx: &DatabaseTransaction,
    user: Uuid,
    limit: u64,
) -> Result<Vec<Model>, DbErr> {
    let jobs = Entity::owned_by(user)
        .filter(Expr::cust(UNFINISHED))
        .filter(Expr::cust(NOT_CANCELING))
        .limit(limit);
    let jobs = lock_in_order(tx, jobs).await?;
    cancel_locked(tx, &jobs).await
}

/// Cancels up to `limit` jobs of a user, if the user is disabled, and returns them.
pub async fn cancel_for_disabled(
    tx: &DatabaseTransaction,
    user: Uuid,
    limit: u64,
) -> Result<Vec<Model>, DbErr> {
    match user::Entity::lock_for_update(tx, user).await? {
        Some(user) if user.disabled_at.is_some() => cancel_for_user(tx, user.id, limit).await,
        // Enabled again meanwhile, or gone.
        _ => Ok(Vec::new()),
    }
}

/// Cancels up to `limit` jobs of one disabled user who still has some, because the API process that
/// was to cancel them has died, and returns how many.
pub async fn cancel_next_of_disabled(tx: &DatabaseTransaction, limit: u64) -> Result<u64, DbErr> {
    let jobs = Entity::find()
        .select_only()
        .expr(Expr::cust("1"))
        .filter(Expr::col((Entity, Column::UserId)).equals((user::Entity, user::Column::Id)))
        .filter(Expr::cust(UNFINISHED))
        .filter(Expr::cust(NOT_CANCELING))
        .into_query();
    let user = user::Entity::find()
        .select_only()
        .column(user::Column::Id)
        .filter(user::Column::DisabledAt.is_not_null())
        .filter(Expr::exists(jobs))
        .into_tuple()
        .one(tx)
        .await?;
    let Some(user) = user else { return Ok(0) };
    let canceled = cancel_for_disabled(tx, user, limit).await?;
    Ok(canceled.len() as u64)
}

/// Takes a post's job out of the queue, before the post is deleted and its jobs with it. A worker
/// that runs one finds it gone at its next write, and stops.
pub async fn detach_post(tx: &DatabaseTransaction, post: Uuid) -> Result<(), DbErr> {
    // Only the latest can be unfinished.
    detach(tx, Entity::of_post(post).limit(1)).await
}

/// Takes a user's jobs out of the queue, before the user is deleted and the jobs with them.
pub async fn detach_user(tx: &DatabaseTransaction, user: Uuid) -> Result<(), DbErr> {
    let unfinished = Entity::owned_by(user).filter(Expr::cust(UNFINISHED));
    detach(tx, unfinished.order_by_asc(Column::Id)).await
}

async fn detach(tx: &DatabaseTransaction, jobs: Select<Entity>) -> Result<(), DbErr> {
    let deliveries: Vec<Option<String>> = jobs
        .lock_exclusive()
        .select_only()
        .column(Column::DeliveryId)
        .into_tuple()
        .all(tx)
        .await?;
    delivery::delete_in_order(tx, deliveries.into_iter().flatten().collect()).await
}

async fn lock_in_order(tx: &DatabaseTransaction, jobs: Select<Entity>) -> Result<Vec<Uuid>, DbErr> {
    jobs.order_by_asc(Column::Id)
        .lock_exclusive()
        .select_only()
        .column(Column::Id)
        .into_tuple()
        .all(tx)
        .await
}
