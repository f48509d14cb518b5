//! People who sign in.

use sea_orm::entity::prelude::*;

use crate::clock::Timestamp;

/// A row of `users`.
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

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::None)",
    rename_all = "snake_case"
)]
pub enum Role {
    /// Owns posts.
    User,
    /// Looks after the service as well.
    Admin,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
#[allow(missing_docs, reason = "the derive writes them")]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The form of a name by which it is unique, whatever its case.
pub fn username_key(username: &str) -> String {
    username.to_ascii_lowercase()
}

impl Entity {
    /// The user of that name, whatever its case.
    pub fn find_by_username(username: &str) -> Select<Entity> {
        Entity::find().filter(Column::UsernameKey.eq(username_key(username)))
    }
}
