//! How much one user may store.

use entity::{post, user};
use sea_orm::DatabaseTransaction;
use uuid::Uuid;

use crate::config::Config;
use crate::error::{Error, Result};

/// The most posts, and bytes of content in them, that one user may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota {
    posts: i64,
    bytes: i64,
}

/// As a setting, this stands for any number.
const UNLIMITED: u64 = 0;

impl Quota {
    pub(crate) fn new(config: &Config) -> Self {
        let limit = |setting: u64| match setting {
            UNLIMITED => i64::MAX,
            limit => i64::try_from(limit).unwrap_or(i64::MAX),
        };
        Quota {
            posts: limit(config.user_max_posts.into()),
            bytes: limit(config.user_max_bytes),
        }
    }

    fn is_unlimited(&self) -> bool {
        self.posts == i64::MAX && self.bytes == i64::MAX
    }

    /// Whether a user may have the post that was just stored in `tx`, in which the
    /// user's row is held.
    ///
    /// # Errors
    /// [`Error::StorageQuotaExceeded`] if not.
    pub(crate) async fn allows_post(&self, tx: &DatabaseTransaction, user: Uuid) -> Result<()> {
        if self.is_unlimited() {
            return Ok(());
        }
        let usage = post::Entity::usage(tx, user).await?;
        match usage.posts <= self.posts && usage.bytes < self.bytes {
            true => Ok(()),
            false => Err(Error::StorageQuotaExceeded),
        }
    }

    /// Whether a user may make the content of a post longer by `growth` bytes. What
    /// makes it shorter is always allowed. Holds the user's row until `tx` ends.
    ///
    /// # Errors
    /// [`Error::StorageQuotaExceeded`] if not.
    pub(crate) async fn allows_growth(
        &self,
        tx: &DatabaseTransaction,
        user: Uuid,
        growth: i64,
    ) -> Result<()> {
        if growth <= 0 || self.is_unlimited() {
            return Ok(());
        }
        user::Entity::hold_to_count(tx, user).await?;
        let usage = post::Entity::usage(tx, user).await?;
        match usage.bytes.saturating_add(growth) <= self.bytes {
            true => Ok(()),
            false => Err(Error::StorageQuotaExceeded),
        }
    }
}
