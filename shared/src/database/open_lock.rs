//! Who has an SQLite database open: a lock on a file beside it, which each process holds shared for
//! as long as it may have connections, and a restore exclusively.
//!
//! SQLite's own locks do not say it: a pool may have no connection for a while, and then a process
//! that goes on would open another file than the one that it began with. Whoever takes the lock
//! first takes that of `lock_file`, so none waits for it. The system releases it when its process
//! dies, in whatever way.

use std::fs::{File, TryLockError};
use std::path::Path;

use anyhow::{Context, bail};

use crate::private_file;

/// The lock, until it is dropped.
#[derive(Debug)]
pub(super) struct OpenLock {
    _file: File,
}

impl OpenLock {
    /// The lock of a process that uses the database.
    pub(super) fn shared(database: &Path) -> anyhow::Result<Self> {
        let file = open(database)?;
        file.try_lock_shared()
            .with_context(|| format!("can't lock {}", database.display()))?;
        Ok(OpenLock { _file: file })
    }

    /// The lock of a process that replaces the database.
    ///
    /// # Errors
    /// If any process uses it.
    pub(super) fn exclusive(database: &Path) -> anyhow::Result<Self> {
        let file = open(database)?;
        match file.try_lock() {
            Ok(()) => Ok(OpenLock { _file: file }),
            Err(TryLockError::WouldBlock) => bail!(
                "{} is in use: stop all APIs and workers of this database first, and wait for \
                 commands such as `api backup`",
                database.display()
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("can't lock {}", database.display()))
            }
        }
    }
}

fn open(database: &Path) -> anyhow::Result<File> {
    private_file::open(&database.with_extension("open-lock"))
}
