//! Request ids, with a log span, a log line and a trace span for each request.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use shared::queue::RequestOrigin;
use shared::trace::{Span, trace_id};
use tracing::Instrument;
use tracing::field::display;
use uuid::Uuid;

use crate::metrics;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const MAX_ID_LEN: usize = 128;

tokio::task_local! {
    static CURRENT_ORIGIN: RequestOrigin;
}

/// The current request, for the jobs that it enqueues. Known only in the request's own task; a
/// transaction may be in another.
pub(crate) fn current_origin() -> RequestOrigin {
    CURRENT_ORIGIN.try_with(Clone::clone).unwrap_or_default()
}

/// The current request's id; empty outside of a request.
pub(crate) fn current_request_id() -> String {
    current_origin().request_id.unwrap_or_default()
}

/// Middleware: gives the request its id, and logs its result.
pub(crate) async fn request_context(request: Request, next: Next) -> Response {
    let id = client_request_id(&request).unwrap_or_else(|| Uuid::now_v7().to_string());
    let method = request.method().clone();
    // The pattern, not the path: ids in it would make every line unique.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unknown", MatchedPath::as_str)
        .to_owned();
    let trace = start_span(&request, &id, &route);
    let traceparent = trace.traceparent();
    let trace_id = traceparent.as_deref().and_then(trace_id).map(display);
    // At level error, so that a log of errors only has it, too.
    let span = tracing::error_span!("request", request_id = %id, trace_id, %method, route);
    let header = HeaderValue::from_str(&id).ok();
    let origin = RequestOrigin {
        request_id: Some(id),
        traceparent,
    };

    let answer = async {
        let started = Instant::now();
        let mut response = next.run(request).await;
        let status = response.status().as_u16();
        let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(status, millis, "request completed");
        trace.set_attribute("http.response.status_code", i64::from(status));
        if response.status().is_server_error() {
            trace.set_error(status);
        }
        if let Some(header) = header {
            response.headers_mut().insert(HEADER, header);
        }
        response
    };
    CURRENT_ORIGIN.scope(origin, answer.instrument(span)).await
}

/// The client's own id, if it is safe to log.
fn client_request_id(request: &Request) -> Option<String> {
    let id = request.headers().get(HEADER)?.to_str().ok()?;
    let sane = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = !id.is_empty() && id.len() <= MAX_ID_LEN && id.chars().all(sane);
    fits.then(|| id.to_owned())
}

/// The trace span, with OpenTelemetry's attribute names. Without the path, which may be of any
/// length.
fn start_span(request: &Request, id: &str, route: &str) -> Span {
    let method = metrics::method_label(request.method());
    let span = Span::server(format_args!("{method} {route}"), traceparent(request));
    span.set_attribute("http.request.method", method);
    span.set_attribute("http.route", route.to_owned());
    span.set_attribute("request_id", id.to_owned());
    span
}

/// The caller's trace context, if there is exactly one.
fn traceparent(request: &Request) -> Option<&str> {
    let mut values = request.headers().get_all(TRACEPARENT).iter();
    let traceparent = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(traceparent)
}
