//! What logs and traces tell of an attempt, and of whose request it is for.

use entity::job;
use shared::trace::{self, trace_id};

use crate::outcome;
use shared::queue::RecordedOutcome;

/// What every line about an attempt at `job` tells. At the level of errors, so
/// that a log of nothing but these has it, too.
pub(crate) fn log_span(job: &job::Model) -> tracing::Span {
    tracing::error_span!(
        "attempt",
        job_id = %job.id,
        attempt = job.attempt,
        request_id = job.request_id.as_deref().map(display),
        trace_id = job.traceparent.as_deref().and_then(trace_id).map(display),
    )
}

/// An attempt at `job` as traces show it.
pub(crate) fn trace_span(job: &job::Model, worker: &str) -> trace::Span {
    let span = trace::Span::consumer("attempt", job.traceparent.as_deref());
    span.set_attribute("job_id", job.id.to_string());
    span.set_attribute("attempt", i64::from(job.attempt));
    span.set_attribute("model", job.model.clone());
    span.set_attribute("worker", worker.to_owned());
    if let Some(request) = &job.request_id {
        span.set_attribute("request_id", request.clone());
    }
    span
}

/// Tells how an attempt ended; None if that can't be recorded.
pub(crate) fn end_trace_span(attempt: &trace::Span, record: Option<RecordedOutcome>) {
    let (outcome, error) = outcome::metric_labels(record);
    attempt.set_attribute("outcome", outcome);
    if !error.is_empty() {
        attempt.set_error(error);
    }
}
