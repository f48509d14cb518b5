//! The header of SQLite's WAL index, which every commit changes, in a file that all processes share.
//! Reading it takes a microsecond: <https://www.sqlite.org/walformat.html#the_wal_index_header>.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The index of a database that this process has open.
#[derive(Debug)]
pub struct WalIndex {
    path: PathBuf,
    /// Never closed: that would release the locks that SQLite has on this file in this process, and
    /// with them other processes would be let into the middle of a transaction.
    /// <https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_>
    file: Mutex<&'static File>,
}

/// Equal to another one if nothing was committed in between, by any process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalIndexHeader([u8; 48]);

impl WalIndex {
    /// Opens that of `database`, which a connection of this process must have used before.
    pub(crate) fn open(database: &Path) -> io::Result<Self> {
        // SQLite follows links, and has the index beside the file itself.
        let mut path = database.canonicalize()?.into_os_string();
        path.push("-shm");
        let path = PathBuf::from(path);
        Ok(WalIndex {
            file: Mutex::new(leak(&path)?),
            path,
        })
    }

    /// The header as it is now.
    ///
    /// # Errors
    /// When it can't be read. Then nothing is known of commits, until a call succeeds again.
    pub fn header(&self) -> io::Result<WalIndexHeader> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // SQLite deletes it when nobody has the database open, be it for a moment.
        if file.metadata()?.nlink() == 0 {
            *file = leak(&self.path)?;
        }
        let mut header = [0; 48];
        file.read_exact_at(&mut header, 0)?;
        Ok(WalIndexHeader(header))
    }
}

fn leak(path: &Path) -> io::Result<&'static File> {
    File::open(path).map(|file| &*Box::leak(Box::new(file)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use sea_orm::ConnectionTrait;

    use super::*;
    use crate::config::StorageSettings;
    use crate::database::Database;

    async fn database(folder: &Path) -> Database {
        let settings = StorageSettings::new(None, folder);
        Database::open(&settings).await.unwrap()
    }

    async fn commit(db: &Database, sql: &'static str) {
        db.transaction(async move |tx| tx.execute_unprepared(sql).await)
            .await
            .unwrap();
    }

    /// The locks of this process on a file, as Linux lists them.
    #[cfg(target_os = "linux")]
    fn locks(file: &Path) -> usize {
        let inode = format!(":{} ", file.metadata().unwrap().ino());
        let process = format!(" {} ", std::process::id());
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let ours = |lock: &&str| lock.contains(&inode) && lock.contains(&process);
        locks.lines().filter(ours).count()
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_index_that_is_dropped_releases_no_lock_of_sqlite() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(folder.path()).await;
        let file = folder.path().join("blog.db");
        let index = folder.path().join("blog.db-shm");
        let before = locks(&index);
        assert!(before > 0, "SQLite has no lock on {index:?}");
        drop(WalIndex::open(&file).unwrap());
        assert_eq!(locks(&index), before);
        db.close().await;
    }

    #[tokio::test]
    async fn every_commit_changes_the_header_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let (db, other) = (database(folder.path()).await, database(folder.path()).await);
        let index = db.wal_index().unwrap();
        commit(&other, "CREATE TABLE marks (mark INTEGER)").await;
        let mut last = index.header().unwrap();
        for _ in 0..3 {
            commit(&other, "INSERT INTO marks VALUES (1)").await;
            let header = index.header().unwrap();
            assert_ne!(header, last);
            last = header;
            db.read()
                .execute_unprepared("SELECT * FROM marks")
                .await
                .ok();
            assert_eq!(index.header().unwrap(), last);
        }
    }

    #[tokio::test]
    async fn the_index_of_a_link_is_that_of_its_file() {
        let (folder, links) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        database(folder.path()).await.close().await;
        let link = links.path().join("blog.db");
        symlink(folder.path().join("blog.db"), &link).unwrap();
        // Left behind by one who moved the database.
        std::fs::write(links.path().join("blog.db-shm"), [0; 100]).unwrap();
        let db = database(links.path()).await;
        let before = db.wal_index().unwrap().header().unwrap();
        commit(&db, "CREATE TABLE marks (mark INTEGER)").await;
        assert_ne!(db.wal_index().unwrap().header().unwrap(), before);
    }

    #[tokio::test]
    async fn an_index_that_was_deleted_is_looked_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = database(folder.path()).await;
        let index = first.wal_index().unwrap().clone();
        first.close().await;
        assert!(index.header().is_err(), "there is none");
        let second = database(folder.path()).await;
        let before = index.header().unwrap();
        commit(&second, "CREATE TABLE marks (mark INTEGER)").await;
        assert_ne!(index.header().unwrap(), before);
    }
}
