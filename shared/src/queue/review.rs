//! The review of outlines: a job stops when it has one, and goes on when its owner has approved it.

use std::time::Duration;

use entity::attempt::Outcome;
use entity::job::{Column, Entity, Model, Outline, Review, Status};
use sea_orm::DatabaseTransaction;
use sea_orm::entity::prelude::*;
use sea_orm::{ExprTrait, UpdateMany};

use super::enqueue::{EnqueueError, JobQuota, RequestOrigin, requested_again};
use super::transition::{close_attempts, count_events, queue_job, released, set_error, sql_null};
use super::{Lease, complete::held_by, fair_order};
use crate::events::{self, JobEvent, OutlineSection};

/// Stops a job that has its outline, and ends its attempt. False if the caller no longer holds the
/// job, or it is to be canceled.
pub(super) async fn await_review(
    tx: &DatabaseTransaction,
    lease: &Lease,
    outline: &Outline,
) -> Result<bool, DbErr> {
    let update = set_outline_columns(set_error(released(), None), outline)?;
    let stopped = held_by(count_events(update, 2), lease)
        .col_expr(Column::Status, Expr::value(Status::AwaitingReview))
        .col_expr(Column::DeliveryId, sql_null())
        .filter(Column::Status.eq(Status::Running))
        .exec_with_returning(tx)
        .await?;
    let Some(job) = stopped.first() else {
        return Ok(false);
    };
    let ids = [job.id].into_iter();
    close_attempts(tx, ids, Outcome::Succeeded, None).await?;
    let told = vec![outline_event(outline), JobEvent::status(job)];
    events::insert(tx, [(job.id, job.last_event, told)]).await?;
    events::notify(tx).await?;
    Ok(true)
}

/// Changes the outline of a job that awaits its review. None if it does so no longer.
pub async fn set_outline(
    tx: &DatabaseTransaction,
    job: Uuid,
    outline: &Outline,
) -> Result<Option<Model>, DbErr> {
    let update = set_outline_columns(Entity::update_many(), outline)?;
    let changed = count_events(update, 1)
        .filter(Column::Id.eq(job))
        .filter(Column::Status.eq(Status::AwaitingReview))
        .exec_with_returning(tx)
        .await?
        .pop();
    if let Some(job) = &changed {
        let told = vec![outline_event(outline)];
        events::insert(tx, [(job.id, job.last_event, told)]).await?;
        events::notify(tx).await?;
    }
    Ok(changed)
}

/// Queues a job whose outline its owner approves, which may have `attempts` more. The caller has
/// locked it after it has checked its owner's `quota`. Its times start again, so that they do not
/// include how long it waited.
pub async fn approve(
    tx: &DatabaseTransaction,
    before: &Model,
    mut quota: JobQuota,
    attempts: i32,
    origin: RequestOrigin,
) -> Result<Model, EnqueueError> {
    if before.status != Status::AwaitingReview {
        return Err(EnqueueError::AlreadyFinished);
    }
    quota.take()?;
    let turn = fair_order::next_turn(tx, before.user_id).await?;
    let queued = queue_job(tx, Duration::ZERO, |update| {
        requested_again(update, turn, attempts, origin)
            .col_expr(Column::Review, Expr::value(Review::Approved))
            .filter(Column::Id.eq(before.id))
            .filter(Column::Status.eq(Status::AwaitingReview))
    });
    let job = queued.await?.ok_or(EnqueueError::AlreadyFinished)?;
    events::notify(tx).await?;
    Ok(job)
}

fn set_outline_columns(
    update: UpdateMany<Entity>,
    outline: &Outline,
) -> Result<UpdateMany<Entity>, DbErr> {
    let json = serde_json::to_string(outline).map_err(|error| DbErr::Json(error.to_string()))?;
    let version = Expr::col(Column::OutlineVersion).add(1);
    Ok(update
        .col_expr(Column::Outline, Expr::value(json))
        .col_expr(Column::OutlineVersion, version))
}

fn outline_event(outline: &Outline) -> JobEvent {
    let sections = outline.sections.iter().map(|section| OutlineSection {
        heading: Some(section.heading.clone()),
    });
    JobEvent::Outline {
        title: Some(outline.title.clone()),
        sections: sections.collect(),
    }
}
