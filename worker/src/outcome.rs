//! How an attempt ended, and what follows from it.

use std::time::Duration;

use entity::job::Outline;
use sea_orm::DbErr;
use shared::queue::{AttemptResult, JobError, RecordedOutcome, WrittenPost};

use crate::agent::{AgentError, AgentErrorKind};
use crate::sources::SearchError;

/// Why an attempt ended without a text.
#[derive(Debug)]
pub(crate) enum AttemptError {
    Agent(AgentError),
    /// Nothing in the sources has to do with the topic.
    NoSources,
    /// The search of the web has failed, and there is nothing else to write from.
    Search(SearchError),
    /// The owner is to review this outline first.
    AwaitingReview(Outline),
    /// The owner has canceled the job.
    CancelRequested,
    /// Another attempt holds the job, or it is deleted.
    Lost,
    /// This worker is stopping, or the agent's rate limit lasts too long.
    Released,
    Database(DbErr),
    /// A bug of ours.
    Panicked(String),
}

impl AttemptError {
    /// What operators learn; clients read less.
    pub(crate) fn log(&self) {
        match self {
            AttemptError::Agent(error) => tracing::warn!(%error, "the agent wrote no text"),
            AttemptError::Database(error) => tracing::error!(%error, "the database is unavailable"),
            AttemptError::Panicked(panic) => tracing::error!(panic, "an attempt panicked"),
            AttemptError::Search(error) => tracing::warn!(%error, "nothing was searched"),
            AttemptError::AwaitingReview(_)
            | AttemptError::NoSources
            | AttemptError::CancelRequested
            | AttemptError::Lost
            | AttemptError::Released => {}
        }
    }
}

impl AttemptError {
    /// None if the agent has refused or has answered nothing usable, for what the post can do without;
    /// else the error itself.
    pub(crate) fn unless_refused<T>(self) -> Result<Option<T>, AttemptError> {
        let kind = match &self {
            AttemptError::Agent(
                AgentError::Fatal { failure, .. } | AgentError::Retry { failure, .. },
            ) => Some(*failure),
            _ => None,
        };
        match kind {
            Some(AgentErrorKind::Rejected | AgentErrorKind::BadOutput) => {
                self.log();
                Ok(None)
            }
            _ => Err(self),
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
pub(crate) fn attempt_result(written: Result<WrittenPost, AttemptError>) -> AttemptResult {
    match written {
        Ok(post) => AttemptResult::Written(post),
        Err(AttemptError::Agent(error)) => agent_failure(&error),
        Err(AttemptError::NoSources) => {
            let message = "Nothing that could be read in the sources has to do with the topic.";
            failure("no_sources", message, false)
        }
        Err(AttemptError::Search(_)) => {
            let message = "The search of the web is not available.";
            failure("search_unavailable", message, true)
        }
        Err(AttemptError::Database(_) | AttemptError::Panicked(_)) => {
            failure("internal", "Something went wrong on our side.", true)
        }
        Err(AttemptError::AwaitingReview(outline)) => AttemptResult::Planned(outline),
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
        Some(RecordedOutcome::AwaitingReview) => ("awaiting_review", ""),
        Some(RecordedOutcome::Failed(code)) => ("failed", code),
        Some(RecordedOutcome::Retried(code, _)) => ("retried", code),
        Some(RecordedOutcome::Released) => ("released", ""),
        Some(RecordedOutcome::Canceled) => ("canceled", ""),
        Some(RecordedOutcome::Lost) => ("lost", ""),
        None => ("unrecorded", ""),
    }
}

pub(crate) fn log_outcome(recorded: &Result<RecordedOutcome, DbErr>) {
    match recorded {
        Ok(RecordedOutcome::Succeeded) => tracing::info!("attempt succeeded"),
        Ok(RecordedOutcome::AwaitingReview) => tracing::info!("the outline awaits its review"),
        Ok(RecordedOutcome::Failed(code)) => tracing::warn!(code, "job failed"),
        Ok(RecordedOutcome::Retried(code, delay)) => {
            tracing::warn!(code, ?delay, "attempt failed; the job will be retried");
        }
        Ok(RecordedOutcome::Released) => tracing::info!("attempt released"),
        Ok(RecordedOutcome::Canceled) => tracing::info!("job canceled"),
        Ok(RecordedOutcome::Lost) => tracing::warn!("lease lost: the job is another's, or deleted"),
        Err(error) => {
            tracing::error!(%error, "can't record how an attempt ended; the job will be rescued");
        }
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
fn user_message(kind: AgentErrorKind) -> &'static str {
    match kind {
        AgentErrorKind::Unavailable => "The writing agent can't be reached.",
        AgentErrorKind::RateLimited => {
            "The writing agent has too much to do, or its quota is used up."
        }
        AgentErrorKind::Rejected => "The writing agent refused the request.",
        AgentErrorKind::Timeout => "The writing agent took too long.",
        AgentErrorKind::BadOutput => "The writing agent brought nothing usable.",
    }
}

fn failure(code: &'static str, message: &str, retryable: bool) -> AttemptResult {
    let failure = JobError {
        code,
        message: message.to_owned(),
        retryable,
    };
    AttemptResult::Failed(failure, Duration::ZERO)
}
