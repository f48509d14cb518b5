//! Storage quotas.

use entity::{idempotency, post, post_revision, user};
use sea_orm::DatabaseTransaction;
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

    /// Checks the post that was just inserted in `tx`, in which the user's row is locked.
    pub(crate) async fn allows_post(&self, tx: &DatabaseTransaction, user: Uuid) -> Result<()> {
        if self.is_unlimited() {
            return Ok(());
        }
        let usage = post::Entity::usage(tx, user).await?;
        check(usage.posts <= self.posts && usage.bytes < self.bytes)
    }

    /// Checks whether more text may be generated for existing posts, in `tx`, in which the user's
    /// row is locked. Responses stored for replays hold copies of posts, and count; revisions give
    /// way.
    pub(crate) async fn allows_text(&self, tx: &DatabaseTransaction, user: Uuid) -> Result<()> {
        if self.bytes == i64::MAX {
            return Ok(());
        }
        let posts = post::Entity::usage(tx, user).await?.bytes;
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
        let texts = post::Entity::usage(tx, user).await?.bytes;
        check(growth <= 0 || texts <= self.bytes)?;
        let room = (self.bytes - texts).max(0);
        Ok(post_revision::Entity::trim(tx, user, room).await?)
    }
}

fn check(is_within: bool) -> Result<()> {
    if is_within {
        Ok(())
    } else {
        Err(Error::StorageQuotaExceeded)
    }
}
