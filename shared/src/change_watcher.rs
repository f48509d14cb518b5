//! Watches the database for commits, without running queries.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::database::Database;
use crate::wal_index::WalIndex;

/// How often the header of SQLite's WAL index is read, which every commit changes.
const SQLITE_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How often a change is assumed on Postgres.
const POSTGRES_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Notifies of commits that any process may have made. It polls only while someone waits. Clones
/// are cheap, and each sees every change.
#[derive(Clone, Debug)]
pub struct ChangeWatcher {
    changes: watch::Receiver<()>,
    waiters: Arc<WaiterCount>,
}

impl ChangeWatcher {
    /// Watches a database until the last clone is dropped.
    pub fn watch(db: &Database) -> Self {
        let (notify, changes) = watch::channel(());
        let waiters = Arc::new(WaiterCount::default());
        let poller = Poller {
            notify,
            waiters: waiters.clone(),
        };
        match db.wal_index().cloned() {
            None => {
                tokio::spawn(poller.poll_postgres());
            }
            Some(index) => {
                let runtime = Handle::current();
                std::thread::spawn(move || poller.watch_sqlite_wal(&runtime, &index));
            }
        }
        ChangeWatcher { changes, waiters }
    }

    /// Waits for a commit later than the last one that this clone was notified of.
    pub async fn changed(&mut self) {
        let _guard = self.waiters.register();
        if self.changes.changed().await.is_err() {
            // The poller ends before its receivers only when the runtime does.
            std::future::pending::<()>().await;
        }
    }
}

/// How many callers wait for a change.
#[derive(Debug, Default)]
struct WaiterCount {
    count: AtomicUsize,
    first: Notify,
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
        self.first.notify_one();
        WaiterGuard(self)
    }

    async fn any_waiting(&self) {
        while self.count.load(Ordering::Relaxed) == 0 {
            self.first.notified().await;
        }
    }
}

struct Poller {
    notify: watch::Sender<()>,
    waiters: Arc<WaiterCount>,
}

impl Poller {
    /// Waits until someone waits for a change; false once the last watcher is dropped.
    async fn is_wanted(&self) -> bool {
        tokio::select! {
            () = self.waiters.any_waiting() => true,
            () = self.notify.closed() => false,
        }
    }

    async fn poll_postgres(self) {
        let mut ticks = interval(POSTGRES_POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.is_wanted().await {
            ticks.tick().await;
            self.notify.send_replace(());
        }
    }

    /// Runs on a thread of its own: waking the runtime would cost more than the read.
    fn watch_sqlite_wal(self, runtime: &Handle, index: &WalIndex) {
        let mut last = None;
        while runtime.block_on(self.is_wanted()) {
            sleep(SQLITE_POLL_INTERVAL);
            match index.header() {
                Ok(header) if Some(header) == last => continue,
                Ok(header) => last = Some(header),
                // Nobody has the database open any more: this process is about to end.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    last = None;
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "can't watch the database for changes; trying again");
                    sleep(Duration::from_secs(1));
                    // One may be missed.
                    last = None;
                }
            }
            self.notify.send_replace(());
        }
    }
}
