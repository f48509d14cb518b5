//! Whether workers are to take jobs: one row, which is always there.

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
    /// Since when no job is taken, if so.
    pub paused_at: Option<Timestamp>,
}

impl ActiveModelBehavior for ActiveModel {}

/// As a condition of who takes jobs.
pub const NOT_PAUSED: &str =
    "NOT EXISTS (SELECT 1 FROM queue_state WHERE id = 1 AND paused_at IS NOT NULL)";

impl Entity {
    /// Since when the queue is paused, if it is.
    pub async fn paused_at(db: &impl ConnectionTrait) -> Result<Option<Timestamp>, DbErr> {
        let state = Entity::find_by_id(1).one(db).await?;
        Ok(state.and_then(|state| state.paused_at))
    }

    /// From the commit on no job is taken; those that run go on. False if it was
    /// so before.
    pub async fn pause(tx: &impl ConnectionTrait) -> Result<bool, DbErr> {
        let paused = Entity::update_many()
            .col_expr(Column::PausedAt, db_now(tx.get_database_backend()))
            .filter(Column::PausedAt.is_null())
            .exec(tx)
            .await?;
        Ok(paused.rows_affected > 0)
    }

    /// Jobs are taken again. False if they were before.
    pub async fn resume(tx: &impl ConnectionTrait) -> Result<bool, DbErr> {
        let resumed = Entity::update_many()
            .col_expr(Column::PausedAt, Expr::cust("NULL"))
            .filter(Column::PausedAt.is_not_null())
            .exec(tx)
            .await?;
        Ok(resumed.rows_affected > 0)
    }
}
