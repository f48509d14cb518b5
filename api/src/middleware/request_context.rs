//! One span and one line for each request, under an id that the client sees;
//! and a span of its trace.

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

/// The present request, for the jobs that it asks for. Nothing is known of it
/// outside of its own task, which a transaction may be.
pub(crate) fn current_origin() -> RequestOrigin {
    CURRENT_ORIGIN.try_with(Clone::clone).unwrap_or_default()
}

/// The present request's id; empty outside of one.
pub(crate) fn current_request_id() -> String {
    current_origin().request_id.unwrap_or_default()
}

/// Middleware: gives the request its id, and logs how it went.
pub(crate) async fn request_context(request: Request, next: Next) -> Response {
    let id = client_request_id(&request).unwrap_or_else(|| Uuid::now_v7().to_string());
    let method = request.method().clone();
    // The pattern, not the path: ids in it would make every line its own kind.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unknown", MatchedPath::as_str)
        .to_owned();
    let trace = start_span(&request, &id, &route);
    let traceparent = trace.traceparent();
    let trace_id = traceparent.as_deref().and_then(trace_id).map(display);
    // At the level of errors, so that a log of nothing but these has it, too.
    let span = tracing::error_span!("request", request_id = %id, trace_id, %method, route);
    let header = HeaderValue::from_str(&id).ok();
    let origin = RequestOrigin {
        request_id: Some(id),
        traceparent,
    };

    let answer = async {
        let begun = Instant::now();
        let mut response = next.run(request).await;
        let status = response.status().as_u16();
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(status, millis, "answered");
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

/// The caller's own id, if it is fit for a log.
fn client_request_id(request: &Request) -> Option<String> {
    let id = request.headers().get(HEADER)?.to_str().ok()?;
    let sane = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = !id.is_empty() && id.len() <= MAX_ID_LEN && id.chars().all(sane);
    fits.then(|| id.to_owned())
}

/// The request as traces show it, under the names that OpenTelemetry has for
/// what it consists of. The path is not among them: its length is anyone's.
fn start_span(request: &Request, id: &str, route: &str) -> Span {
    let method = metrics::method_label(request.method());
    let span = Span::server(format_args!("{method} {route}"), traceparent(request));
    span.set_attribute("http.request.method", method);
    span.set_attribute("http.route", route.to_owned());
    span.set_attribute("request_id", id.to_owned());
    span
}

/// The caller's place in a trace, if it tells one and only one.
fn traceparent(request: &Request) -> Option<&str> {
    let mut given = request.headers().get_all(TRACEPARENT).iter();
    let traceparent = given.next()?.to_str().ok()?;
    given.next().is_none().then_some(traceparent)
}
