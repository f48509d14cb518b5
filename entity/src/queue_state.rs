//! The queue's pause switch: one row, which always exists.

use sea_orm::entity::prelude::*;

use crate::clock::{Timestamp, db_now};

/// The row of `queue_state`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "queue_state")]
pub struct Model {
    /// Always 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    /// When the queue was paused; null while it is not.
    pub paused_at: Option<Timestamp>,
}

impl ActiveModelBehavior for ActiveModel {}

/// The condition under which jobs may be claimed.
pub const NOT_PAUSED: &str =
    "NOT EXISTS (SELECT 1 FROM queue_state WHERE id = 1 AND paused_at IS NOT NULL)";

impl Entity {
    /// When the queue was paused, if it is.
    pub async fn paused_at(db: &impl ConnectionTrait) -> Result<Option<Timestamp>, DbErr> {
        let state = Entity::find_by_id(1).one(db).await?;
        Ok(state.and_then(|state| state.paused_at))
    }

    /// Stops claims from the commit on; running jobs go on. False if the queue was paused already.
    pub async fn pause(tx: &impl ConnectionTrait) -> Result<bool, DbErr> {
        let paused = Entity::update_many()
            .col_expr(Column::PausedAt, db_now(tx.get_database_backend()))
            .filter(Column::PausedAt.is_null())
            .exec(tx)
            .await?;
        Ok(paused.rows_affected > 0)
    }

    /// Allows claims again. False if the queue was not paused.
    pub async fn resume(tx: &impl ConnectionTrait) -> Result<bool, DbErr> {
        let resumed = Entity::update_many()
            .col_expr(Column::PausedAt, Expr::cust("NULL"))
            .filter(Column::PausedAt.is_not_null())
            .exec(tx)
            .await?;
        Ok(resumed.rows_affected > 0)
    }
}
