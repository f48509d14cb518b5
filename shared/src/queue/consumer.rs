//! Receives deliveries from apalis and hands each to a handler.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use apalis::prelude::{Data, TaskId, WorkerBuilder, WorkerBuilderExt};
use apalis_core::backend::ext::poll_strategy::{PollSnapshot, PollStrategy, PollWith};
use apalis_postgres::PostgresStorage;
use apalis_sqlite::SqliteStorage;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use sea_orm::DbBackend;
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::delivery::{Delivery, QUEUE};
use crate::change_watcher::ChangeWatcher;
use crate::database::Database;

/// How often apalis polls in any case: a delivery becomes due without a commit, and notifications
/// may be lost.
const FALLBACK_POLL_INTERVAL: Duration = Duration::from_millis(500);

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
const MISSED_HEARTBEATS: usize = 3;
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// How many connections to Postgres a worker opens for apalis: one listens, the others fetch and
/// send heartbeats.
pub const CONNECTIONS: u32 = 3;

/// Handles a delivery.
pub type Handler = Arc<dyn Fn(Delivery) -> BoxFuture<'static, ()> + Send + Sync>;

/// Receives deliveries and hands each to `handler`.
///
/// All handlers are polled in one task, so they must not block, and are dropped with it; a handler
/// with much to do spawns a task of its own and waits for it.
#[allow(missing_debug_implementations, reason = "a handler has none")]
pub struct Consumer {
    /// The database that has the queue.
    pub db: Database,
    /// Triggers a poll on SQLite.
    pub changes: ChangeWatcher,
    /// How many handlers run at once. No more deliveries are fetched than handlers are free, so
    /// that other workers get the rest.
    pub concurrency: usize,
    /// The worker's name, by which operators know it.
    pub name: String,
    /// Called for each delivery.
    pub handler: Handler,
}

impl Consumer {
    /// Receives deliveries until `stop`, and then drops handlers that still run. A database error
    /// ends apalis' worker, but not this: it starts another, under a new name, for apalis accepts
    /// no name twice.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let name = format!("{}-{}", self.name, ulid::Ulid::generate());
            let ended = match self.db.backend() {
                DbBackend::Postgres => until(&stop, self.run_postgres(&name)).await,
                _ => until(&stop, self.run_sqlite(&name)).await,
            };
            if stop.is_cancelled() {
                return;
            }
            let error = ended.err().unwrap_or_else(|| "it ended".to_owned());
            tracing::error!(error, "can't read the queue; trying again");
            tokio::select! {
                () = sleep(RESTART_DELAY) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    // `batch_size(1)`: while fetched tasks wait for a handler, apalis sends no heartbeat, and
    // others take its tasks for abandoned. No locks and no results: the row is deleted when the job
    // is claimed. A delivery that was fetched and not handled when the worker ended counts as
    // missing, and is inserted again.

    async fn run_sqlite(&self, name: &str) -> Result<(), String> {
        let config = apalis_sqlite::Config::default()
            .queue(QUEUE)
            .batch_size(1)
            .heartbeat_interval(HEARTBEAT_INTERVAL)
            .missed_heartbeats(MISSED_HEARTBEATS)
            .lock_tasks(false)
            .persist_results(false);
        let pool = self.db.raw_connection().get_sqlite_connection_pool();
        let storage = SqliteStorage::<Value>::new(pool).with_config(config);
        WorkerBuilder::new(name)
            .backend(PollWith::new(
                storage,
                PollTrigger::on_change(self.changes.clone()),
            ))
            .data(HandlerData(self.handler.clone()))
            .concurrency(self.concurrency)
            .build(handle)
            .run()
            .await
            .map_err(|e| e.to_string())
    }

    async fn run_postgres(&self, name: &str) -> Result<(), String> {
        let config = apalis_postgres::Config::default()
            .queue(QUEUE)
            .batch_size(1)
            .heartbeat_interval(HEARTBEAT_INTERVAL)
            .missed_heartbeats(MISSED_HEARTBEATS)
            .lock_tasks(false)
            .persist_results(false);
        // A pool of its own, which ends with it: sqlx leaves a transaction open whose `BEGIN` is
        // dropped before it returns, and the next user of that connection would never commit.
        let shared = self.db.raw_connection().get_postgres_connection_pool();
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(shared.options().get_acquire_timeout())
            .connect_lazy_with(shared.connect_options().as_ref().clone());
        let storage = PostgresStorage::<Value>::new(&pool).with_config(config);
        let worker = WorkerBuilder::new(name)
            .backend(PollWith::new(
                storage.with_pubsub(),
                PollTrigger::at_intervals(),
            ))
            .data(HandlerData(self.handler.clone()))
            .concurrency(self.concurrency)
            .build(handle);
        tokio::select! {
            ended = worker.run() => ended.map_err(|e| e.to_string()),
            // apalis would wait for its last query for ever.
            () = self.db.stalled() => Err("the database does not answer".to_owned()),
        }
    }
}

/// The payload is plain JSON for apalis: a row that apalis itself can't decode would end its
/// worker.
async fn handle(payload: Value, id: TaskId, data: Data<HandlerData>) {
    let payload = serde_json::from_value(payload).map_err(|e| e.to_string());
    let Data(HandlerData(handler)) = data;
    handler(Delivery {
        id: id.to_string(),
        payload,
    })
    .await;
}

/// apalis finds shared data by its type.
#[derive(Clone)]
struct HandlerData(Handler);

/// Ends apalis' worker at `stop` by dropping it. Its own shutdown leaves the current fetch unpolled
/// until the last handler has ended: it keeps our writing connection and, on SQLite, blocks all
/// other writers.
async fn until(
    stop: &CancellationToken,
    running: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    stop.run_until_cancelled(running).await.unwrap_or(Ok(()))
}

/// When apalis polls for deliveries.
///
/// apalis' own strategies stop waking it if they fire during a fetch. This one is asked at every
/// poll, and drained until it has registered its waker again.
struct PollTrigger(BoxStream<'static, ()>);

impl PollTrigger {
    fn at_intervals() -> Self {
        let mut ticks = interval(FALLBACK_POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        PollTrigger(
            stream::unfold(ticks, |mut ticks| async move {
                ticks.tick().await;
                Some(((), ticks))
            })
            .boxed(),
        )
    }

    fn on_change(changes: ChangeWatcher) -> Self {
        let changes = stream::unfold(changes, |mut changes| async move {
            changes.changed().await;
            Some(((), changes))
        });
        PollTrigger(stream::select(changes, Self::at_intervals().0).boxed())
    }
}

impl PollStrategy for PollTrigger {
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        let mut woken = false;
        while let Poll::Ready(Some(())) = self.0.poll_next_unpin(cx) {
            woken = true;
        }
        if woken {
            Poll::Ready(Some(()))
        } else {
            Poll::Pending
        }
    }
}
