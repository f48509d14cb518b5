//! Jobs as clients see them.

use std::collections::HashMap;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use entity::{attempt, job};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use serde::Serialize;
use shared::queue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::http_headers::{content_etag, with_etag};
use crate::routes::{optional_timestamp, timestamp};

/// A generation job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Job {
    id: Uuid,
    /// The post that it writes.
    blog_id: Uuid,
    /// The section that it writes, counted from 0; null if it writes the whole post.
    section: Option<u32>,
    status: job::Status,
    /// What the running attempt does; null if none is running.
    phase: Option<job::Phase>,
    progress: Progress,
    /// Attempts so far.
    attempt: i32,
    max_attempts: i32,
    /// When the next attempt is due, if the job waits for one after an error.
    #[serde(serialize_with = "optional_timestamp")]
    next_attempt_at: Option<DateTime<Utc>>,
    /// Its position in the queue: 1 is next. Null unless it is queued, due, and among the first
    /// thousand.
    queue_position: Option<i64>,
    model: String,
    usage: Usage,
    /// The latest error; null once the job has succeeded.
    error: Option<JobError>,
    /// What was cut from the model's answers, or is doubtful in the text.
    warnings: Vec<job::Warning>,
    /// Whether the post was edited meanwhile: it keeps the edited text, and that of the job is a
    /// revision beside it.
    superseded: bool,
    /// The attempts, the earliest first.
    attempts: Vec<Attempt>,
    #[serde(serialize_with = "timestamp")]
    created_at: DateTime<Utc>,
    /// When its first attempt started, since its creation or last manual retry.
    #[serde(serialize_with = "optional_timestamp")]
    started_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "optional_timestamp")]
    finished_at: Option<DateTime<Utc>>,
    links: Links,
}

/// A generation job in short, as lists of posts have it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobSummary {
    id: Uuid,
    status: job::Status,
    /// What the running attempt does; null if none is running.
    phase: Option<job::Phase>,
    progress: Progress,
    /// The latest error; null once the job has succeeded.
    error: Option<JobError>,
}

/// A job's progress.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Progress {
    /// 0 to 100.
    #[schema(minimum = 0, maximum = 100)]
    percent: i32,
    /// Words written so far.
    words: i32,
}

/// A job's token usage, as the agent reports it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Usage {
    input_tokens: i32,
    output_tokens: i32,
}

/// A job's error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobError {
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
pub(crate) struct Attempt {
    /// Its number. A released attempt does not count, so the next has the same.
    attempt: i32,
    /// The worker that made it.
    worker: String,
    #[serde(serialize_with = "timestamp")]
    started_at: DateTime<Utc>,
    #[serde(serialize_with = "optional_timestamp")]
    finished_at: Option<DateTime<Utc>>,
    /// How it ended; null while it is running.
    outcome: Option<attempt::Outcome>,
    error: Option<JobError>,
}

/// Links from a job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Links {
    #[serde(rename = "self")]
    itself: String,
    blog: String,
    cancel: String,
    events: String,
}

impl Job {
    fn new(job: job::Model, attempts: Vec<attempt::Model>, queue_position: Option<i64>) -> Self {
        let itself = format!("/api/v1/jobs/{}", job.id);
        Job {
            links: Links {
                cancel: format!("{itself}/cancel"),
                events: format!("{itself}/events"),
                itself,
                blog: format!("/api/v1/blogs/{}", job.post_id),
            },
            section: job.section_task().map(|task| task.number),
            id: job.id,
            blog_id: job.post_id,
            status: job.status,
            phase: job.phase,
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
            warnings: warnings(job.warnings.as_deref()),
            superseded: job.superseded,
            attempts: attempts.into_iter().map(Attempt::from).collect(),
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
        }
    }

    /// Loads jobs with their attempts and positions, in the given order.
    pub(in crate::routes) async fn load(
        db: &impl ConnectionTrait,
        jobs: Vec<job::Model>,
    ) -> Result<Vec<Job>, DbErr> {
        let mut attempts: HashMap<Uuid, Vec<attempt::Model>> = HashMap::new();
        let started = jobs.iter().filter(|job| job.started_at.is_some());
        let started: Vec<Uuid> = started.map(|job| job.id).collect();
        if !started.is_empty() {
            let rows = attempt::Entity::find()
                .filter(attempt::Column::JobId.is_in(started))
                // Times alone would not do: the clock may be set back.
                .order_by_asc(attempt::Column::Attempt)
                .order_by_asc(attempt::Column::StartedAt)
                .order_by_asc(attempt::Column::Id)
                .all(db)
                .await?;
            for row in rows {
                attempts.entry(row.job_id).or_default().push(row);
            }
        }
        let mut positions: HashMap<Uuid, i64> = HashMap::new();
        let queued = jobs.iter().filter(|job| job.status == job::Status::Queued);
        let queued: Vec<Uuid> = queued.map(|job| job.id).collect();
        if !queued.is_empty() {
            let found = queue::positions(db, &queued).await?;
            positions.extend(found.iter().map(|found| (found.id, found.position)));
        }
        let job = |job: job::Model| {
            let attempts = attempts.remove(&job.id).unwrap_or_default();
            let position = positions.get(&job.id).copied();
            Job::new(job, attempts, position)
        };
        Ok(jobs.into_iter().map(job).collect())
    }

    pub(in crate::routes) async fn load_one(
        db: &impl ConnectionTrait,
        job: job::Model,
    ) -> Result<Job> {
        let loaded = Job::load(db, vec![job]).await?.pop();
        loaded.ok_or_else(|| Error::Internal("a loaded job is missing".to_owned()))
    }

    /// The worker that runs it.
    pub(in crate::routes) fn holder(&self) -> Option<&str> {
        let running = self
            .attempts
            .last()
            .filter(|attempt| attempt.outcome.is_none());
        running.map(|attempt| attempt.worker.as_str())
    }
}

impl JobSummary {
    /// The latest job of each of `posts`.
    pub(in crate::routes) async fn latest_of_posts(
        db: &impl ConnectionTrait,
        posts: Vec<Uuid>,
    ) -> Result<HashMap<Uuid, JobSummary>, DbErr> {
        if posts.is_empty() {
            return Ok(HashMap::new());
        }
        let jobs = job::Entity::latest_of_posts(posts)
            .select_only()
            .columns([
                job::Column::PostId,
                job::Column::Id,
                job::Column::Status,
                job::Column::Phase,
                job::Column::Percent,
                job::Column::Words,
                job::Column::ErrorCode,
                job::Column::ErrorMessage,
                job::Column::ErrorRetryable,
            ])
            .into_tuple()
            .all(db)
            .await?
            .into_iter();
        let summary = |(post, id, status, phase, percent, words, code, message, retryable)| {
            let summary = JobSummary {
                id,
                status,
                phase,
                progress: Progress { percent, words },
                error: error(code, message, retryable),
            };
            (post, summary)
        };
        Ok(jobs.map(summary).collect())
    }
}

fn warnings(json: Option<&str>) -> Vec<job::Warning> {
    let warnings = json.map(serde_json::from_str);
    warnings
        .and_then(|parsed: serde_json::Result<_>| parsed.ok())
        .unwrap_or_default()
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
            outcome: row.outcome,
            error: error(row.error_code, row.error_message, row.error_retryable),
        }
    }
}

/// A job with its tag and `Retry-After`.
pub(in crate::routes) fn job_response(asked: &HeaderMap, job: &Job) -> Result<Response> {
    let body = serde_json::to_vec(job).map_err(Error::internal)?;
    let tag = content_etag(&body);
    let mut headers = HeaderMap::new();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    set_retry_after(&mut headers, job);
    Ok(with_etag(asked, &tag, (headers, body)))
}

/// 202 with a job and `Retry-After`.
pub(super) fn accepted(job: &Job) -> Result<Response> {
    let mut headers = HeaderMap::new();
    set_retry_after(&mut headers, job);
    Ok((StatusCode::ACCEPTED, headers, Json(job)).into_response())
}

const POLL_INTERVAL_SECONDS: &str = "1";

/// Tells when to poll again, while the job goes on by itself.
pub(in crate::routes) fn set_retry_after(headers: &mut HeaderMap, job: &Job) {
    if !job.status.is_finished() && job.status != job::Status::AwaitingReview {
        let soon = HeaderValue::from_static(POLL_INTERVAL_SECONDS);
        headers.insert(header::RETRY_AFTER, soon);
    }
}
