//! The line of jobs that wait to be taken, and its order.
//!
//! In each turn every user who waits has one job taken. A job gets its turn
//! when it joins the line: the one after its owner's last, or the one that is
//! being served if the owner has none in line. So a user with a thousand jobs
//! in line holds up nobody by more than one job a turn. Nothing is remembered
//! of users who have left the line.
//!
//! A job that waits for `next_attempt_at` is not in line; it joins when it is
//! due, behind its owner's others. One that was taken and came back, because
//! its worker stopped or was lost, has kept its turn.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Alias, Func, LockBehavior, LockType, Query, SelectStatement, SimpleExpr};
use sea_orm::{DatabaseTransaction, ExprTrait, QueryOrder, QuerySelect};

use super::null;
use crate::clock::db_now;
use crate::job::{Column, Entity};
use crate::queue_state::NOT_PAUSED;

/// Written out, as the partial indexes have it.
const IN_LINE: &str = "line.status = 'queued' AND line.next_attempt_at IS NULL";
const DELAYED: &str = "status = 'queued' AND next_attempt_at IS NOT NULL";

/// The turn of a job that joins the line.
pub(super) async fn next_turn(tx: &DatabaseTransaction, user: Uuid) -> Result<i64, DbErr> {
    let turn = Expr::col((line(), Column::Turn));
    let served = select(turn.clone().min());
    let own = select(turn.max().add(1))
        .and_where(Expr::col((line(), Column::UserId)).eq(user))
        .take();
    let of = |query: SelectStatement| Func::coalesce([subquery(query), Expr::value(0)]).into();
    let next = Query::select()
        .expr(Func::greatest([of(served), of(own)]))
        .take();
    let row = tx.query_one(&next).await?;
    row.map_or(Ok(0), |row| row.try_get_by_index(0))
}

/// Lets jobs whose next attempt is due join the line, as many as are to be
/// taken.
pub(super) async fn join_due(tx: &DatabaseTransaction, most: u64) -> Result<(), DbErr> {
    let due = Entity::find()
        .filter(Expr::cust(DELAYED))
        .filter(Expr::col(Column::NextAttemptAt).lte(db_now(tx.get_database_backend())))
        .order_by_asc(Column::NextAttemptAt)
        .limit(most)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
    for due in due.all(tx).await? {
        let turn = next_turn(tx, due.user_id).await?;
        Entity::update_many()
            .col_expr(Column::NextAttemptAt, null())
            .col_expr(Column::Turn, Expr::value(turn))
            .filter(Column::Id.eq(due.id))
            .exec(tx)
            .await?;
    }
    Ok(())
}

/// The ids of the jobs whose turn it is, up to `most`, locked; those that others
/// are taking are passed over. None while the queue is paused.
pub(super) async fn first(tx: &DatabaseTransaction, most: u64) -> Result<Vec<Uuid>, DbErr> {
    let first = select(Expr::col((line(), Column::Id)))
        .and_where(Expr::cust(NOT_PAUSED))
        .order_by((line(), Column::Turn), sea_orm::Order::Asc)
        .order_by((line(), Column::Id), sea_orm::Order::Asc)
        .limit(most)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .take();
    let rows = tx.query_all(&first).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

fn line() -> Alias {
    Alias::new("line")
}

fn select(what: impl Into<SimpleExpr>) -> SelectStatement {
    Query::select()
        .expr(what)
        .from_as(Entity, line())
        .and_where(Expr::cust(IN_LINE))
        .take()
}

fn subquery(query: SelectStatement) -> SimpleExpr {
    SimpleExpr::SubQuery(None, Box::new(query.into()))
}
