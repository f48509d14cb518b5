//! The order in which queued jobs are claimed.
//!
//! In each round one job of every user who has any is claimed. A job's `turn` is the number of its
//! round, which it gets when it is queued: the one after that of its owner's last, or the current
//! one if the owner has no other. So a user with a thousand jobs delays others by no more than one
//! job a round. Nothing is stored for users who have no job queued.
//!
//! A job that waits for `next_attempt_at` has no position in that order; it gets its round when it
//! is due, behind its owner's others. One that was claimed and queued again, because its worker
//! stopped or was lost, has kept its round.

use std::collections::HashMap;

use entity::clock::db_now;
use entity::job::{Column, Entity};
use entity::queue_state::NOT_PAUSED;
use entity::user;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Alias, Func, LockBehavior, LockType, Query, SelectStatement, SimpleExpr};
use sea_orm::{DatabaseTransaction, ExprTrait, QueryOrder, QuerySelect};

use super::transition::sql_null;

/// Written out, as the partial indexes have it.
const READY: &str = "queue.status = 'queued' AND queue.next_attempt_at IS NULL";
const DELAYED: &str = "status = 'queued' AND next_attempt_at IS NOT NULL";

/// The round of a job that is queued now.
pub(super) async fn next_turn(tx: &DatabaseTransaction, user: Uuid) -> Result<i64, DbErr> {
    let turns = next_turns(tx, &[user]).await?;
    Ok(turns.first().copied().unwrap_or_default())
}

/// The rounds of jobs of these users that are queued now, in this order.
pub(super) async fn next_turns(
    tx: &DatabaseTransaction,
    owners: &[Uuid],
) -> Result<Vec<i64>, DbErr> {
    let turn = Expr::col((queue(), Column::Turn));
    let present = select(turn.clone().min());
    let own = select(turn.max().add(1))
        .and_where(Expr::col((queue(), Column::UserId)).equals((user::Entity, user::Column::Id)))
        .take();
    let of = |query: SelectStatement| Func::coalesce([subquery(query), Expr::value(0)]).into();
    let next: Vec<(Uuid, i64)> = user::Entity::find()
        .select_only()
        .column(user::Column::Id)
        .expr(Func::greatest([of(present), of(own)]))
        .filter(user::Column::Id.is_in(owners.iter().copied()))
        .into_tuple()
        .all(tx)
        .await?;
    let mut next: HashMap<Uuid, i64> = next.into_iter().collect();
    let turn = |owner: &Uuid| {
        let next = next.entry(*owner).or_default();
        *next += 1;
        *next - 1
    };
    Ok(owners.iter().map(turn).collect())
}

/// Gives a round to up to `limit` jobs whose next attempt is due.
pub(super) async fn promote_due_retries(tx: &DatabaseTransaction, limit: u64) -> Result<(), DbErr> {
    let due = Entity::find()
        .filter(Expr::cust(DELAYED))
        .filter(Expr::col(Column::NextAttemptAt).lte(db_now(tx.get_database_backend())))
        .order_by_asc(Column::NextAttemptAt)
        .limit(limit)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
    for due in due.all(tx).await? {
        let turn = next_turn(tx, due.user_id).await?;
        Entity::update_many()
            .col_expr(Column::NextAttemptAt, sql_null())
            .col_expr(Column::Turn, Expr::value(turn))
            .filter(Column::Id.eq(due.id))
            .exec(tx)
            .await?;
    }
    Ok(())
}

/// Locks the next jobs, up to `limit`, and returns their ids; skips those that others are claiming.
/// None while the queue is paused.
pub(super) async fn next_jobs(tx: &DatabaseTransaction, limit: u64) -> Result<Vec<Uuid>, DbErr> {
    let next = select(Expr::col((queue(), Column::Id)))
        .and_where(Expr::cust(NOT_PAUSED))
        .order_by((queue(), Column::Turn), sea_orm::Order::Asc)
        .order_by((queue(), Column::Id), sea_orm::Order::Asc)
        .limit(limit)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .take();
    let rows = tx.query_all(&next).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

fn queue() -> Alias {
    Alias::new("queue")
}

fn select(what: impl Into<SimpleExpr>) -> SelectStatement {
    Query::select()
        .expr(what)
        .from_as(Entity, queue())
        .and_where(Expr::cust(READY))
        .take()
}

fn subquery(query: SelectStatement) -> SimpleExpr {
    SimpleExpr::SubQuery(None, Box::new(query.into()))
}
