//! How an attempt ended, and what follows from it.

use std::time::Duration;

use entity::{job, post};
use futures_util::future::BoxFuture;
use rand::RngExt;
use sea_orm::DbErr;
use shared::queue::{self, AttemptResult, JobError, Lease, RecordedOutcome};
use tokio::time::sleep;

use crate::Worker;
use crate::agent::{self, AgentError};

/// Why an attempt ended without a text.
#[derive(Debug)]
pub enum AttemptError {
    /// The agent brought none.
    Agent(AgentError),
    /// The owner called it off.
    CancelRequested,
    /// The job is someone else's, or gone.
    Lost,
    /// This worker is stopping, or must not call its agent for long.
    Released,
    /// The database did not answer.
    Database(DbErr),
    /// A fault of ours.
    Panicked(String),
}

impl AttemptError {
    /// What operators learn; clients read less.
    pub(crate) fn log(&self) {
        match self {
            AttemptError::Agent(error) => tracing::warn!(%error, "the agent brought no text"),
            AttemptError::Database(error) => tracing::error!(%error, "the database stayed away"),
            AttemptError::Panicked(panic) => tracing::error!(panic, "an attempt panicked"),
            AttemptError::CancelRequested | AttemptError::Lost | AttemptError::Released => {}
        }
    }
}

impl From<AgentError> for AttemptError {
    fn from(error: AgentError) -> Self {
        AttemptError::Agent(error)
    }
}

impl From<DbErr> for AttemptError {
    fn from(error: DbErr) -> Self {
        AttemptError::Database(error)
    }
}

/// What is to be recorded of an attempt.
pub(crate) fn attempt_result(written: Result<post::PostContent, AttemptError>) -> AttemptResult {
    match written {
        Ok(text) => AttemptResult::Written(text),
        Err(AttemptError::Agent(error)) => agent_failure(&error),
        Err(AttemptError::Database(_) | AttemptError::Panicked(_)) => internal_failure(),
        Err(AttemptError::CancelRequested) => AttemptResult::Canceled,
        Err(AttemptError::Released) => AttemptResult::Released,
        Err(AttemptError::Lost) => AttemptResult::Lost,
    }
}

/// How metrics and traces name what was recorded, and the code of its error, if it is
/// one.
pub(crate) fn metric_labels(record: Option<RecordedOutcome>) -> (&'static str, &'static str) {
    match record {
        Some(RecordedOutcome::Succeeded) => ("succeeded", ""),
        Some(RecordedOutcome::Failed(code)) => ("failed", code),
        Some(RecordedOutcome::Retried(code, _)) => ("retried", code),
        Some(RecordedOutcome::Released) => ("released", ""),
        Some(RecordedOutcome::Canceled) => ("canceled", ""),
        Some(RecordedOutcome::Lost) => ("lost", ""),
        None => ("unrecorded", ""),
    }
}

pub(crate) fn log_outcome(record: RecordedOutcome) {
    match record {
        RecordedOutcome::Succeeded => tracing::info!("succeeded"),
        RecordedOutcome::Failed(code) => {
            tracing::warn!(code, "failed, and will not be tried again");
        }
        RecordedOutcome::Retried(code, delay) => {
            tracing::warn!(code, ?delay, "failed, and will be tried again");
        }
        RecordedOutcome::Released => tracing::info!("given back"),
        RecordedOutcome::Canceled => tracing::info!("canceled"),
        RecordedOutcome::Lost => {
            tracing::warn!("the job was taken from this worker, or is gone");
        }
    }
}

/// No pause is longer, however many attempts there were.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(600);

/// How long a worker keeps trying to write down what was paid for.
const DB_RETRY_WINDOW: Duration = Duration::from_secs(60);
/// The same once it should have stopped.
const DB_RETRY_WINDOW_AT_STOP: Duration = Duration::from_secs(5);
const DB_RETRY_INTERVAL: Duration = Duration::from_millis(500);

impl Worker {
    /// Does something that must be done, though the database may be away for a
    /// while.
    pub(crate) async fn retry_until_stored<'a, T>(
        &self,
        work: impl Fn() -> BoxFuture<'a, Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        let insist = async {
            loop {
                match work().await {
                    Ok(done) => return done,
                    Err(error) => {
                        tracing::warn!(%error, "the database did not answer; trying again");
                    }
                }
                sleep(DB_RETRY_INTERVAL).await;
            }
        };
        let stopped = async {
            self.release.cancelled().await;
            sleep(DB_RETRY_WINDOW_AT_STOP).await;
        };
        let gave_up = || DbErr::Custom("the database stayed away".to_owned());
        tokio::select! {
            done = insist => Ok(done),
            () = sleep(DB_RETRY_WINDOW) => Err(gave_up()),
            () = stopped => Err(gave_up()),
        }
    }

    /// Records how an attempt ended.
    pub(crate) async fn record_result(
        &self,
        lease: &Lease,
        job: &job::Model,
        ending: &AttemptResult,
    ) -> Result<RecordedOutcome, DbErr> {
        match ending {
            AttemptResult::Lost => return Ok(RecordedOutcome::Lost),
            AttemptResult::Written(text) if self.posts.submit((*lease, text.clone())).await? => {
                return Ok(RecordedOutcome::Succeeded);
            }
            _ => {}
        }
        let (lease, job, ending) = (*lease, job.clone(), ending.clone());
        let backoff = self.retry_delay(job.attempt);
        self.db
            .transaction(async move |tx| queue::record(tx, &lease, &job, &ending, backoff).await)
            .await
    }

    /// How long to wait after an attempt: exponential, with full jitter, so that
    /// jobs that failed together don't come back together.
    /// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
    fn retry_delay(&self, attempt: i32) -> Duration {
        let doublings = u32::try_from(attempt - 1).unwrap_or(0).min(20);
        let longest = self.backoff.saturating_mul(1 << doublings);
        longest.min(MAX_RETRY_DELAY).mul_f64(rand::rng().random())
    }
}

fn agent_failure(error: &AgentError) -> AttemptResult {
    let (kind, retryable, after) = match error {
        AgentError::Retry { failure, after, .. } => (*failure, true, *after),
        AgentError::Fatal { failure, .. } => (*failure, false, None),
    };
    let failure = JobError {
        code: kind.code(),
        message: user_message(kind).to_owned(),
        retryable,
    };
    AttemptResult::Failed(failure, after.unwrap_or_default())
}

/// What the client reads: no keys, no addresses, nothing the provider said.
fn user_message(kind: agent::AgentErrorKind) -> &'static str {
    match kind {
        agent::AgentErrorKind::Unavailable => "The writing agent can't be reached.",
        agent::AgentErrorKind::RateLimited => {
            "The writing agent has too much to do, or its quota is used up."
        }
        agent::AgentErrorKind::Rejected => "The writing agent refused the request.",
        agent::AgentErrorKind::Timeout => "The writing agent took too long.",
        agent::AgentErrorKind::BadOutput => "The writing agent brought nothing usable.",
    }
}

fn internal_failure() -> AttemptResult {
    let failure = JobError {
        code: "internal",
        message: "Something went wrong on our side.".to_owned(),
        retryable: true,
    };
    AttemptResult::Failed(failure, Duration::ZERO)
}
