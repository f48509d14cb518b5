//! Waiting for a job without asking again and again.

use std::time::Duration;

use entity::job;
use sea_orm::EntityTrait;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::AppState;
use crate::error::Result;

/// A busy database changes a hundred times a second. No one who waits for a job
/// needs to know so soon, and many may wait.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

/// Waits until a job is `done`, the time is over, or the API stops. Returns the
/// job as it stands then; None if it does not exist.
///
/// # Errors
/// When the database does not answer.
pub async fn for_job(
    state: &AppState,
    id: Uuid,
    patience: Duration,
    done: impl Fn(&job::Model) -> bool,
) -> Result<Option<job::Model>> {
    let deadline = Instant::now() + patience;
    let mut changes = state.changes.clone();
    loop {
        let job = job::Entity::find_by_id(id).one(state.db.read()).await?;
        let Some(job) = job else { return Ok(None) };
        if done(&job) || Instant::now() >= deadline || state.stop.is_cancelled() {
            return Ok(Some(job));
        }
        tokio::select! {
            _ = timeout_at(deadline, changes.next()) => {}
            () = state.stop.cancelled() => {}
        }
        sleep(LEAST_PAUSE).await;
    }
}
