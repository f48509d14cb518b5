//! Noticing that the database has changed, without asking it a real question.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sea_orm::DbBackend;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::database::Database;

/// SQLite counts the commits of others for each connection, so a look costs
/// microseconds: <https://www.sqlite.org/pragma.html#pragma_data_version>.
const SQLITE_LOOK: Duration = Duration::from_millis(10);

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
            DbBackend::Postgres => tokio::spawn(watcher.tick()),
            _ => {
                // A connection of its own: the count moves only for the commits
                // of others.
                let options = db.write().get_sqlite_connection_pool().connect_options();
                let options = options.as_ref().clone().read_only(true);
                tokio::spawn(watcher.look(options))
            }
        };
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

    async fn look(self, options: SqliteConnectOptions) {
        while let Err(error) = self.look_until_error(&options).await {
            tracing::warn!(%error, "can't watch the database for changes; trying again");
            // Something may have been missed.
            self.tell.send_replace(());
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn look_until_error(&self, options: &SqliteConnectOptions) -> Result<(), sqlx::Error> {
        let mut connection = options.connect().await?;
        let mut last: i64 = -1;
        let mut looks = interval(SQLITE_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.is_wanted().await {
            looks.tick().await;
            let version: i64 = sqlx::query_scalar("PRAGMA data_version")
                .fetch_one(&mut connection)
                .await?;
            if version != last {
                last = version;
                self.tell.send_replace(());
            }
        }
        Ok(())
    }
}
