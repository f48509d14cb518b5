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
const SQLITE_LOOK: Duration = Duration::from_millis(10);
const SQLITE_HEADER: usize = 48;

/// On Postgres a change is assumed this often.
const POSTGRES_TICK: Duration = Duration::from_millis(200);

/// Tells when something may have been committed, by any process. Nobody looks
/// while nobody waits. Clones are cheap, and each is told for itself.
#[derive(Clone, Debug)]
pub struct Changes {
    told: watch::Receiver<()>,
    waiting: Arc<Waiting>,
}

impl Changes {
    /// Watches a database until the last clone is dropped.
    pub fn watch(db: &Database) -> Self {
        let (tell, told) = watch::channel(());
        let waiting = Arc::new(Waiting::default());
        let watcher = Watcher {
            tell,
            waiting: waiting.clone(),
        };
        match db.backend() {
            DbBackend::Postgres => {
                tokio::spawn(watcher.tick());
            }
            _ => {
                let options = db.write().get_sqlite_connection_pool().connect_options();
                let mut index = options.get_filename().as_os_str().to_owned();
                index.push("-shm");
                let runtime = Handle::current();
                std::thread::spawn(move || watcher.look(&runtime, index.as_ref()));
            }
        }
        Changes { told, waiting }
    }

    /// Waits for a commit later than the one that was told last.
    pub async fn next(&mut self) {
        let _here = self.waiting.enter();
        if self.told.changed().await.is_err() {
            // The watcher is gone only when the runtime is.
            std::future::pending::<()>().await;
        }
    }
}

/// How many wait for a change.
#[derive(Debug, Default)]
struct Waiting {
    count: AtomicUsize,
    begun: Notify,
}

impl Waiting {
    fn enter(&self) -> impl Drop {
        struct Here<'a>(&'a Waiting);
        impl Drop for Here<'_> {
            fn drop(&mut self) {
                self.0.count.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.begun.notify_one();
        Here(self)
    }

    async fn someone(&self) {
        while self.count.load(Ordering::Relaxed) == 0 {
            self.begun.notified().await;
        }
    }
}

struct Watcher {
    tell: watch::Sender<()>,
    waiting: Arc<Waiting>,
}

impl Watcher {
    /// Waits until someone wants to know; false if nobody ever will.
    async fn is_wanted(&self) -> bool {
        tokio::select! {
            () = self.waiting.someone() => true,
            () = self.tell.closed() => false,
        }
    }

    async fn tick(self) {
        let mut ticks = interval(POSTGRES_TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.is_wanted().await {
            ticks.tick().await;
            self.tell.send_replace(());
        }
    }

    /// On a thread of its own: to wake a runtime costs more than to look.
    fn look(self, runtime: &Handle, index: &Path) {
        while let Err(error) = self.look_until_error(runtime, index) {
            tracing::warn!(%error, "can't watch the database for changes; trying again");
            // Something may have been missed.
            self.tell.send_replace(());
            sleep(Duration::from_secs(1));
        }
    }

    fn look_until_error(&self, runtime: &Handle, index: &Path) -> io::Result<()> {
        // It stays the same file as long as this process keeps a connection.
        let index = File::open(index)?;
        let mut last = [0; SQLITE_HEADER];
        while runtime.block_on(self.is_wanted()) {
            sleep(SQLITE_LOOK);
            let mut header = [0; SQLITE_HEADER];
            index.read_exact_at(&mut header, 0)?;
            if header != last {
                last = header;
                self.tell.send_replace(());
            }
        }
        Ok(())
    }
}
