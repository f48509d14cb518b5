//! Keys with which programs act for users.

use chrono::TimeDelta;
use sea_orm::QueryOrder;
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::{Timestamp, now};

/// A row of `api_keys`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "api_keys")]
pub struct Model {
    /// UUIDv7, so that ids sort by age.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The owner, for whom it acts.
    pub user_id: Uuid,
    /// What the owner calls it.
    pub name: String,
    /// The beginning of the key, by which the owner knows it.
    pub prefix: String,
    /// The key's SHA-256, in hexadecimal. Unique.
    pub hash: String,
    /// The names of its [`Scope`]s, with spaces between them.
    pub scopes: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// From when on it is refused; null if it is valid until it is revoked.
    pub expires_at: Option<Timestamp>,
    /// The row of the user.
    #[sea_orm(belongs_to, from = "user_id", to = "id")]
    pub user: HasOne<super::user::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}

/// What a key is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ApiKeyScope)]
pub enum Scope {
    /// To read the owner's posts and jobs.
    Read,
    /// To change them, and to ask for new ones.
    Write,
    /// Administration, if the owner is an admin.
    Admin,
}

impl Scope {
    /// All scopes, in order.
    pub const ALL: [Scope; 3] = [Scope::Read, Scope::Write, Scope::Admin];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Write => "write",
            Scope::Admin => "admin",
        }
    }
}

/// How exactly the last use of a key is known.
const LAST_USE_PRECISION: TimeDelta = TimeDelta::minutes(1);

impl Model {
    /// What it is good for, in order.
    pub fn scopes(&self) -> Vec<Scope> {
        let has = |scope: &Scope| self.scopes.split(' ').any(|name| name == scope.name());
        Scope::ALL.into_iter().filter(has).collect()
    }

    /// Whether it has not expired.
    pub fn is_valid(&self) -> bool {
        self.expires_at.is_none_or(|expires| expires > now())
    }

    /// Whether its last use was so long ago that it is to be stored again.
    pub fn is_use_due(&self) -> bool {
        let last = self.last_used_at;
        last.is_none_or(|last| now() - last >= LAST_USE_PRECISION)
    }
}

impl Entity {
    /// A user's keys, the newest first.
    pub fn of_user(user: Uuid) -> Select<Entity> {
        Entity::find()
            .filter(Column::UserId.eq(user))
            .order_by_desc(Column::Id)
    }

    /// Deletes one of a user's keys; false if the user has no such key.
    pub async fn revoke(db: &impl ConnectionTrait, user: Uuid, id: Uuid) -> Result<bool, DbErr> {
        let key = Entity::delete_many()
            .filter(Column::UserId.eq(user))
            .filter(Column::Id.eq(id));
        Ok(key.exec(db).await?.rows_affected > 0)
    }

    /// Deletes the keys of all users, and returns how many there were.
    pub async fn revoke_everyones(db: &impl ConnectionTrait) -> Result<u64, DbErr> {
        Ok(Entity::delete_many().exec(db).await?.rows_affected)
    }

    /// Stores that a key was used now.
    pub async fn set_used(db: &impl ConnectionTrait, id: Uuid) -> Result<(), DbErr> {
        let used = Entity::update_many()
            .col_expr(Column::LastUsedAt, Expr::value(now()))
            .filter(Column::Id.eq(id));
        used.exec(db).await?;
        Ok(())
    }
}
