//! Noticing that the database has changed, without asking it a real question.

use std::time::Duration;

use sea_orm::DbBackend;
use sqlx::sqlite::SqlitePool;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::database::Database;

/// SQLite counts the commits of others for each connection, so looking costs
/// microseconds: <https://www.sqlite.org/pragma.html#pragma_data_version>.
const SQLITE_LOOK: Duration = Duration::from_millis(10);

/// On Postgres a change is assumed this often.
const POSTGRES_TICK: Duration = Duration::from_millis(200);

/// Tells when something may have been committed, by any process. Clones are
/// cheap and each is told once.
#[derive(Clone, Debug)]
pub struct Changes(watch::Receiver<()>);

impl Changes {
    /// Starts to look, until the last clone is dropped.
    pub fn watch(db: &Database) -> Self {
        let (tell, told) = watch::channel(());
        match db.backend() {
            DbBackend::Postgres => tokio::spawn(tick(tell)),
            _ => tokio::spawn(look(db.write().get_sqlite_connection_pool().clone(), tell)),
        };
        Changes(told)
    }

    /// Waits for a commit later than the one that was told last.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The watcher is gone only when the runtime is.
            std::future::pending::<()>().await;
        }
    }
}

async fn tick(tell: watch::Sender<()>) {
    let mut ticks = interval(POSTGRES_TICK);
    while !tell.is_closed() {
        ticks.tick().await;
        tell.send_replace(());
    }
}

async fn look(pool: SqlitePool, tell: watch::Sender<()>) {
    // A connection of its own: the count moves only for the commits of others.
    let options = pool.connect_options().as_ref().clone().read_only(true);
    while !tell.is_closed() {
        let error = match look_until_error(&options, &tell).await {
            Ok(()) => return,
            Err(error) => error,
        };
        tracing::warn!(%error, "can't watch the database for changes; trying again");
        tell.send_replace(());
        sleep(Duration::from_secs(1)).await;
    }
}

async fn look_until_error(
    options: &sqlx::sqlite::SqliteConnectOptions,
    tell: &watch::Sender<()>,
) -> Result<(), sqlx::Error> {
    use sqlx::ConnectOptions;
    let mut connection = options.connect().await?;
    let mut last: i64 = -1;
    let mut looks = interval(SQLITE_LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !tell.is_closed() {
        looks.tick().await;
        let version: i64 = sqlx::query_scalar("PRAGMA data_version")
            .fetch_one(&mut connection)
            .await?;
        if version != last {
            last = version;
            tell.send_replace(());
        }
    }
    Ok(())
}
