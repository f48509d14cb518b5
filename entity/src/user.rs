//! Users.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{LockBehavior, LockType};
use sea_orm::{DatabaseTransaction, QueryOrder, QuerySelect};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;

/// A row of `users`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "users")]
pub struct Model {
    /// A UUIDv7.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The name as the user wrote it.
    pub username: String,
    /// The name in lower case, by which it is unique.
    #[sea_orm(unique)]
    pub username_key: String,
    /// An argon2id hash, in the PHC string format.
    pub password_hash: String,
    /// The user's role.
    pub role: Role,
    /// When the account was disabled, if it is.
    pub disabled_at: Option<Timestamp>,
    /// When the account was created.
    pub created_at: Timestamp,
}

/// A user's role.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, Deserialize, ToSchema,
)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::None)",
    rename_all = "snake_case"
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Owns posts.
    User,
    /// Also administers the service.
    Admin,
}

impl ActiveModelBehavior for ActiveModel {}

/// The form of a name in which it is unique, regardless of case.
pub fn username_key(username: &str) -> String {
    username.to_ascii_lowercase()
}

impl Model {
    /// Whether the user is an admin, and not disabled.
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin && self.disabled_at.is_none()
    }
}

impl Entity {
    /// The user of that name, regardless of case.
    pub fn find_by_username(username: &str) -> Select<Entity> {
        Entity::find().filter(Column::UsernameKey.eq(username_key(username)))
    }

    /// Locks a user's row against changes until `tx` ends.
    pub async fn lock_for_update(
        tx: &DatabaseTransaction,
        id: Uuid,
    ) -> Result<Option<Model>, DbErr> {
        Entity::find_by_id(id).lock_exclusive().one(tx).await
    }

    /// Locks a user's row against this same lock until `tx` ends: of two transactions that count
    /// what the user has, the second sees what the first has inserted. Rows that refer to the user
    /// may be inserted meanwhile; a stronger lock would deadlock with a transaction that has
    /// inserted one and then waits for this lock.
    pub async fn lock_for_quota(
        tx: &DatabaseTransaction,
        id: Uuid,
    ) -> Result<Option<Model>, DbErr> {
        let user = Entity::find_by_id(id).lock(LockType::NoKeyUpdate);
        user.one(tx).await
    }

    /// As [`Entity::lock_for_quota`], for several users in the order of their ids. With `fail_fast`
    /// it fails if another transaction holds one of them.
    pub async fn lock_all_for_quota(
        tx: &DatabaseTransaction,
        ids: impl IntoIterator<Item = Uuid>,
        fail_fast: bool,
    ) -> Result<Vec<Model>, DbErr> {
        let users = Entity::find().filter(Column::Id.is_in(ids));
        let users = users.order_by_asc(Column::Id);
        let users = match fail_fast {
            true => users.lock_with_behavior(LockType::NoKeyUpdate, LockBehavior::Nowait),
            false => users.lock(LockType::NoKeyUpdate),
        };
        users.all(tx).await
    }

    /// Locks the rows of a user and of all admins against changes until `tx` ends; a user who is
    /// becoming an admin at the same time may be missing.
    ///
    /// A transaction that removes an admin begins with this: of two concurrent ones, the second
    /// sees the admins that the first has left. All callers lock in the order of ids, so that they
    /// do not deadlock.
    pub async fn lock_with_admins(tx: &DatabaseTransaction, id: Uuid) -> Result<Vec<Model>, DbErr> {
        let admins: Vec<Uuid> = Entity::find()
            .select_only()
            .column(Column::Id)
            // A literal, for the partial index.
            .filter(Expr::cust("role = 'admin'"))
            .into_tuple()
            .all(tx)
            .await?;
        Entity::find()
            .filter(Column::Id.is_in(admins.into_iter().chain([id])))
            .order_by_asc(Column::Id)
            .lock_exclusive()
            .all(tx)
            .await
    }
}
