//! Refresh tokens, as hashes. Each is good for one use; a second use means that
//! two parties hold it, and ends the session.

use sea_orm::entity::prelude::*;
use sea_orm::{QuerySelect, QueryTrait};

use crate::clock::{Timestamp, now};
use crate::session;

/// A row of `refresh_tokens`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "refresh_tokens")]
pub struct Model {
    /// SHA-256 of the token, in hexadecimal. A token is 256 random bits, so a
    /// plain hash is enough.
    #[sea_orm(primary_key, auto_increment = false)]
    pub hash: String,
    /// The session it renews.
    pub session_id: Uuid,
    /// When it was handed out.
    pub created_at: Timestamp,
    /// When it was used.
    pub spent_at: Option<Timestamp>,
}

impl ActiveModelBehavior for ActiveModel {}

impl Entity {
    /// The session that a token renews, whether or not it was used.
    pub fn session_of(hash: &str) -> Select<session::Entity> {
        let token = Entity::find()
            .select_only()
            .column(Column::SessionId)
            .filter(Column::Hash.eq(hash))
            .into_query();
        session::Entity::find().filter(session::Column::Id.in_subquery(token))
    }

    /// Uses up a token; false if it was used before, or never existed. Of two
    /// at once, one wins.
    pub async fn consume(db: &impl ConnectionTrait, hash: &str) -> Result<bool, DbErr> {
        let spent = Entity::update_many()
            .col_expr(Column::SpentAt, Expr::value(now()))
            .filter(Column::Hash.eq(hash))
            .filter(Column::SpentAt.is_null())
            .exec(db)
            .await?;
        Ok(spent.rows_affected == 1)
    }

    /// Removes up to `limit` tokens that were spent before `before`, and says
    /// how many. A second use of one of them is no longer recognised as such.
    pub async fn delete_consumed(
        db: &impl ConnectionTrait,
        before: Timestamp,
        limit: u64,
    ) -> Result<u64, DbErr> {
        let spent = Entity::find()
            .select_only()
            .column(Column::Hash)
            .filter(Column::SpentAt.lt(before))
            .limit(limit)
            .into_query();
        let removed = Entity::delete_many()
            .filter(Column::Hash.in_subquery(spent))
            .exec(db)
            .await?;
        Ok(removed.rows_affected)
    }
}
