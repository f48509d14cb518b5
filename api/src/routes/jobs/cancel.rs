//! Canceling a job.

use axum::extract::State;
use axum::response::Response;
use sea_orm::QuerySelect;
use serde::Deserialize;
use shared::queue;
use utoipa::IntoParams;

use super::response::{Job, accepted};
use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};
use crate::extract::path::PathId;
use crate::extract::query::ValidatedQuery;
use crate::state::AppState;

/// How to cancel a job.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CancelJobQuery {
    /// Whether what was written by then becomes the post's text.
    #[serde(default)]
    keep: bool,
}

/// Cancel a job
///
/// A job that no worker holds is canceled at once. A running one is `canceling` until the worker has
/// stopped.
#[utoipa::path(
    post, path = "/jobs/{id}/cancel", tag = "jobs", operation_id = "cancel_job",
    params(("id" = Uuid, Path), CancelJobQuery),
    responses(
        (status = 202, body = Job),
        (status = 409, description = "The job has finished."),
    ),
)]
pub(crate) async fn cancel_job(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    ValidatedQuery(CancelJobQuery { keep }): ValidatedQuery<CancelJobQuery>,
) -> Result<Response> {
    let job = state
        .db
        .transaction(async move |tx| {
            let job = me.job(id).lock_exclusive();
            job.one(tx).await?.ok_or(Error::NotFound)?;
            queue::cancel(tx, id, keep).await?.ok_or(Error::JobFinished)
        })
        .await?;
    state.metrics.job_canceled(&job);
    accepted(&Job::load_one(state.db.read(), job).await?)
}
