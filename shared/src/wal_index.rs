//! The header of SQLite's WAL index, which every commit changes, in a file that all processes share.
//! Reading it takes a microsecond: <https://www.sqlite.org/walformat.html#the_wal_index_header>.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sea_orm::DbBackend;

use crate::database::Database;

/// The index of an open SQLite database.
#[derive(Debug)]
pub struct WalIndex(
    // Not replaced as long as the process has a connection. Closing it would release SQLite's locks on
    // it, so it is kept as long as those.
    File,
);

/// Equal to another one if nothing was committed in between, by any process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalIndexHeader([u8; 48]);

impl WalIndex {
    /// Where that of a database is; None on Postgres.
    pub fn path(db: &Database) -> Option<PathBuf> {
        if db.backend() != DbBackend::Sqlite {
            return None;
        }
        let pool = db.raw_connection().get_sqlite_connection_pool();
        let options = pool.connect_options();
        let mut file = options.get_filename().as_os_str().to_owned();
        file.push("-shm");
        Some(file.into())
    }

    /// Opens that of a database which this process has open.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(WalIndex)
    }

    /// The header as it is now.
    pub fn header(&self) -> io::Result<WalIndexHeader> {
        let mut header = [0; 48];
        self.0.read_exact_at(&mut header, 0)?;
        Ok(WalIndexHeader(header))
    }
}
