//! Taking jobs that are in line.

use std::time::Duration;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Func;
use sea_orm::{DatabaseTransaction, ExprTrait, QuerySelect, QueryTrait, Set};

use super::{Lease, line};
use crate::attempt;
use crate::clock::{db_after, db_now, now};
use crate::given::{given, with_list};
use crate::job::{Column, Entity, Model, Phase, Status};

/// Takes the jobs that are first in line, one for each of `attempts`, which are
/// ids for new ones: the jobs' attempts are raised by one and they are leased to
/// `worker` for `lease`, and begin with `phase`. Fewer if fewer wait, or others
/// are taking those who do. An attempt that has claimed a job keeps it, however
/// often it is tried: that a commit went well may be lost on the way.
pub async fn claim(
    tx: &DatabaseTransaction,
    worker: &str,
    lease: Duration,
    phase: Phase,
    attempts: &[Uuid],
) -> Result<Vec<(Lease, Model)>, DbErr> {
    let leased = |job: Model| {
        let (attempt, length) = (job.attempt_id?, lease);
        let lease = Lease {
            job: job.id,
            attempt,
            length,
        };
        Some((lease, job))
    };
    let held = held_by(attempts).all(tx).await?;
    let held: Vec<_> = held.into_iter().filter_map(leased).collect();
    let is_new = |id: &&Uuid| !held.iter().any(|(lease, _)| lease.attempt == **id);
    let attempts: Vec<Uuid> = attempts.iter().filter(is_new).copied().collect();
    let most = attempts.len() as u64;
    line::join_due(tx, most).await?;
    let first = line::first(tx, most).await?;
    if first.is_empty() {
        return Ok(held);
    }
    let attempts = first.into_iter().zip(attempts);
    let attempts = attempts.map(|(job, attempt)| vec![job.into(), attempt.into()]);
    let backend = tx.get_database_backend();
    let claimed = with_list(Entity::update_many(), attempts)
        .col_expr(Column::Status, Expr::value(Status::Running))
        .col_expr(Column::Phase, Expr::value(phase))
        .col_expr(Column::Attempt, Expr::col(Column::Attempt).add(1))
        .col_expr(Column::AttemptId, given(2))
        .col_expr(Column::LeaseUntil, db_after(backend, lease))
        .col_expr(
            Column::StartedAt,
            Func::coalesce([Expr::col(Column::StartedAt), db_now(backend)]).into(),
        )
        .filter(Expr::col(Column::Id).eq(given(1)))
        .exec_with_returning(tx)
        .await?;
    let mut claimed: Vec<_> = claimed.into_iter().filter_map(leased).collect();
    let attempts = claimed.iter().map(|(lease, job)| attempt::ActiveModel {
        id: Set(lease.attempt),
        job_id: Set(job.id),
        attempt: Set(job.attempt),
        worker: Set(worker.to_owned()),
        // By the database's clock: attempts are listed in this order.
        started_at: Set(job
            .lease_until
            .map_or_else(now, |until| until - lease.length)),
        finished_at: Set(None),
        outcome: Set(None),
        error_code: Set(None),
        error_message: Set(None),
        error_retryable: Set(None),
    });
    attempt::Entity::insert_many(attempts)
        .exec_without_returning(tx)
        .await?;
    claimed.extend(held);
    Ok(claimed)
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
