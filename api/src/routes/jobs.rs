//! Jobs: how a post's writing goes.

use std::time::Duration;

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use entity::job;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, QueryFilter, QueryOrder, QuerySelect,
};
use serde::{Deserialize, Serialize};
use shared::queue::{self, RequestOrigin};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::AppState;
use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};
use crate::extract::idempotency::{IdempotencyKey, IdempotentResponse};
use crate::extract::query::{PathId, ValidatedQuery};
use crate::http_headers::{MAX_WAIT, content_etag, with_etag};
use crate::middleware::request_context::current_origin;
use crate::pagination::{CursorCodec, IdCursor, next_link_header, page_limit, split_page};
use crate::quota::Quota;

mod response;

pub(crate) use response::Job;

/// How soon it is worth asking again, in seconds.
const POLL_INTERVAL_SECONDS: &str = "1";

/// How long to wait for a change.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct GetJobQuery {
    /// Answer at the next change of `status` or `phase`, or after so many
    /// seconds; at once for who waits for very many jobs already.
    #[param(minimum = 0, maximum = 60)]
    wait: Option<u64>,
}

/// Which jobs to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListJobsQuery {
    status: Option<job::Status>,
    /// How many a page may have, by default 20.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(max_length = 500, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// A page of jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobPage {
    #[schema(max_items = 100)]
    items: Vec<Job>,
    /// Leads to the next page; null on the last one.
    next_cursor: Option<String>,
}

/// Get a job, or wait for it
#[utoipa::path(
    get, path = "/jobs/{id}", tag = "jobs", operation_id = "get_job",
    params(("id" = Uuid, Path), GetJobQuery),
    responses((status = 200, body = Job), (status = 304)),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    ValidatedQuery(GetJobQuery { wait }): ValidatedQuery<GetJobQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let mut job = find(state.db.read(), &me, id).await?;
    let enter = |patience| state.waits.try_acquire(me.user.id, patience);
    if let Some(place) = max_wait(wait)?.and_then(enter) {
        let before = (job.status, job.phase);
        let moved =
            |now: job::JobState| now.status.is_finished() || (now.status, now.phase) != before;
        place.wait_for(id, moved).await?;
        job = find(state.db.read(), &me, id).await?;
    }
    let job = Job::load_one(state.db.read(), job).await?;
    job_response(&headers, &job)
}

/// List one's jobs
#[utoipa::path(
    get, path = "/jobs", tag = "jobs", operation_id = "list_jobs",
    params(ListJobsQuery),
    responses((status = 200, body = JobPage)),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    me: CurrentUser,
    OriginalUri(uri): OriginalUri,
    ValidatedQuery(filter): ValidatedQuery<ListJobsQuery>,
) -> Result<(HeaderMap, Json<JobPage>)> {
    let limit = page_limit(filter.limit)?;
    let list = CursorCodec {
        keys: &state.keys,
        user: me.user.id,
        name: "jobs",
    };
    let mut jobs = job::Entity::owned_by(me.user.id)
        .order_by_desc(job::Column::Id)
        .limit(limit + 1);
    if let Some(status) = filter.status {
        jobs = jobs.filter(job::Column::Status.eq(status));
    }
    if let Some(cursor) = &filter.cursor {
        let after: IdCursor = list.decode(cursor)?;
        jobs = jobs.filter(job::Column::Id.lt(after.id));
    }
    let mut jobs = jobs.all(state.db.read()).await?;
    let last = split_page(&mut jobs, limit).map(|last| IdCursor { id: last.id });
    let next_cursor = last.map(|after| list.encode(&after)).transpose()?;
    let items = Job::load(state.db.read(), jobs).await?;
    let headers = next_link_header(&uri, next_cursor.as_deref());
    Ok((headers, Json(JobPage { items, next_cursor })))
}

/// Cancel a job
///
/// At once if it is queued. If it runs, it is `canceling` until the worker has
/// really stopped.
#[utoipa::path(
    post, path = "/jobs/{id}/cancel", tag = "jobs", operation_id = "cancel_job",
    params(("id" = Uuid, Path)),
    responses(
        (status = 202, body = Job),
        (status = 409, description = "The job is over.", body = crate::error::Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn cancel(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
) -> Result<Response> {
    let job = state
        .db
        .transaction(async move |tx| cancel_tx(tx, me, id).await)
        .await?;
    state.metrics.job_canceled(&job);
    accepted(&Job::load_one(state.db.read(), job).await?)
}

async fn cancel_tx(tx: &DatabaseTransaction, me: CurrentUser, id: Uuid) -> Result<job::Model> {
    lock_for_update(tx, &me, id).await?;
    queue::cancel(tx, id).await?.ok_or(Error::JobFinished)
}

/// Try a job again that failed or was canceled
///
/// It goes on from what it had finished. Only a post's latest job can be tried
/// again; otherwise regenerate the post.
#[utoipa::path(
    post, path = "/jobs/{id}/retry", tag = "jobs", operation_id = "retry_job",
    params(("id" = Uuid, Path), IdempotencyKey),
    responses(
        (status = 202, body = Job),
        (status = 409, description = "The job has succeeded or is not the latest, the post is being generated, \
            or the first request with this Idempotency-Key is under way.",
            body = crate::error::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn retry(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    key: IdempotencyKey,
) -> Result<IdempotentResponse> {
    let (once, origin) = (key.for_request(&me, &())?, current_origin());
    let db = state.db.clone();
    db.transaction(async move |tx| {
        once.execute_once(tx, retry_tx(tx, state, me, id, origin))
            .await
    })
    .await
}

async fn retry_tx(
    tx: &DatabaseTransaction,
    state: AppState,
    me: CurrentUser,
    id: Uuid,
    origin: RequestOrigin,
) -> Result<(Response, Uuid)> {
    let most = state.config.user_max_active_jobs;
    let room = queue::check_quota(tx, me.user.id, most).await?;
    let before = lock_for_update(tx, &me, id).await?;
    let attempts = state.config.job_max_attempts;
    let job = queue::retry(tx, &before, room, attempts, origin).await?;
    Quota::new(&state.config)
        .allows_text(tx, me.user.id)
        .await?;
    let post = job.post_id;
    Ok((accepted(&Job::load_one(tx, job).await?)?, post))
}

/// A job of one's own.
async fn find(db: &impl ConnectionTrait, me: &CurrentUser, id: Uuid) -> Result<job::Model> {
    let job = job::Entity::owned_by(me.user.id).filter(job::Column::Id.eq(id));
    job.one(db).await?.ok_or(Error::NotFound)
}

/// A job of one's own, which nobody else changes before `tx` ends.
async fn lock_for_update(
    tx: &DatabaseTransaction,
    me: &CurrentUser,
    id: Uuid,
) -> Result<job::Model> {
    let job = job::Entity::owned_by(me.user.id).filter(job::Column::Id.eq(id));
    job.lock_exclusive().one(tx).await?.ok_or(Error::NotFound)
}

/// A job under its tag, with a hint when to ask again.
pub(super) fn job_response(asked: &HeaderMap, job: &Job) -> Result<Response> {
    let body = serde_json::to_vec(job).map_err(|e| Error::Internal(e.to_string()))?;
    let tag = content_etag(&body);
    let mut headers = HeaderMap::new();
    let json = header::HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    set_retry_after(&mut headers, job);
    Ok(with_etag(asked, &tag, (headers, body)))
}

fn accepted(job: &Job) -> Result<Response> {
    let mut headers = HeaderMap::new();
    set_retry_after(&mut headers, job);
    Ok((StatusCode::ACCEPTED, headers, Json(job)).into_response())
}

/// Says when to ask again, while the job is not over.
pub(super) fn set_retry_after(headers: &mut HeaderMap, job: &Job) {
    if !job.status.is_finished() {
        let soon = header::HeaderValue::from_static(POLL_INTERVAL_SECONDS);
        headers.insert(header::RETRY_AFTER, soon);
    }
}

fn max_wait(wait: Option<u64>) -> Result<Option<Duration>> {
    let Some(seconds) = wait else { return Ok(None) };
    let patience = Duration::from_secs(seconds);
    if patience > MAX_WAIT {
        let message = format!("must be 0 to {}", MAX_WAIT.as_secs());
        return Err(Error::invalid("wait", "out_of_range", message));
    }
    Ok(Some(patience))
}
