//! People who sign in.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::LockType;
use sea_orm::{DatabaseTransaction, QueryOrder, QuerySelect};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;

/// A row of `users`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "users")]
pub struct Model {
    /// UUIDv7.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The name as its owner wrote it.
    pub username: String,
    /// The name in lower case, by which it is unique.
    #[sea_orm(unique)]
    pub username_key: String,
    /// argon2id, in PHC's string format.
    pub password_hash: String,
    /// What the user may do.
    pub role: Role,
    /// Since when the account is disabled, if it is.
    pub disabled_at: Option<Timestamp>,
    /// When the account was made.
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
    /// Looks after the service as well.
    Admin,
}

impl ActiveModelBehavior for ActiveModel {}

/// The form of a name by which it is unique, whatever its case.
pub fn username_key(username: &str) -> String {
    username.to_ascii_lowercase()
}

impl Model {
    /// Whether the user may do what admins may.
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin && self.disabled_at.is_none()
    }
}

impl Entity {
    /// The user of that name, whatever its case.
    pub fn find_by_username(username: &str) -> Select<Entity> {
        Entity::find().filter(Column::UsernameKey.eq(username_key(username)))
    }

    /// A user's row, which nobody else changes before `tx` ends.
    pub async fn lock_for_update(
        tx: &DatabaseTransaction,
        id: Uuid,
    ) -> Result<Option<Model>, DbErr> {
        Entity::find_by_id(id).lock_exclusive().one(tx).await
    }

    /// A user's row, which until `tx` ends no one else holds so: of two who count what
    /// the user has, the second sees what the first has made. Rows that refer to the
    /// user may be made meanwhile; a stronger lock would wait for whoever has made
    /// one and in turn waits for this lock.
    pub async fn lock_for_quota(
        tx: &DatabaseTransaction,
        id: Uuid,
    ) -> Result<Option<Model>, DbErr> {
        let held = Entity::find_by_id(id).lock(LockType::NoKeyUpdate);
        held.one(tx).await
    }

    /// The rows of a user and of all admins, which nobody else changes before `tx`
    /// ends; who is made an admin at this moment may be missing.
    ///
    /// Whoever is about to take an admin away begins with this: of two who do so
    /// at once, the second finds what the first has left. They are held in the
    /// order of their ids, as all do it, so that no two wait for each other.
    pub async fn lock_with_admins(tx: &DatabaseTransaction, id: Uuid) -> Result<Vec<Model>, DbErr> {
        let admins: Vec<Uuid> = Entity::find()
            .select_only()
            .column(Column::Id)
            // Written out, for the partial index.
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
