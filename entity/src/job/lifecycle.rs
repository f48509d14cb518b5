//! What a job may become, and when. Each step is one conditional UPDATE of its
//! row; whoever comes too late changes nothing and is told so.
//!
//! ```text
//!              claim                  finish
//!   queued ─────────────▶ running ─────────────▶ succeeded
//!    ▲ │ ▲                │  │  │       fail
//!    │ │ └────────────────┘  │  └──────────────▶ failed ────┐
//!    │ │   retry_later       │ cancel                       │
//!    │ │   release           ▼         stopped              │
//!    │ │   rescue         canceling ────────────▶ canceled ─┤
//!    │ └────────────────── cancel ──────────────────▲       │
//!    └──────────────────── requeue ─────────────────────────┘
//! ```
//!
//! A rescue may also end in `failed`, when the attempts are used up, or in
//! `canceled`.
//!
//! **Fencing.** A claim makes an attempt, whose id the job's row then carries
//! together with a lease. Everything that the worker writes later names that
//! id and renews the lease. When a worker is too late, its job has been taken
//! from it, the id in the row is another, and its write matches nothing: so a
//! job has one writer at any time, and a post is stored once.
//!
//! **Fairness.** Jobs are not taken in the order in which they came, but by
//! turns that go round their users: see `line`. While the queue is paused, none is
//! taken; what runs goes on.
//!
//! **Locks.** Who locks several rows locks idempotency keys first, then users, then
//! jobs, then their deliveries and posts, and several of a kind in the order of their
//! ids: so no two wait for each other.
//!
//! How a job is taken is in `claim`, what its holder may do in `holder`, what its
//! owner may do in `owner`, what anyone may do with a job that was left behind in
//! `rescue`, and what is left to do of a user who was disabled in `disabled`.
//! Functions that change several rows take a transaction; the caller commits
//! it, after it has put the delivery into the queue in it.

use std::time::Duration;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::SimpleExpr;
use sea_orm::{DatabaseTransaction, UpdateMany};

use super::{Column, Entity, Failure, Status};
use crate::attempt::{self, Outcome};
use crate::clock::db_now;

mod claim;
mod disabled;
mod holder;
mod line;
mod owner;
mod rescue;

pub use claim::claim;
pub use disabled::{disabled_with_jobs, hold_jobs};
pub use holder::{
    Checkpoint, Contended, Hold, Lease, Progress, checkpoint, fail, finish, progress, recorded,
    release, retry_later, stopped,
};
pub use owner::{Cancel, NewJob, Origin, Room, cancel, create, requeue, room};
pub use rescue::{Rescue, abandoned, redeliver, rescue};

/// The longest lease that a worker may take.
pub const MAX_LEASE: Duration = Duration::from_secs(3600);

/// Written out, as the partial index has it.
const UNFINISHED: &str = "status IN ('queued', 'running', 'canceling')";

/// The job waits for a delivery, held by no one.
fn queueing(delivery: &str) -> UpdateMany<Entity> {
    Entity::update_many()
        .col_expr(Column::Status, Expr::value(Status::Queued))
        .col_expr(Column::DeliveryId, Expr::value(delivery))
        .col_expr(Column::AttemptId, null())
        .col_expr(Column::LeaseUntil, null())
        .col_expr(Column::Phase, null())
}

/// The job is over, held by no one.
fn end(db: &impl ConnectionTrait, status: Status) -> UpdateMany<Entity> {
    Entity::update_many()
        .col_expr(Column::Status, Expr::value(status))
        .col_expr(Column::AttemptId, null())
        .col_expr(Column::LeaseUntil, null())
        .col_expr(Column::Phase, null())
        .col_expr(Column::FinishedAt, db_now(db.get_database_backend()))
}

fn with_error(update: UpdateMany<Entity>, failure: &Failure) -> UpdateMany<Entity> {
    update
        .col_expr(Column::ErrorCode, Expr::value(failure.code))
        .col_expr(Column::ErrorMessage, Expr::value(failure.message.clone()))
        .col_expr(Column::ErrorRetryable, Expr::value(failure.retryable))
}

async fn close_attempt(
    tx: &DatabaseTransaction,
    attempt: Uuid,
    outcome: Outcome,
    failure: Option<&Failure>,
) -> Result<(), DbErr> {
    close_attempts(tx, [attempt], outcome, failure).await
}

async fn close_attempts(
    tx: &DatabaseTransaction,
    attempts: impl IntoIterator<Item = Uuid>,
    outcome: Outcome,
    failure: Option<&Failure>,
) -> Result<(), DbErr> {
    use attempt::Column;
    attempt::Entity::update_many()
        .col_expr(Column::FinishedAt, db_now(tx.get_database_backend()))
        .col_expr(Column::Outcome, Expr::value(outcome))
        .col_expr(Column::ErrorCode, Expr::value(failure.map(|f| f.code)))
        .col_expr(
            Column::ErrorMessage,
            Expr::value(failure.map(|f| f.message.clone())),
        )
        .col_expr(
            Column::ErrorRetryable,
            Expr::value(failure.map(|f| f.retryable)),
        )
        .filter(Column::Id.is_in(attempts))
        .exec(tx)
        .await?;
    Ok(())
}

fn null() -> SimpleExpr {
    Expr::cust("NULL")
}
