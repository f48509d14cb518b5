//! Finding a user's own job.

use entity::job;
use sea_orm::{ColumnTrait, ConnectionTrait, DatabaseTransaction, QueryFilter, QuerySelect};
use uuid::Uuid;

use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};

pub(super) async fn find(
    db: &impl ConnectionTrait,
    me: &CurrentUser,
    id: Uuid,
) -> Result<job::Model> {
    let job = job::Entity::owned_by(me.user.id).filter(job::Column::Id.eq(id));
    job.one(db).await?.ok_or(Error::NotFound)
}

/// Nobody else changes the job before `tx` ends.
pub(super) async fn lock_for_update(
    tx: &DatabaseTransaction,
    me: &CurrentUser,
    id: Uuid,
) -> Result<job::Model> {
    let job = job::Entity::owned_by(me.user.id).filter(job::Column::Id.eq(id));
    job.lock_exclusive().one(tx).await?.ok_or(Error::NotFound)
}
