//! Noticing that the database has changed, without asking it a real question.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use sea_orm::DbBackend;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::database::Database;

/// SQLite's index of its log begins with a header that every commit changes, in
/// a file that all processes share. To look at it takes a microsecond:
/// <https://www.sqlite.org/walformat.html#the_wal_index_header>.
const SQLITE_POLL_INTERVAL: Duration = Duration::from_millis(10);
const WAL_INDEX_HEADER_LEN: usize = 48;

/// On Postgres a change is assumed this often.
const POSTGRES_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Tells when something may have been committed, by any process. Nobody looks
/// while nobody waits. Clones are cheap, and each is told for itself.
#[derive(Clone, Debug)]
pub struct ChangeWatcher {
    told: watch::Receiver<()>,
    waiting: Arc<WaiterCount>,
}

impl ChangeWatcher {
    /// Watches a database until the last clone is dropped.
    pub fn watch(db: &Database) -> Self {
        let (tell, told) = watch::channel(());
        let waiting = Arc::new(WaiterCount::default());
        let watcher = Poller {
            tell,
            waiting: waiting.clone(),
        };
        match db.backend() {
            DbBackend::Postgres => {
                tokio::spawn(watcher.poll_postgres());
            }
            _ => {
                let options = db
                    .raw_connection()
                    .get_sqlite_connection_pool()
                    .connect_options();
                let mut index = options.get_filename().as_os_str().to_owned();
                index.push("-shm");
                let runtime = Handle::current();
                std::thread::spawn(move || watcher.watch_sqlite_wal(&runtime, index.as_ref()));
            }
        }
        ChangeWatcher { told, waiting }
    }

    /// Waits for a commit later than the one that was told last.
    pub async fn changed(&mut self) {
        let _here = self.waiting.register();
        if self.told.changed().await.is_err() {
            // The watcher is gone only when the runtime is.
            std::future::pending::<()>().await;
        }
    }
}

/// How many wait for a change.
#[derive(Debug, Default)]
struct WaiterCount {
    count: AtomicUsize,
    begun: Notify,
}

impl WaiterCount {
    fn register(&self) -> impl Drop {
        struct WaiterGuard<'a>(&'a WaiterCount);
        impl Drop for WaiterGuard<'_> {
            fn drop(&mut self) {
                self.0.count.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.begun.notify_one();
        WaiterGuard(self)
    }

    async fn any_waiting(&self) {
        while self.count.load(Ordering::Relaxed) == 0 {
            self.begun.notified().await;
        }
    }
}

struct Poller {
    tell: watch::Sender<()>,
    waiting: Arc<WaiterCount>,
}

impl Poller {
    /// Waits until someone wants to know; false if nobody ever will.
    async fn is_wanted(&self) -> bool {
        tokio::select! {
            () = self.waiting.any_waiting() => true,
            () = self.tell.closed() => false,
        }
    }

    async fn poll_postgres(self) {
        let mut ticks = interval(POSTGRES_POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.is_wanted().await {
            ticks.tick().await;
            self.tell.send_replace(());
        }
    }

    /// On a thread of its own: to wake a runtime costs more than to look.
    fn watch_sqlite_wal(self, runtime: &Handle, index: &Path) {
        while let Err(error) = self.watch_until_error(runtime, index) {
            tracing::warn!(%error, "can't watch the database for changes; trying again");
            // Something may have been missed.
            self.tell.send_replace(());
            sleep(Duration::from_secs(1));
        }
    }

    fn watch_until_error(&self, runtime: &Handle, index: &Path) -> io::Result<()> {
        // It stays the same file as long as this process keeps a connection.
        let index = File::open(index)?;
        let mut last = [0; WAL_INDEX_HEADER_LEN];
        while runtime.block_on(self.is_wanted()) {
            sleep(SQLITE_POLL_INTERVAL);
            let mut header = [0; WAL_INDEX_HEADER_LEN];
            index.read_exact_at(&mut header, 0)?;
            if header != last {
                last = header;
                self.tell.send_replace(());
            }
        }
        Ok(())
    }
}
