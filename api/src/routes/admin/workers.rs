//! The workers, by their heartbeats.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use entity::worker::{self, WorkerStatus};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::current_user::AdminUser;
use crate::error::Result;
use crate::routes::timestamp;
use crate::state::AppState;

const MAX_WORKERS: u64 = 1_000;
const MAX_JOBS: u64 = 10_000;

/// All workers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WorkerList {
    /// The latest heartbeat first, up to 1,000.
    items: Vec<Worker>,
}

/// A worker, as it reports itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Worker {
    /// Unique for each start.
    name: String,
    /// The machine's name.
    host: String,
    /// The program's version.
    version: String,
    /// The kind of agent that it calls.
    agent: String,
    /// The default model; a job may name another.
    model: String,
    /// How many jobs it runs at once.
    concurrency: i32,
    #[serde(serialize_with = "timestamp")]
    started_at: DateTime<Utc>,
    #[serde(serialize_with = "timestamp")]
    last_seen_at: DateTime<Utc>,
    /// Whether there was a heartbeat in the last 15 seconds.
    alive: bool,
    /// The jobs that it runs.
    running_jobs: Vec<Uuid>,
}

/// List the workers
///
/// Each sends a heartbeat every 5 seconds, and is listed for a day after the last one.
#[utoipa::path(
    get, path = "/admin/workers", tag = "admin",
    responses((status = 200, body = WorkerList)),
)]
pub(crate) async fn list_workers(
    State(state): State<AppState>,
    _: AdminUser,
) -> Result<Json<WorkerList>> {
    let db = state.db.read();
    let mut running: HashMap<String, Vec<Uuid>> = HashMap::new();
    for job in worker::Entity::running_jobs(db, MAX_JOBS).await? {
        running.entry(job.worker).or_default().push(job.job_id);
    }
    let workers = worker::Entity::list(db, MAX_WORKERS).await?;
    let items = workers
        .into_iter()
        .map(|WorkerStatus { worker, alive }| Worker {
            running_jobs: running.remove(&worker.name).unwrap_or_default(),
            name: worker.name,
            host: worker.host,
            version: worker.version,
            agent: worker.agent,
            model: worker.model,
            concurrency: worker.concurrency,
            started_at: worker.started_at,
            last_seen_at: worker.seen_at,
            alive,
        });
    let items = items.collect();
    Ok(Json(WorkerList { items }))
}
