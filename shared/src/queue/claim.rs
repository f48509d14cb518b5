//! Claims the next jobs in the queue for attempts of one worker.

use std::collections::HashMap;
use std::time::Duration;

use entity::attempt;
use entity::bulk_update::{from_values, value_column};
use entity::clock::{db_after, db_now, now};
use entity::job::{Column, Entity, Model, Phase, Status};
use entity::post;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Func;
use sea_orm::{DatabaseTransaction, ExprTrait, QuerySelect, QueryTrait, Set};

use super::transition::count_events;
use super::{Lease, delivery, fair_order};
use crate::events::{self, JobEvent};

/// A request for the next job, whichever that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRequest {
    /// The new attempt's id.
    pub attempt: Uuid,
    /// The delivery that woke the worker, if one did.
    pub delivery_id: Option<String>,
}

/// A job that an attempt has claimed.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimedJob {
    /// The attempt's lease.
    pub lease: Lease,
    /// The job as it was claimed.
    pub job: Model,
    /// The post to write, without its content.
    pub post: post::Model,
}

/// Claims the next jobs for the attempts of `requests`: increments their attempts, leases them to
/// `worker` for `lease`, and sets `phase`. None for requests for which no job is left, or only such
/// as others are claiming. Deletes the deliveries of the claimed jobs; releases those that woke the
/// worker in vain, to wake others. An attempt that has claimed a job keeps it if the claim is
/// repeated: the answer to a commit may have been lost.
pub async fn claim(
    tx: &DatabaseTransaction,
    worker: &str,
    lease: Duration,
    phase: Phase,
    requests: &[ClaimRequest],
) -> Result<Vec<Option<ClaimedJob>>, DbErr> {
    let attempts: Vec<Uuid> = requests.iter().map(|request| request.attempt).collect();
    let claimed = claim_jobs(tx, worker, lease, phase, &attempts).await?;
    let used: Vec<&str> = claimed
        .iter()
        .filter_map(|(_, job)| job.delivery_id.as_deref())
        .collect();
    let unused: Vec<&str> = requests
        .iter()
        .filter_map(|request| request.delivery_id.as_deref())
        .filter(|id| !used.contains(id))
        .collect();
    // After the jobs, which everyone locks before deliveries.
    delivery::lock(tx, &[&used[..], &unused[..]].concat()).await?;
    delivery::delete(tx, &used).await?;
    delivery::release(tx, &unused).await?;
    if claimed.is_empty() {
        return Ok(attempts.iter().map(|_| None).collect());
    }
    let posts = claimed.iter().map(|(_, job)| job.post_id);
    let posts = post::Entity::find().filter(post::Column::Id.is_in(posts));
    let posts = post::without_content(posts).all(tx).await?;
    let mut posts: HashMap<_, _> = posts.into_iter().map(|post| (post.id, post)).collect();
    let with_post = |(lease, job): (Lease, Model)| {
        let post = posts.remove(&job.post_id)?;
        Some((lease.attempt, ClaimedJob { lease, job, post }))
    };
    let mut claimed: HashMap<_, _> = claimed.into_iter().filter_map(with_post).collect();
    Ok(attempts.iter().map(|id| claimed.remove(id)).collect())
}

async fn claim_jobs(
    tx: &DatabaseTransaction,
    worker: &str,
    lease: Duration,
    phase: Phase,
    attempts: &[Uuid],
) -> Result<Vec<(Lease, Model)>, DbErr> {
    let leased = |job: Model| {
        let lease = Lease {
            job: job.id,
            attempt: job.attempt_id?,
            length: lease,
        };
        Some((lease, job))
    };
    let held = held_by(attempts).all(tx).await?;
    let held: Vec<_> = held.into_iter().filter_map(leased).collect();
    let is_new = |id: &&Uuid| !held.iter().any(|(lease, _)| lease.attempt == **id);
    let attempts: Vec<Uuid> = attempts.iter().filter(is_new).copied().collect();
    let limit = attempts.len() as u64;
    fair_order::promote_due_retries(tx, limit).await?;
    let next = fair_order::next_jobs(tx, limit).await?;
    if next.is_empty() {
        return Ok(held);
    }
    let attempts = next.into_iter().zip(attempts);
    let attempts = attempts.map(|(job, attempt)| vec![job.into(), attempt.into()]);
    let backend = tx.get_database_backend();
    let claimed = from_values(count_events(Entity::update_many(), 2), attempts)
        .col_expr(Column::Status, Expr::value(Status::Running))
        .col_expr(Column::Phase, Expr::value(phase))
        .col_expr(Column::Attempt, Expr::col(Column::Attempt).add(1))
        .col_expr(Column::AttemptId, value_column(2))
        .col_expr(Column::LeaseUntil, db_after(backend, lease))
        .col_expr(
            Column::StartedAt,
            Func::coalesce([Expr::col(Column::StartedAt), db_now(backend)]).into(),
        )
        .filter(Expr::col(Column::Id).eq(value_column(1)))
        .exec_with_returning(tx)
        .await?;
    let mut claimed: Vec<_> = claimed.into_iter().filter_map(leased).collect();
    insert_attempts(tx, worker, &claimed).await?;
    let told = claimed.iter().map(|(_, job)| {
        let events = vec![JobEvent::status(job), JobEvent::Phase { phase }];
        (job.id, job.last_event, events)
    });
    events::insert(tx, told).await?;
    claimed.extend(held);
    Ok(claimed)
}

async fn insert_attempts(
    tx: &DatabaseTransaction,
    worker: &str,
    claimed: &[(Lease, Model)],
) -> Result<(), DbErr> {
    let attempts = claimed.iter().map(|(lease, job)| attempt::ActiveModel {
        id: Set(lease.attempt),
        job_id: Set(job.id),
        attempt: Set(job.attempt),
        worker: Set(worker.to_owned()),
        // By the database's clock, as the lease.
        started_at: Set(job
            .lease_until
            .map_or_else(now, |until| until - lease.length)),
        ..Default::default()
    });
    attempt::Entity::insert_many(attempts)
        .exec_without_returning(tx)
        .await?;
    Ok(())
}

/// The jobs that these attempts hold.
fn held_by(attempts: &[Uuid]) -> Select<Entity> {
    let jobs = attempt::Entity::find()
        .select_only()
        .column(attempt::Column::JobId)
        .filter(attempt::Column::Id.is_in(attempts.iter().copied()))
        .into_query();
    Entity::find()
        .filter(Column::Id.in_subquery(jobs))
        .filter(Column::AttemptId.is_in(attempts.iter().copied()))
}
