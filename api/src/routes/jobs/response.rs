//! Jobs as clients see them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use entity::{attempt, job};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder};
use serde::{Deserialize, Serialize};
use shared::queue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::routes::{optional_timestamp, timestamp};

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Job {
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
    /// Its place in line: 1 is next. Null unless it is queued and due, and among
    /// the first thousand.
    queue_position: Option<i64>,
    model: String,
    usage: Usage,
    /// The latest error; null once the job has succeeded.
    error: Option<JobError>,
    /// The attempts, the first one first.
    attempts: Vec<Attempt>,
    #[serde(serialize_with = "timestamp")]
    created_at: DateTime<Utc>,
    /// When its first attempt began since it was asked for, or last tried again by
    /// hand.
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
pub(crate) enum Phase {
    /// Title and headings.
    Outline,
    /// The sections, one after the other.
    Writing,
    /// Putting them together.
    Assembling,
}

/// How far a job is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Progress {
    /// 0 to 100.
    #[schema(minimum = 0, maximum = 100)]
    percent: i32,
    /// Words written so far.
    words: i32,
}

/// What a job cost, in tokens, as the agent counted them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Usage {
    input_tokens: i32,
    output_tokens: i32,
}

/// What went wrong.
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
pub(crate) enum Outcome {
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
pub(crate) struct Links {
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
    pub(in crate::routes) async fn load(
        db: &impl ConnectionTrait,
        jobs: Vec<job::Model>,
    ) -> Result<Vec<Job>> {
        let mut attempts: HashMap<Uuid, Vec<attempt::Model>> = HashMap::new();
        let begun = jobs.iter().filter(|job| job.started_at.is_some());
        let begun: Vec<Uuid> = begun.map(|job| job.id).collect();
        if !begun.is_empty() {
            let rows = attempt::Entity::find()
                .filter(attempt::Column::JobId.is_in(begun))
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
        let mut places: HashMap<Uuid, i64> = HashMap::new();
        let queued = jobs.iter().filter(|job| job.status == job::Status::Queued);
        let queued: Vec<Uuid> = queued.map(|job| job.id).collect();
        if !queued.is_empty() {
            let found = queue::positions(db, &queued).await?;
            places.extend(found.iter().map(|place| (place.id, place.position)));
        }
        let job = |job: job::Model| {
            let attempts = attempts.remove(&job.id).unwrap_or_default();
            let place = places.get(&job.id).copied();
            Job::new(job, attempts, place)
        };
        Ok(jobs.into_iter().map(job).collect())
    }

    /// One job with its attempts and place.
    pub(in crate::routes) async fn load_one(
        db: &impl ConnectionTrait,
        job: job::Model,
    ) -> Result<Job> {
        let loaded = Job::load(db, vec![job]).await?.pop();
        loaded.ok_or_else(|| Error::Internal("a job got lost on the way".to_owned()))
    }

    /// The worker that holds it, if one does.
    pub(in crate::routes) fn holder(&self) -> Option<&str> {
        let running = self
            .attempts
            .last()
            .filter(|attempt| attempt.outcome.is_none());
        running.map(|attempt| attempt.worker.as_str())
    }

    pub(in crate::routes) fn is_over(&self) -> bool {
        job::Status::from(self.status).is_finished()
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
