//! What is left to do of a user who was disabled.

use sea_orm::entity::prelude::*;
use sea_orm::{DatabaseTransaction, ExprTrait, QueryOrder, QuerySelect, QueryTrait};

use super::UNFINISHED;
use crate::job::{Column, Entity};
use crate::user;

const NOT_CALLED_OFF: &str = "status <> 'canceling'";

/// A disabled user who has jobs that nobody has called off, if there is one.
pub async fn disabled_with_jobs(db: &impl ConnectionTrait) -> Result<Option<Uuid>, DbErr> {
    let jobs = Entity::find()
        .select_only()
        .expr(Expr::cust("1"))
        .filter(Expr::col((Entity, Column::UserId)).equals((user::Entity, user::Column::Id)))
        .filter(Expr::cust(UNFINISHED))
        .filter(Expr::cust(NOT_CALLED_OFF))
        .into_query();
    user::Entity::find()
        .select_only()
        .column(user::Column::Id)
        .filter(user::Column::DisabledAt.is_not_null())
        .filter(Expr::exists(jobs))
        .into_tuple()
        .one(db)
        .await
}

/// Up to `limit` of a user's jobs that are to be called off, which nobody else
/// changes before `tx` ends.
pub async fn hold_jobs(
    tx: &DatabaseTransaction,
    user: Uuid,
    limit: u64,
) -> Result<Vec<Uuid>, DbErr> {
    Entity::owned_by(user)
        .filter(Expr::cust(UNFINISHED))
        .filter(Expr::cust(NOT_CALLED_OFF))
        .order_by_asc(Column::Id)
        .limit(limit)
        .lock_exclusive()
        .select_only()
        .column(Column::Id)
        .into_tuple()
        .all(tx)
        .await
}
