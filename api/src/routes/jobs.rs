//! Jobs: how a post's writing goes.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use entity::job::lifecycle::{self, Cancel, NewJob};
use entity::{attempt, job};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect,
};
use serde::{Deserialize, Serialize};
use shared::queue::{self, Payload};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{optional_timestamp, timestamp};
use crate::auth::SignedIn;
use crate::error::{Error, FieldError, Result, is_duplicate};
use crate::negotiate::{LONGEST_WAIT, content_tag, tagged};
use crate::page::{After, List, cut, limit, link};
use crate::query::{Id, Params};
use crate::{AppState, wait};

/// How soon it is worth asking again, in seconds.
const RETRY_AFTER: &str = "1";

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub struct Job {
    id: Uuid,
    /// The post it writes.
    blog_id: Uuid,
    status: Status,
    /// What the running attempt does; null while none runs.
    phase: Option<Phase>,
    progress: Progress,
    /// Attempts made so far.
    attempt: i32,
    max_attempts: i32,
    /// When the next attempt is due, if the job waits for one after an error.
    #[serde(serialize_with = "optional_timestamp")]
    next_attempt_at: Option<DateTime<Utc>>,
    /// 1 is next; null unless the job is queued.
    queue_position: Option<i64>,
    model: String,
    usage: Usage,
    /// The latest error; null once the job has succeeded.
    error: Option<JobError>,
    /// The attempts, the first one first.
    attempts: Vec<Attempt>,
    #[serde(serialize_with = "timestamp")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "optional_timestamp")]
    started_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "optional_timestamp")]
    finished_at: Option<DateTime<Utc>>,
    links: Links,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = JobStatus)]
pub enum Status {
    /// It waits for a worker.
    Queued,
    /// A worker is at it.
    Running,
    /// A worker is at it, and has been asked to stop.
    Canceling,
    /// The post is ready.
    Succeeded,
    /// It was given up.
    Failed,
    /// It was called off.
    Canceled,
}

/// What a running attempt does.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = JobPhase)]
pub enum Phase {
    /// Title and headings.
    Outline,
    /// The sections, one after the other.
    Writing,
    /// Putting them together.
    Assembling,
}

/// How far a job is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Progress {
    /// 0 to 100.
    percent: i32,
    /// Words written so far.
    words: i32,
}

/// What a job cost, in tokens, as the agent counted them.
#[derive(Debug, Serialize, ToSchema)]
pub struct Usage {
    input_tokens: i32,
    output_tokens: i32,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobError {
    /// For programs; stable.
    #[schema(example = "agent_unavailable")]
    code: String,
    /// For people.
    message: String,
    /// Whether another attempt could help.
    retryable: bool,
}

/// An attempt at a job.
#[derive(Debug, Serialize, ToSchema)]
pub struct Attempt {
    /// Its number. One that was released did not count, so the next has the same.
    attempt: i32,
    /// The worker that made it.
    worker: String,
    #[serde(serialize_with = "timestamp")]
    started_at: DateTime<Utc>,
    #[serde(serialize_with = "optional_timestamp")]
    finished_at: Option<DateTime<Utc>>,
    /// How it ended; null while it runs.
    outcome: Option<Outcome>,
    error: Option<JobError>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The post was stored.
    Succeeded,
    /// An error.
    Failed,
    /// It was called off.
    Canceled,
    /// Its worker was stopped and gave the job back.
    Released,
    /// Its worker was not heard of any more.
    Lost,
}

/// Where to go from a job.
#[derive(Debug, Serialize, ToSchema)]
pub struct Links {
    #[serde(rename = "self")]
    itself: String,
    blog: String,
    cancel: String,
    /// Null: this server does not stream events.
    events: Option<String>,
}

impl Job {
    fn new(job: job::Model, attempts: Vec<attempt::Model>, queue_position: Option<i64>) -> Self {
        let itself = format!("/api/v1/jobs/{}", job.id);
        Job {
            links: Links {
                cancel: format!("{itself}/cancel"),
                itself,
                blog: format!("/api/v1/blogs/{}", job.post_id),
                events: None,
            },
            id: job.id,
            blog_id: job.post_id,
            status: job.status.into(),
            phase: job.phase.map(Phase::from),
            progress: Progress {
                percent: job.percent,
                words: job.words,
            },
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            next_attempt_at: job.next_attempt_at,
            queue_position,
            model: job.model,
            usage: Usage {
                input_tokens: job.input_tokens,
                output_tokens: job.output_tokens,
            },
            error: error(job.error_code, job.error_message, job.error_retryable),
            attempts: attempts.into_iter().map(Attempt::from).collect(),
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
        }
    }

    /// Jobs with their attempts and places, in the order given.
    pub(super) async fn load(db: &impl ConnectionTrait, jobs: Vec<job::Model>) -> Result<Vec<Job>> {
        let ids: Vec<Uuid> = jobs.iter().map(|job| job.id).collect();
        let rows = attempt::Entity::find()
            .filter(attempt::Column::JobId.is_in(ids.iter().copied()))
            .order_by_asc(attempt::Column::Id)
            .all(db)
            .await?;
        let mut attempts: HashMap<Uuid, Vec<attempt::Model>> = HashMap::new();
        for row in rows {
            attempts.entry(row.job_id).or_default().push(row);
        }
        let places = job::Entity::places(db, &ids).await?;
        let places: HashMap<Uuid, i64> = places.iter().map(|p| (p.id, p.position)).collect();
        let job = |job: job::Model| {
            let attempts = attempts.remove(&job.id).unwrap_or_default();
            let place = places.get(&job.id).copied();
            Job::new(job, attempts, place)
        };
        Ok(jobs.into_iter().map(job).collect())
    }

    /// One job with its attempts and place.
    pub(super) async fn load_one(db: &impl ConnectionTrait, job: job::Model) -> Result<Job> {
        let loaded = Job::load(db, vec![job]).await?.pop();
        loaded.ok_or_else(|| Error::Internal("a job got lost on the way".to_owned()))
    }

    pub(super) fn is_over(&self) -> bool {
        job::Status::from(self.status).is_over()
    }
}

fn error(
    code: Option<String>,
    message: Option<String>,
    retryable: Option<bool>,
) -> Option<JobError> {
    Some(JobError {
        code: code?,
        message: message.unwrap_or_default(),
        retryable: retryable.unwrap_or_default(),
    })
}

impl From<attempt::Model> for Attempt {
    fn from(row: attempt::Model) -> Self {
        Attempt {
            attempt: row.attempt,
            worker: row.worker,
            started_at: row.started_at,
            finished_at: row.finished_at,
            outcome: row.outcome.map(Outcome::from),
            error: error(row.error_code, row.error_message, row.error_retryable),
        }
    }
}

impl From<attempt::Outcome> for Outcome {
    fn from(outcome: attempt::Outcome) -> Self {
        match outcome {
            attempt::Outcome::Succeeded => Outcome::Succeeded,
            attempt::Outcome::Failed => Outcome::Failed,
            attempt::Outcome::Canceled => Outcome::Canceled,
            attempt::Outcome::Released => Outcome::Released,
            attempt::Outcome::Lost => Outcome::Lost,
        }
    }
}

impl From<job::Status> for Status {
    fn from(status: job::Status) -> Self {
        match status {
            job::Status::Queued => Status::Queued,
            job::Status::Running => Status::Running,
            job::Status::Canceling => Status::Canceling,
            job::Status::Succeeded => Status::Succeeded,
            job::Status::Failed => Status::Failed,
            job::Status::Canceled => Status::Canceled,
        }
    }
}

impl From<Status> for job::Status {
    fn from(status: Status) -> Self {
        match status {
            Status::Queued => job::Status::Queued,
            Status::Running => job::Status::Running,
            Status::Canceling => job::Status::Canceling,
            Status::Succeeded => job::Status::Succeeded,
            Status::Failed => job::Status::Failed,
            Status::Canceled => job::Status::Canceled,
        }
    }
}

impl From<job::Phase> for Phase {
    fn from(phase: job::Phase) -> Self {
        match phase {
            job::Phase::Outline => Phase::Outline,
            job::Phase::Writing => Phase::Writing,
            job::Phase::Assembling => Phase::Assembling,
        }
    }
}

/// How long to wait for a change.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wait {
    /// Answer at the next change of `status` or `phase`, or after so many
    /// seconds.
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
    cursor: Option<String>,
}

/// A page of jobs.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobPage {
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
    if let Some(patience) = patience(wait)? {
        let before = (job.status, job.phase);
        let moved = |job: &job::Model| job.status.is_over() || (job.status, job.phase) != before;
        let found = wait::for_job(&state, id, patience, moved).await?;
        job = found.ok_or(Error::NotFound)?;
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
    let tx = state.db.begin().await?;
    let before = find(&tx, &me, id).await?;
    let job = match lifecycle::cancel(&tx, id).await? {
        Cancel::Canceled(job) => {
            if let Some(delivery) = &before.delivery_id {
                queue::take(&tx, delivery).await?;
            }
            job
        }
        Cancel::Canceling(job) => job,
        Cancel::TooLate => return Err(Error::JobFinished),
    };
    tx.commit().await?;
    accepted(&Job::load_one(state.db.read(), job).await?)
}

/// Try a job again that failed or was canceled
///
/// It goes on from what it had finished. Only a post's latest job can be tried
/// again; otherwise regenerate the post.
#[utoipa::path(
    post, path = "/jobs/{id}/retry", tag = "jobs", operation_id = "retry_job",
    params(("id" = Uuid, Path)),
    responses(
        (status = 202, body = Job),
        (status = 409, description = "The job has succeeded or is not the latest, or the post is being generated.",
            body = crate::error::Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn retry(State(state): State<AppState>, me: SignedIn, Id(id): Id) -> Result<Response> {
    let tx = state.db.begin().await?;
    let before = find(&tx, &me, id).await?;
    let latest = job::Entity::of_post(before.post_id).one(&tx).await?;
    if latest.is_some_and(|latest| latest.id != id && latest.status.is_over()) {
        return Err(Error::JobFinished);
    }
    let delivery = queue::delivery_id(Duration::ZERO);
    let more = state.config.job_max_attempts;
    let job = match lifecycle::requeue(&tx, id, more, &delivery).await {
        Ok(Some(job)) => job,
        Ok(None) if before.status == job::Status::Succeeded => return Err(Error::JobFinished),
        Ok(None) => return Err(Error::GenerationInProgress),
        // Another job of the same post is unfinished.
        Err(e) if is_duplicate(&e) => return Err(Error::GenerationInProgress),
        Err(e) => return Err(e.into()),
    };
    push(&tx, &job, &delivery).await?;
    tx.commit().await?;
    accepted(&Job::load_one(state.db.read(), job).await?)
}

/// Makes a job and puts it into the queue, in the caller's transaction.
pub(super) async fn enqueue(tx: &DatabaseTransaction, new: NewJob) -> Result<job::Model> {
    let delivery = queue::delivery_id(Duration::ZERO);
    let job = match lifecycle::create(tx, new, &delivery).await {
        Err(e) if is_duplicate(&e) => return Err(Error::GenerationInProgress),
        created => created?,
    };
    push(tx, &job, &delivery).await?;
    Ok(job)
}

async fn push(tx: &DatabaseTransaction, job: &job::Model, delivery: &str) -> Result<()> {
    let payload = Payload {
        job: job.id,
        attempt: job.attempt + 1,
    };
    queue::push(tx, delivery, payload, Duration::ZERO).await?;
    Ok(())
}

/// A job of one's own.
async fn find(db: &impl ConnectionTrait, me: &SignedIn, id: Uuid) -> Result<job::Model> {
    let job = job::Entity::owned_by(me.user.id)
        .filter(job::Column::Id.eq(id))
        .one(db)
        .await?;
    job.ok_or(Error::NotFound)
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
        return Err(Error::Validation(vec![FieldError {
            field: "wait".to_owned(),
            code: "out_of_range",
            message: format!("must be 0 to {}", LONGEST_WAIT.as_secs()),
        }]));
    }
    Ok(Some(patience))
}
