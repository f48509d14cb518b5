//! Finding a user's own post.

use entity::post;
use sea_orm::{ColumnTrait, ConnectionTrait, DatabaseTransaction, QueryFilter, QuerySelect};
use uuid::Uuid;

use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};

pub(super) async fn find(
    db: &impl ConnectionTrait,
    me: &CurrentUser,
    id: Uuid,
) -> Result<post::Model> {
    let post = post::Entity::owned_by(me.user.id).filter(post::Column::Id.eq(id));
    post.one(db).await?.ok_or(Error::NotFound)
}

/// Nobody else changes the post before `tx` ends.
pub(super) async fn lock_for_update(
    tx: &DatabaseTransaction,
    me: &CurrentUser,
    id: Uuid,
) -> Result<post::Model> {
    let post = post::Entity::owned_by(me.user.id).filter(post::Column::Id.eq(id));
    post.lock_exclusive().one(tx).await?.ok_or(Error::NotFound)
}
