//! Files that only the service's user may read: they contain password hashes and secrets, and the
//! folder around them may be open to everyone.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;

/// The mode of a private file: read and write for its owner.
pub const MODE: u32 = 0o600;

/// The permission bits that a private file must not have.
const GROUP_AND_OTHERS: u32 = 0o077;

/// Opens a private file for appending, and creates it if it does not exist.
pub fn open(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(MODE)
        .open(path);
    let file = file.with_context(|| format!("can't open or create {}", path.display()))?;
    restrict_permissions(path);
    Ok(file)
}

/// Makes an existing file private, and logs a warning if it was not, or can't be made so.
pub fn restrict_permissions(path: &Path) {
    let Ok(metadata) = path.metadata() else {
        return;
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & GROUP_AND_OTHERS == 0 {
        return;
    }
    let file = path.display();
    let mode = format!("{mode:o}");
    match std::fs::set_permissions(path, Permissions::from_mode(MODE)) {
        Ok(()) => {
            tracing::warn!(%file, mode, "a private file was open to others; set its mode to 600");
        }
        Err(error) => {
            tracing::warn!(%file, mode, %error, "can't restrict a private file that is open to others");
        }
    }
}
