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
pub enum Stop {
    /// The agent brought none.
    Agent(AgentError),
    /// The owner called it off.
    Canceling,
    /// The job is someone else's, or gone.
    Lost,
    /// This worker is stopping, or must not call its agent for long.
    Released,
    /// The database did not answer.
    Database(DbErr),
    /// A fault of ours.
    Panicked(String),
}

impl Stop {
    /// What operators learn; clients read less.
    pub(crate) fn log(&self) {
        match self {
            Stop::Agent(error) => tracing::warn!(%error, "the agent brought no text"),
            Stop::Database(error) => tracing::error!(%error, "the database stayed away"),
            Stop::Panicked(panic) => tracing::error!(panic, "an attempt panicked"),
            Stop::Canceling | Stop::Lost | Stop::Released => {}
        }
    }
}

impl From<AgentError> for Stop {
    fn from(error: AgentError) -> Self {
        Stop::Agent(error)
    }
}

impl From<DbErr> for Stop {
    fn from(error: DbErr) -> Self {
        Stop::Database(error)
    }
}

/// What is to be recorded of an attempt.
pub(crate) fn result(written: Result<post::Text, Stop>) -> AttemptResult {
    match written {
        Ok(text) => AttemptResult::Written(text),
        Err(Stop::Agent(error)) => failed(&error),
        Err(Stop::Database(_) | Stop::Panicked(_)) => internal(),
        Err(Stop::Canceling) => AttemptResult::Canceled,
        Err(Stop::Released) => AttemptResult::Released,
        Err(Stop::Lost) => AttemptResult::Lost,
    }
}

/// How metrics and traces name what was recorded, and the code of its error, if it is
/// one.
pub(crate) fn words(record: Option<RecordedOutcome>) -> (&'static str, &'static str) {
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

pub(crate) fn log(record: RecordedOutcome) {
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
const LONGEST_BACKOFF: Duration = Duration::from_secs(600);

/// How long a worker keeps trying to write down what was paid for.
const PERSISTENCE: Duration = Duration::from_secs(60);
/// The same once it should have stopped.
const PERSISTENCE_AT_STOP: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);

impl Worker {
    /// Does something that must be done, though the database may be away for a
    /// while.
    pub(crate) async fn insist<'a, T>(
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
                sleep(PAUSE).await;
            }
        };
        let stopped = async {
            self.release.cancelled().await;
            sleep(PERSISTENCE_AT_STOP).await;
        };
        let gave_up = || DbErr::Custom("the database stayed away".to_owned());
        tokio::select! {
            done = insist => Ok(done),
            () = sleep(PERSISTENCE) => Err(gave_up()),
            () = stopped => Err(gave_up()),
        }
    }

    /// Records how an attempt ended.
    pub(crate) async fn settle(
        &self,
        lease: &Lease,
        job: &job::Model,
        ending: &AttemptResult,
    ) -> Result<RecordedOutcome, DbErr> {
        match ending {
            AttemptResult::Lost => return Ok(RecordedOutcome::Lost),
            AttemptResult::Written(text) if self.posts.add((*lease, text.clone())).await? => {
                return Ok(RecordedOutcome::Succeeded);
            }
            _ => {}
        }
        let (lease, job, ending) = (*lease, job.clone(), ending.clone());
        let backoff = self.pause(job.attempt);
        self.db
            .transaction(async move |tx| queue::record(tx, &lease, &job, &ending, backoff).await)
            .await
    }

    /// How long to wait after an attempt: exponential, with full jitter, so that
    /// jobs that failed together don't come back together.
    /// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
    fn pause(&self, attempt: i32) -> Duration {
        let doublings = u32::try_from(attempt - 1).unwrap_or(0).min(20);
        let longest = self.backoff.saturating_mul(1 << doublings);
        longest.min(LONGEST_BACKOFF).mul_f64(rand::rng().random())
    }
}

fn failed(error: &AgentError) -> AttemptResult {
    let (kind, retryable, after) = match error {
        AgentError::Retry { failure, after, .. } => (*failure, true, *after),
        AgentError::Fatal { failure, .. } => (*failure, false, None),
    };
    let failure = JobError {
        code: kind.code(),
        message: message(kind).to_owned(),
        retryable,
    };
    AttemptResult::Failed(failure, after.unwrap_or_default())
}

/// What the client reads: no keys, no addresses, nothing the provider said.
fn message(kind: agent::Failure) -> &'static str {
    match kind {
        agent::Failure::Unavailable => "The writing agent can't be reached.",
        agent::Failure::RateLimited => {
            "The writing agent has too much to do, or its quota is used up."
        }
        agent::Failure::Rejected => "The writing agent refused the request.",
        agent::Failure::Timeout => "The writing agent took too long.",
        agent::Failure::BadOutput => "The writing agent brought nothing usable.",
    }
}

fn internal() -> AttemptResult {
    let failure = JobError {
        code: "internal",
        message: "Something went wrong on our side.".to_owned(),
        retryable: true,
    };
    AttemptResult::Failed(failure, Duration::ZERO)
}
