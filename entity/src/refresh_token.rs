//! Refresh tokens, as hashes. Each can be used once: a second use means that two parties have it,
//! and ends the session. A browser may use one twice at once: its tabs share it, and an answer may be
//! lost on the way.

use chrono::TimeDelta;
use sea_orm::entity::prelude::*;
use sea_orm::{QuerySelect, QueryTrait};

use crate::batch_delete::delete_selected;
use crate::clock::{Timestamp, now};
use crate::session;

/// A row of `refresh_tokens`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "refresh_tokens")]
pub struct Model {
    /// SHA-256 of the token, in hexadecimal. A token is 256 random bits: a plain hash is enough.
    #[sea_orm(primary_key, auto_increment = false)]
    pub hash: String,
    /// The session that it renews.
    pub session_id: Uuid,
    /// When it was issued.
    pub created_at: Timestamp,
    /// When it was used.
    pub spent_at: Option<Timestamp>,
    /// The browser that has used it, as a hash; null if a program has.
    pub spent_by: Option<String>,
    /// When that browser used it once more.
    pub spent_again_at: Option<Timestamp>,
}

impl ActiveModelBehavior for ActiveModel {}

/// So long after its first use a browser may use a token once more.
const REUSE_WINDOW: TimeDelta = TimeDelta::seconds(10);

impl Entity {
    /// The session that a token renews, whether or not the token was used.
    pub fn session_of(hash: &str) -> Select<session::Entity> {
        let token = Entity::find()
            .select_only()
            .column(Column::SessionId)
            .filter(Column::Hash.eq(hash))
            .into_query();
        session::Entity::find().filter(session::Column::Id.in_subquery(token))
    }

    /// Marks a token as used, by `browser` if that is one; false if it was used already, or does not
    /// exist. Of two concurrent calls one returns true.
    pub async fn consume(
        db: &impl ConnectionTrait,
        hash: &str,
        browser: Option<&str>,
    ) -> Result<bool, DbErr> {
        let consumed = Entity::update_many()
            .col_expr(Column::SpentAt, Expr::value(now()))
            .col_expr(Column::SpentBy, Expr::value(browser))
            .filter(Column::Hash.eq(hash))
            .filter(Column::SpentAt.is_null())
            .exec(db)
            .await?;
        Ok(consumed.rows_affected == 1)
    }

    /// Whether `browser` may use once more the token that it has just used.
    pub async fn consume_again(
        db: &impl ConnectionTrait,
        hash: &str,
        browser: &str,
    ) -> Result<bool, DbErr> {
        let consumed = Entity::update_many()
            .col_expr(Column::SpentAgainAt, Expr::value(now()))
            .filter(Column::Hash.eq(hash))
            .filter(Column::SpentBy.eq(browser))
            .filter(Column::SpentAt.gt(now() - REUSE_WINDOW))
            .filter(Column::SpentAgainAt.is_null())
            .exec(db)
            .await?;
        Ok(consumed.rows_affected == 1)
    }

    /// Deletes up to `limit` tokens that were used before `before`, and returns how many. A second
    /// use of one of them is no longer recognized.
    pub async fn delete_consumed(
        db: &impl ConnectionTrait,
        before: Timestamp,
        limit: u64,
    ) -> Result<u64, DbErr> {
        let consumed = Entity::find()
            .filter(Column::SpentAt.lt(before))
            .limit(limit);
        let delete = delete_selected(consumed, Column::Hash);
        Ok(delete.exec(db).await?.rows_affected)
    }
}
