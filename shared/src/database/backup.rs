//! Copies an SQLite database to a file while it is in use.
//!
//! By `VACUUM INTO`, in one read transaction: the copy is the database as it was at one moment, and
//! on WAL no writer waits for it. SQLite's other way, the online backup, begins anew whenever
//! another process writes, and under load might never end. Meanwhile the WAL grows, since what the
//! transaction reads can't be overwritten. What was deleted is not in the copy.

use std::path::Path;

use anyhow::{Context, bail};

use super::draft::Draft;
use super::{Database, refuse_missing, sqlite_file};
use crate::config::StorageSettings;

/// Copies the database to `target`, a new file, and returns its size. The copy appears there
/// complete and checked, or not at all.
///
/// # Errors
/// On Postgres; if there is no database; if `target` exists or can't be written; if the copy is not
/// sound.
pub async fn backup(settings: &StorageSettings, target: &Path) -> anyhow::Result<u64> {
    let Some(database) = sqlite_file(settings)? else {
        bail!(
            "the database is on Postgres, and this command copies SQLite only: use pg_dump, as \
             docs/operations.md says under Backups"
        );
    };
    refuse_missing(settings, "set DATA_DIR or DATABASE_URL to those of the API")?;
    // Absolute, for SQLite would take a name that begins with `file:` for a URI.
    let target = std::path::absolute(target).context("the name of the new file")?;
    if target.symlink_metadata().is_ok() {
        bail!(
            "{} exists: a backup replaces no file, choose another name",
            target.display()
        );
    }
    let draft = Draft::beside(&target)?;
    let db = Database::open(settings).await?;
    let copied = copy(&db, draft.path()).await;
    db.close().await;
    copied.with_context(|| format!("can't copy {}", database.display()))?;
    draft
        .check()
        .await
        .context("the copy is damaged, and was deleted")?;
    draft.persist_new(&target)
}

async fn copy(db: &Database, target: &Path) -> anyhow::Result<()> {
    let target = target.to_str().context("its path is not UTF-8")?;
    let pool = db.raw_connection().get_sqlite_connection_pool();
    sqlx::query("VACUUM INTO ?")
        .bind(target)
        .execute(pool)
        .await?;
    Ok(())
}
