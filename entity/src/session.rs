//! Login sessions. Every access token names one, and is valid only while that session is active.

use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect, UpdateMany};

use crate::batch_delete::delete_selected;
use crate::clock::{Timestamp, now};

/// A row of `sessions`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "sessions")]
pub struct Model {
    /// A UUIDv7.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The user who logged in.
    pub user_id: Uuid,
    /// When the user logged in.
    pub created_at: Timestamp,
    /// When it was last refreshed.
    pub last_used_at: Timestamp,
    /// When it expires unless it is refreshed.
    pub expires_at: Timestamp,
    /// When it was ended early, by a logout for example.
    pub revoked_at: Option<Timestamp>,
    /// The client's `User-Agent` at login.
    pub user_agent: Option<String>,
    /// The client's IP address at login.
    pub ip: Option<String>,
    /// The row of the user.
    #[sea_orm(belongs_to, from = "user_id", to = "id")]
    pub user: HasOne<super::user::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// Whether the session is neither revoked nor expired.
    pub fn is_active(&self) -> bool {
        self.revoked_at.is_none() && self.expires_at > now()
    }
}

impl Entity {
    /// A user's sessions that are neither revoked nor expired.
    pub fn active_of(user: Uuid) -> Select<Entity> {
        Entity::find()
            .filter(Column::UserId.eq(user))
            .filter(Column::RevokedAt.is_null())
            .filter(Column::ExpiresAt.gt(now()))
    }

    /// Ends one of a user's sessions; false if the user has no such active session.
    pub async fn revoke(db: &impl ConnectionTrait, user: Uuid, id: Uuid) -> Result<bool, DbErr> {
        let session = set_revoked(user).filter(Column::Id.eq(id));
        let revoked = session.filter(Column::ExpiresAt.gt(now())).exec(db).await?;
        Ok(revoked.rows_affected > 0)
    }

    /// Ends a user's least recently used active sessions, so that fewer than `max` are left.
    pub async fn enforce_limit(
        db: &impl ConnectionTrait,
        user: Uuid,
        max: u64,
    ) -> Result<(), DbErr> {
        let by_use = Entity::active_of(user).order_by_desc(Column::LastUsedAt);
        if let Some(surplus) = by_use.offset(max - 1).one(db).await? {
            let surplus = Column::LastUsedAt.lte(surplus.last_used_at);
            set_revoked(user).filter(surplus).exec(db).await?;
        }
        Ok(())
    }

    /// Ends all of a user's sessions but `keep`.
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

    /// Ends the sessions of all users, and returns how many there were.
    pub async fn revoke_everyones(db: &impl ConnectionTrait) -> Result<u64, DbErr> {
        let all = Entity::update_many()
            .col_expr(Column::RevokedAt, Expr::value(now()))
            .filter(Column::RevokedAt.is_null())
            .filter(Column::ExpiresAt.gt(now()));
        Ok(all.exec(db).await?.rows_affected)
    }

    /// Deletes up to `limit` each of the sessions that were revoked and that expired before
    /// `before`, with their refresh tokens. Returns the larger of the two counts.
    pub async fn delete_ended(
        db: &impl ConnectionTrait,
        before: Timestamp,
        limit: u64,
    ) -> Result<u64, DbErr> {
        let mut deleted = 0;
        for ended in [Column::RevokedAt, Column::ExpiresAt] {
            let sessions = Entity::find().filter(ended.lt(before)).limit(limit);
            let batch = delete_selected(sessions, Column::Id).exec(db).await?;
            deleted = deleted.max(batch.rows_affected);
        }
        Ok(deleted)
    }
}

fn set_revoked(user: Uuid) -> UpdateMany<Entity> {
    Entity::update_many()
        .col_expr(Column::RevokedAt, Expr::value(now()))
        .filter(Column::UserId.eq(user))
        .filter(Column::RevokedAt.is_null())
}
