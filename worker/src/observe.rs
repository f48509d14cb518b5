//! What logs and traces tell of an attempt, and of whose request it is for.

use entity::job;
use shared::trace::{self, trace_id};

use crate::outcome;
use shared::queue::RecordedOutcome;

/// What every line about an attempt at `job` tells. At the level of errors, so
/// that a log of nothing but these has it, too.
pub(crate) fn span(job: &job::Model) -> tracing::Span {
    tracing::error_span!(
        "attempt",
        job_id = %job.id,
        attempt = job.attempt,
        request_id = job.request_id.as_deref().map(display),
        trace_id = job.traceparent.as_deref().and_then(trace_id).map(display),
    )
}

/// An attempt at `job` as traces show it.
pub(crate) fn trace(job: &job::Model, worker: &str) -> trace::Span {
    let span = trace::Span::of_work("attempt", job.traceparent.as_deref());
    span.tell("job_id", job.id.to_string());
    span.tell("attempt", i64::from(job.attempt));
    span.tell("model", job.model.clone());
    span.tell("worker", worker.to_owned());
    if let Some(request) = &job.request_id {
        span.tell("request_id", request.clone());
    }
    span
}

/// Tells how an attempt ended; None if that can't be recorded.
pub(crate) fn end(attempt: &trace::Span, record: Option<RecordedOutcome>) {
    let (outcome, error) = outcome::words(record);
    attempt.tell("outcome", outcome);
    if !error.is_empty() {
        attempt.fail(error);
    }
}
