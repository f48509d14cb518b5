//! One span and one line for each request, under an id that the client sees.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use entity::job::lifecycle::Origin;
use shared::trace;
use tracing::Instrument;
use uuid::Uuid;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const LONGEST_ID: usize = 128;

tokio::task_local! {
    static ORIGIN: Origin;
}

/// The present request, for the jobs that it asks for. Nothing is known of it
/// outside of its own task, which a transaction may be.
pub fn origin() -> Origin {
    ORIGIN.try_with(Clone::clone).unwrap_or_default()
}

/// The present request's id; empty outside of one.
pub fn request_id() -> String {
    origin().request_id.unwrap_or_default()
}

/// Middleware: gives the request its id, and logs how it went.
pub async fn observe(request: Request, next: Next) -> Response {
    let id = given_id(&request).unwrap_or_else(|| Uuid::now_v7().to_string());
    let method = request.method().clone();
    // The pattern, not the path: ids in it would make every line its own kind.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unknown", MatchedPath::as_str)
        .to_owned();
    let traceparent = given_traceparent(&request);
    let trace_id = traceparent.as_deref().and_then(trace::trace_id);
    // At the level of errors, so that a log of nothing but these has it, too.
    let span = tracing::error_span!("request", request_id = %id, trace_id, %method, route);
    let header = HeaderValue::from_str(&id).ok();
    let origin = Origin {
        request_id: Some(id),
        traceparent,
    };

    let answer = async {
        let begun = Instant::now();
        let mut response = next.run(request).await;
        let status = response.status().as_u16();
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(status, millis, "answered");
        if let Some(header) = header {
            response.headers_mut().insert(HEADER, header);
        }
        response
    };
    ORIGIN.scope(origin, answer.instrument(span)).await
}

/// The caller's own id, if it is fit for a log.
fn given_id(request: &Request) -> Option<String> {
    let id = request.headers().get(HEADER)?.to_str().ok()?;
    let sane = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = !id.is_empty() && id.len() <= LONGEST_ID && id.chars().all(sane);
    fits.then(|| id.to_owned())
}

/// The caller's place in a trace, if it is one and only one.
fn given_traceparent(request: &Request) -> Option<String> {
    let mut given = request.headers().get_all(TRACEPARENT).iter();
    let traceparent = given.next()?.to_str().ok()?;
    let is_sane = given.next().is_none() && trace::trace_id(traceparent).is_some();
    is_sane.then(|| traceparent.to_owned())
}
