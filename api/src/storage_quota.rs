//! Storage quotas.

use std::collections::HashMap;

use entity::post::Usage;
use entity::{idempotency, post, post_revision, user};
use sea_orm::{DatabaseTransaction, DbErr};
use uuid::Uuid;

use crate::config::Config;
use crate::error::{Error, Result};

/// How many posts, and bytes of content in them, a user may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StorageQuota {
    posts: i64,
    bytes: i64,
}

/// The setting for no limit.
const UNLIMITED: u64 = 0;

impl StorageQuota {
    pub(crate) fn new(config: &Config) -> Self {
        let limit = |setting: u64| match setting {
            UNLIMITED => i64::MAX,
            limit => i64::try_from(limit).unwrap_or(i64::MAX),
        };
        StorageQuota {
            posts: limit(config.user_max_posts.into()),
            bytes: limit(config.user_max_bytes),
        }
    }

    fn is_unlimited(&self) -> bool {
        self.posts == i64::MAX && self.bytes == i64::MAX
    }

    /// What users have stored, to be checked with [`StorageQuota::take`], in `tx`, in which their rows
    /// are locked.
    pub(crate) async fn usage(
        &self,
        tx: &DatabaseTransaction,
        users: impl IntoIterator<Item = Uuid>,
    ) -> Result<HashMap<Uuid, Usage>, DbErr> {
        if self.is_unlimited() {
            return Ok(HashMap::new());
        }
        let usage = post::Entity::usage(tx, users).await?.into_iter();
        Ok(usage.map(|usage| (usage.user, usage)).collect())
    }

    /// Takes room for a new post with sources of so many bytes; none of a user whose `usage` is not
    /// known, since nothing is limited.
    pub(crate) fn take(&self, usage: Option<&mut Usage>, sources: i64) -> Result<()> {
        let Some(usage) = usage else { return Ok(()) };
        check(usage.posts < self.posts && usage.bytes + sources < self.bytes)?;
        usage.posts += 1;
        usage.bytes += sources;
        Ok(())
    }

    /// Checks whether more text may be generated for existing posts, in `tx`, in which the user's
    /// row is locked. Responses stored for replays hold copies of posts, and count; revisions give
    /// way.
    pub(crate) async fn allows_text(&self, tx: &DatabaseTransaction, user: Uuid) -> Result<()> {
        if self.bytes == i64::MAX {
            return Ok(());
        }
        let posts = stored_bytes(tx, user).await?;
        let answers = idempotency::Entity::stored_bytes(tx, user).await?;
        let room = self.bytes.saturating_sub(posts.saturating_add(answers));
        check(room > 0)?;
        Ok(post_revision::Entity::trim(tx, user, room).await?)
    }

    /// Locks the row of a user who is about to change a post: users are locked before posts.
    pub(crate) async fn lock_user(&self, tx: &DatabaseTransaction, user: Uuid) -> Result<()> {
        if !self.is_unlimited() {
            user::Entity::lock_for_quota(tx, user).await?;
        }
        Ok(())
    }

    /// Checks a new text of a post, which has just been stored in `tx`, in which the user's row is
    /// locked. It may always be shorter than the one before. Revisions give way to it, the oldest
    /// first.
    pub(crate) async fn allows_edit(
        &self,
        tx: &DatabaseTransaction,
        user: Uuid,
        growth: i64,
    ) -> Result<()> {
        if self.bytes == i64::MAX {
            return Ok(());
        }
        let texts = stored_bytes(tx, user).await?;
        check(growth <= 0 || texts <= self.bytes)?;
        let room = (self.bytes - texts).max(0);
        Ok(post_revision::Entity::trim(tx, user, room).await?)
    }
}

/// The bytes of a user's posts and their sources.
async fn stored_bytes(tx: &DatabaseTransaction, user: Uuid) -> Result<i64, DbErr> {
    let usage = post::Entity::usage(tx, [user]).await?;
    Ok(usage.first().map_or(0, |usage| usage.bytes))
}

fn check(is_within: bool) -> Result<()> {
    if is_within {
        Ok(())
    } else {
        Err(Error::StorageQuotaExceeded)
    }
}
