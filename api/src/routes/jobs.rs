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
use crate::auth::SignedIn;
use crate::error::{Error, Result};
use crate::idempotency::{Answer, Key};
use crate::negotiate::{LONGEST_WAIT, content_tag, tagged};
use crate::observe::origin;
use crate::page::{After, List, cut, limit, link};
use crate::query::{Id, Params};
use crate::quota::Quota;

mod view;

pub use view::{Attempt, Job, JobError, Links, Outcome, Phase, Progress, Status, Usage};

/// How soon it is worth asking again, in seconds.
const RETRY_AFTER: &str = "1";

/// How long to wait for a change.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wait {
    /// Answer at the next change of `status` or `phase`, or after so many
    /// seconds; at once for who waits for very many jobs already.
    #[param(minimum = 0, maximum = 60)]
    wait: Option<u64>,
}

/// Which jobs to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    status: Option<Status>,
    /// How many a page may have, by default 20.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(max_length = 500, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// A page of jobs.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobPage {
    #[schema(max_items = 100)]
    items: Vec<Job>,
    /// Leads to the next page; null on the last one.
    next_cursor: Option<String>,
}

/// Get a job, or wait for it
#[utoipa::path(
    get, path = "/jobs/{id}", tag = "jobs", operation_id = "get_job",
    params(("id" = Uuid, Path), Wait),
    responses((status = 200, body = Job), (status = 304)),
)]
pub async fn get(
    State(state): State<AppState>,
    me: SignedIn,
    Id(id): Id,
    Params(Wait { wait }): Params<Wait>,
    headers: HeaderMap,
) -> Result<Response> {
    let mut job = find(state.db.read(), &me, id).await?;
    let enter = |patience| state.waits.enter(me.user.id, patience);
    if let Some(place) = patience(wait)?.and_then(enter) {
        let before = (job.status, job.phase);
        let moved = |now: job::State| now.status.is_over() || (now.status, now.phase) != before;
        place.wait_for(id, moved).await?;
        job = find(state.db.read(), &me, id).await?;
    }
    let job = Job::load_one(state.db.read(), job).await?;
    answer(&headers, &job)
}

/// List one's jobs
#[utoipa::path(
    get, path = "/jobs", tag = "jobs", operation_id = "list_jobs",
    params(Filter),
    responses((status = 200, body = JobPage)),
)]
pub async fn list(
    State(state): State<AppState>,
    me: SignedIn,
    OriginalUri(uri): OriginalUri,
    Params(filter): Params<Filter>,
) -> Result<(HeaderMap, Json<JobPage>)> {
    let limit = limit(filter.limit)?;
    let list = List {
        keys: &state.keys,
        user: me.user.id,
        name: "jobs",
    };
    let mut jobs = job::Entity::owned_by(me.user.id)
        .order_by_desc(job::Column::Id)
        .limit(limit + 1);
    if let Some(status) = filter.status {
        jobs = jobs.filter(job::Column::Status.eq(job::Status::from(status)));
    }
    if let Some(cursor) = &filter.cursor {
        let after: After = list.position(cursor)?;
        jobs = jobs.filter(job::Column::Id.lt(after.id));
    }
    let mut jobs = jobs.all(state.db.read()).await?;
    let last = cut(&mut jobs, limit).map(|last| After { id: last.id });
    let next_cursor = last.map(|after| list.cursor(&after)).transpose()?;
    let items = Job::load(state.db.read(), jobs).await?;
    let headers = link(&uri, next_cursor.as_deref());
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
pub async fn cancel(State(state): State<AppState>, me: SignedIn, Id(id): Id) -> Result<Response> {
    let job = state
        .db
        .transaction(async move |tx| call_off(tx, me, id).await)
        .await?;
    state.metrics.canceled(&job);
    accepted(&Job::load_one(state.db.read(), job).await?)
}

async fn call_off(tx: &DatabaseTransaction, me: SignedIn, id: Uuid) -> Result<job::Model> {
    hold(tx, &me, id).await?;
    queue::cancel(tx, id).await?.ok_or(Error::JobFinished)
}

/// Try a job again that failed or was canceled
///
/// It goes on from what it had finished. Only a post's latest job can be tried
/// again; otherwise regenerate the post.
#[utoipa::path(
    post, path = "/jobs/{id}/retry", tag = "jobs", operation_id = "retry_job",
    params(("id" = Uuid, Path), Key),
    responses(
        (status = 202, body = Job),
        (status = 409, description = "The job has succeeded or is not the latest, the post is being generated, \
            or the first request with this Idempotency-Key is under way.",
            body = crate::error::Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn retry(
    State(state): State<AppState>,
    me: SignedIn,
    Id(id): Id,
    key: Key,
) -> Result<Answer> {
    let (once, origin) = (key.of(&me, &())?, origin());
    let db = state.db.clone();
    db.transaction(async move |tx| once.protect(tx, try_again(tx, state, me, id, origin)).await)
        .await
}

async fn try_again(
    tx: &DatabaseTransaction,
    state: AppState,
    me: SignedIn,
    id: Uuid,
    origin: RequestOrigin,
) -> Result<(Response, Uuid)> {
    let most = state.config.user_max_active_jobs;
    let room = queue::check_quota(tx, me.user.id, most).await?;
    let before = hold(tx, &me, id).await?;
    let attempts = state.config.job_max_attempts;
    let job = queue::retry(tx, &before, room, attempts, origin).await?;
    Quota::new(&state.config)
        .allows_text(tx, me.user.id)
        .await?;
    let post = job.post_id;
    Ok((accepted(&Job::load_one(tx, job).await?)?, post))
}

/// A job of one's own.
async fn find(db: &impl ConnectionTrait, me: &SignedIn, id: Uuid) -> Result<job::Model> {
    let job = job::Entity::owned_by(me.user.id).filter(job::Column::Id.eq(id));
    job.one(db).await?.ok_or(Error::NotFound)
}

/// A job of one's own, which nobody else changes before `tx` ends.
async fn hold(tx: &DatabaseTransaction, me: &SignedIn, id: Uuid) -> Result<job::Model> {
    let job = job::Entity::owned_by(me.user.id).filter(job::Column::Id.eq(id));
    job.lock_exclusive().one(tx).await?.ok_or(Error::NotFound)
}

/// A job under its tag, with a hint when to ask again.
pub(super) fn answer(asked: &HeaderMap, job: &Job) -> Result<Response> {
    let body = serde_json::to_vec(job).map_err(|e| Error::Internal(e.to_string()))?;
    let tag = content_tag(&body);
    let mut headers = HeaderMap::new();
    let json = header::HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    hint(&mut headers, job);
    Ok(tagged(asked, &tag, (headers, body)))
}

fn accepted(job: &Job) -> Result<Response> {
    let mut headers = HeaderMap::new();
    hint(&mut headers, job);
    Ok((StatusCode::ACCEPTED, headers, Json(job)).into_response())
}

/// Says when to ask again, while the job is not over.
pub(super) fn hint(headers: &mut HeaderMap, job: &Job) {
    if !job.is_over() {
        let soon = header::HeaderValue::from_static(RETRY_AFTER);
        headers.insert(header::RETRY_AFTER, soon);
    }
}

fn patience(wait: Option<u64>) -> Result<Option<Duration>> {
    let Some(seconds) = wait else { return Ok(None) };
    let patience = Duration::from_secs(seconds);
    if patience > LONGEST_WAIT {
        let message = format!("must be 0 to {}", LONGEST_WAIT.as_secs());
        return Err(Error::invalid("wait", "out_of_range", message));
    }
    Ok(Some(patience))
}
