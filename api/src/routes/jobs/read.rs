//! Reading a job, and waiting for it to change.

use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use entity::job::JobState;
use serde::Deserialize;
use utoipa::IntoParams;

use super::response::{Job, job_response};
use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};
use crate::extract::path::PathId;
use crate::extract::query::ValidatedQuery;
use crate::http_headers::MAX_WAIT;
use crate::state::AppState;

/// How long to wait for a change.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct GetJobQuery {
    /// Respond at the next change of `status` or `phase`, or after so many seconds; at once if too
    /// many of your requests wait already.
    #[param(minimum = 0, maximum = 60)]
    wait: Option<u64>,
}

/// Get a job, or wait for it to change
#[utoipa::path(
    get, path = "/jobs/{id}", tag = "jobs",
    params(("id" = Uuid, Path), GetJobQuery),
    responses((status = 200, body = Job), (status = 304)),
)]
pub(crate) async fn get_job(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    ValidatedQuery(GetJobQuery { wait }): ValidatedQuery<GetJobQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let db = state.db.read();
    let mut job = me.job(id).one(db).await?.ok_or(Error::NotFound)?;
    let acquire = |max_wait| state.long_polls.try_acquire(me.user.id, max_wait);
    if let Some(permit) = max_wait(wait)?.and_then(acquire) {
        let before = (job.status, job.phase);
        let has_changed =
            |now: JobState| now.status.is_finished() || (now.status, now.phase) != before;
        permit.wait_for(id, has_changed).await?;
        job = me.job(id).one(db).await?.ok_or(Error::NotFound)?;
    }
    job_response(&headers, &Job::load_one(db, job).await?)
}

pub(super) fn max_wait(wait: Option<u64>) -> Result<Option<Duration>> {
    let Some(seconds) = wait else { return Ok(None) };
    let wait = Duration::from_secs(seconds);
    if wait > MAX_WAIT {
        let message = format!("must be 0 to {}", MAX_WAIT.as_secs());
        return Err(Error::invalid("wait", "out_of_range", message));
    }
    Ok(Some(wait))
}
