//! Files that are for the service's user alone: password hashes and secrets are in
//! them, and the folder around them may be open to everyone.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;

/// The permissions of such a file: its owner reads and writes it.
pub const MODE: u32 = 0o600;

/// The permissions that nobody else may have.
const GROUP_AND_OTHERS: u32 = 0o077;

/// Opens a file for appending, and makes it if need be.
///
/// # Errors
/// When that can't be done, naming the file.
pub fn open(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(MODE)
        .open(path);
    let file = file.with_context(|| format!("can't make {}", path.display()))?;
    restrict_permissions(path);
    Ok(file)
}

/// Makes a file that is there already private, and says so in the log if it was
/// not, or can't be made so. Nothing is done if there is none.
pub fn restrict_permissions(path: &Path) {
    let Ok(metadata) = path.metadata() else {
        return;
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & GROUP_AND_OTHERS == 0 {
        return;
    }
    let (file, mode) = (path.display(), format!("{mode:o}"));
    match std::fs::set_permissions(path, Permissions::from_mode(MODE)) {
        Ok(()) => {
            tracing::warn!(%file, mode, "a private file was open to others; its mode is 600 now");
        }
        Err(error) => {
            tracing::warn!(%file, mode, %error, "a private file is open to others, and can't be closed");
        }
    }
}
