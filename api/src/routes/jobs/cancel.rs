//! Canceling a job.

use axum::extract::State;
use axum::response::Response;
use sea_orm::QuerySelect;
use shared::queue;

use super::response::{Job, accepted};
use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};
use crate::extract::path::PathId;
use crate::state::AppState;

/// Cancel a job
///
/// A queued job is canceled at once. A running one is `canceling` until the worker has stopped.
#[utoipa::path(
    post, path = "/jobs/{id}/cancel", tag = "jobs", operation_id = "cancel_job",
    params(("id" = Uuid, Path)),
    responses(
        (status = 202, body = Job),
        (status = 409, description = "The job has finished."),
    ),
)]
pub(crate) async fn cancel_job(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
) -> Result<Response> {
    let job = state
        .db
        .transaction(async move |tx| {
            let job = me.job(id).lock_exclusive();
            job.one(tx).await?.ok_or(Error::NotFound)?;
            queue::cancel(tx, id).await?.ok_or(Error::JobFinished)
        })
        .await?;
    state.metrics.job_canceled(&job);
    accepted(&Job::load_one(state.db.read(), job).await?)
}
