//! Sign-ins. Every access token names one, and is worth as much as it.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::SimpleExpr;
use sea_orm::{DeleteMany, QueryOrder, QuerySelect, QueryTrait};

use crate::clock::{Timestamp, now};

/// A row of `sessions`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "sessions")]
pub struct Model {
    /// UUIDv7.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// When its owner signed in.
    pub created_at: Timestamp,
    /// When it was last refreshed.
    pub last_used_at: Timestamp,
    /// When it ends unless it is refreshed.
    pub expires_at: Timestamp,
    /// When it was ended before its time.
    pub revoked_at: Option<Timestamp>,
    /// The client, as it named itself at sign-in.
    pub user_agent: Option<String>,
    /// The address that the sign-in came from.
    pub ip: Option<String>,
    /// The user.
    #[sea_orm(belongs_to, from = "user_id", to = "id")]
    pub user: HasOne<super::user::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// Whether tokens of this session are still good.
    pub fn is_active(&self) -> bool {
        self.revoked_at.is_none() && self.expires_at > now()
    }
}

impl Entity {
    /// A user's sessions that are neither ended nor expired.
    pub fn active_of(user: Uuid) -> Select<Entity> {
        Entity::find()
            .filter(Column::UserId.eq(user))
            .filter(Column::RevokedAt.is_null())
            .filter(Column::ExpiresAt.gt(now()))
    }

    /// Ends one of a user's sessions; false if there is no such live session.
    pub async fn revoke(db: &impl ConnectionTrait, user: Uuid, id: Uuid) -> Result<bool, DbErr> {
        let done = set_revoked(user)
            .filter(Column::Id.eq(id))
            .filter(Column::ExpiresAt.gt(now()))
            .exec(db)
            .await?;
        Ok(done.rows_affected > 0)
    }

    /// Ends those of a user's live sessions that have not been used for longest,
    /// so that fewer than `most` are left.
    pub async fn enforce_limit(
        db: &impl ConnectionTrait,
        user: Uuid,
        most: u64,
    ) -> Result<(), DbErr> {
        let surplus = Entity::active_of(user)
            .order_by_desc(Column::LastUsedAt)
            .offset(most - 1);
        let Some(surplus) = surplus.one(db).await? else {
            return Ok(());
        };
        set_revoked(user)
            .filter(Column::LastUsedAt.lte(surplus.last_used_at))
            .exec(db)
            .await?;
        Ok(())
    }

    /// Ends all of a user's sessions, or all but one.
    pub async fn revoke_all(
        db: &impl ConnectionTrait,
        user: Uuid,
        keep: Option<Uuid>,
    ) -> Result<(), DbErr> {
        let mut all = set_revoked(user);
        if let Some(keep) = keep {
            all = all.filter(Column::Id.ne(keep));
        }
        all.exec(db).await?;
        Ok(())
    }
}

impl Entity {
    /// Removes up to `limit` sessions that ended before `before`, with their
    /// refresh tokens, and says how many.
    pub async fn delete_ended(
        db: &impl ConnectionTrait,
        before: Timestamp,
        limit: u64,
    ) -> Result<u64, DbErr> {
        let revoked = delete_batch(Column::RevokedAt.lt(before), limit);
        let expired = delete_batch(Column::ExpiresAt.lt(before), limit);
        let revoked = revoked.exec(db).await?.rows_affected;
        let expired = expired.exec(db).await?.rows_affected;
        Ok(revoked.max(expired))
    }
}

fn delete_batch(which: SimpleExpr, limit: u64) -> DeleteMany<Entity> {
    let ids = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(which)
        .limit(limit)
        .into_query();
    Entity::delete_many().filter(Column::Id.in_subquery(ids))
}

fn set_revoked(user: Uuid) -> sea_orm::UpdateMany<Entity> {
    Entity::update_many()
        .col_expr(Column::RevokedAt, Expr::value(now()))
        .filter(Column::UserId.eq(user))
        .filter(Column::RevokedAt.is_null())
}
