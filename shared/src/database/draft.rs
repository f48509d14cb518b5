//! A database file that is not in its place yet.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::{TempDir, TempPath};

use crate::config::StorageSettings;
use crate::private_file;

/// A private file in a folder of its own, beside the place that it is for, so that moving it there
/// is one rename. All is deleted when this is dropped, with whatever SQLite has put beside it.
pub(super) struct Draft {
    folder: TempDir,
    /// As the settings name it.
    file: PathBuf,
}

impl Draft {
    /// An empty file.
    pub(super) fn beside(place: &Path) -> anyhow::Result<Self> {
        let beside = folder_of(place);
        let folder = tempfile::Builder::new()
            .prefix(".blog-draft-")
            .tempdir_in(beside)
            .with_context(|| format!("can't write to {}", beside.display()))?;
        let file = folder.path().join("blog.db");
        private_file::open(&file)?;
        Ok(Draft { folder, file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.file
    }

    /// The settings with which it is opened as a database.
    pub(super) fn settings(&self) -> StorageSettings {
        StorageSettings::new(None, self.folder.path())
    }

    /// Checks that it is a sound SQLite database, which nobody else has open.
    pub(super) async fn check(&self) -> anyhow::Result<()> {
        let mut connection = SqliteConnectOptions::new()
            .filename(&self.file)
            .connect()
            .await?;
        let faults = sqlx::query_scalar::<_, String>("PRAGMA integrity_check(3)")
            .fetch_all(&mut connection)
            .await?;
        connection.close().await?;
        if faults != ["ok"] {
            bail!("{}", faults.join("; "));
        }
        Ok(())
    }

    /// Moves it to a place where nothing is yet, and returns its size.
    pub(super) fn persist_new(&self, place: &Path) -> anyhow::Result<u64> {
        let failed = || format!("can't create {}", place.display());
        let size = self.sync().with_context(failed)?;
        let draft = TempPath::try_from_path(&self.file).with_context(failed)?;
        draft.persist_noclobber(place).with_context(failed)?;
        sync_folder_of(place).with_context(failed)?;
        Ok(size)
    }

    /// Moves it to a place, over what is there.
    pub(super) fn replace(&self, place: &Path) -> anyhow::Result<()> {
        let failed = || format!("can't replace {}", place.display());
        self.sync().with_context(failed)?;
        std::fs::rename(&self.file, place).with_context(failed)?;
        sync_folder_of(place).with_context(failed)
    }

    /// Waits until the disk has all of it. Returns its size.
    fn sync(&self) -> std::io::Result<u64> {
        let file = File::open(&self.file)?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    }
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Waits until the disk has the names of a folder's files.
pub(super) fn sync_folder_of(file: &Path) -> std::io::Result<()> {
    File::open(folder_of(file))?.sync_all()
}
