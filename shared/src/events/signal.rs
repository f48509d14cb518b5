//! Tells the API processes that there are new events.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, DbErr};
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::change_watcher::ChangeWatcher;
use crate::database::Database;

const CHANNEL: &str = "blog_job_events";

const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// Notifies of new events. Clones are cheap, and each sees every notification.
#[derive(Clone, Debug)]
pub struct EventSignal {
    changes: ChangeWatcher,
    /// On Postgres, where changes are noticed late.
    notified: Option<watch::Receiver<()>>,
}

impl EventSignal {
    /// Listens until the last clone is dropped. `changes` are those of the same database.
    pub fn listen(db: &Database, changes: ChangeWatcher) -> Self {
        let notified = (db.backend() == DbBackend::Postgres).then(|| {
            let (notify, notified) = watch::channel(());
            tokio::spawn(listen(db.clone(), notify));
            notified
        });
        EventSignal { changes, notified }
    }

    /// Waits for events later than the last ones that this clone was notified of. It may be
    /// notified of none.
    pub async fn changed(&mut self) {
        let Some(notified) = &mut self.notified else {
            return self.changes.changed().await;
        };
        tokio::select! {
            // What is told without a notification, or while the listener has no connection.
            () = self.changes.changed() => {}
            Ok(()) = notified.changed() => {}
        }
    }
}

/// How many connections to Postgres an API opens for [`listen`].
pub const CONNECTIONS: u32 = 1;

async fn listen(db: Database, notify: watch::Sender<()>) {
    while !notify.is_closed() {
        tokio::select! {
            // The other way to notice changes works as long as the database does.
            error = listen_until_error(&db, &notify) => {
                tracing::debug!(%error, "can't listen for events; trying again");
            }
            () = notify.closed() => return,
        }
        sleep(RECONNECT_PAUSE).await;
    }
}

async fn listen_until_error(db: &Database, notify: &watch::Sender<()>) -> sqlx::Error {
    // Of its own: it would never come back to the pool.
    let options = db
        .raw_connection()
        .get_postgres_connection_pool()
        .connect_options();
    let connection = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with((*options).clone());
    let mut listener = match PgListener::connect_with(&connection).await {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    if let Err(error) = listener.listen(CHANNEL).await {
        return error;
    }
    loop {
        if let Err(error) = listener.recv().await {
            return error;
        }
        notify.send_replace(());
    }
}

/// Notifies the API processes when the transaction commits.
pub(crate) async fn notify(tx: &impl ConnectionTrait) -> Result<(), DbErr> {
    if tx.get_database_backend() == DbBackend::Postgres {
        tx.execute_unprepared("NOTIFY blog_job_events").await?;
    }
    Ok(())
}
