//! Distributed tracing by W3C Trace Context. Nothing else names OpenTelemetry.
//!
//! With a collector, each [`Span`] is exported to it. Without one, a span only passes on the
//! `traceparent` of its caller.

use std::fmt::Display;

use opentelemetry::trace::{
    FutureExt, Link, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt,
    TraceFlags, TraceId, TraceState, Tracer,
};
use opentelemetry::{Context, KeyValue, Value, global};

mod export;

pub use export::{ExportGuard, start};

/// A span. It ends when its last clone is dropped.
#[derive(Clone, Debug)]
pub struct Span(Context);

impl Span {
    /// The handling of a request: part of the caller's trace if `caller` is a valid `traceparent`.
    pub fn server(name: impl Display, caller: Option<&str>) -> Self {
        let parent = match caller.and_then(parse_traceparent) {
            Some(caller) => Context::new().with_remote_span_context(caller),
            None => Context::new(),
        };
        start_span(of_kind(SpanKind::Server, name), &parent)
    }

    /// Work that a request has queued, perhaps long ago: a trace of its own, linked to the
    /// request's.
    pub fn consumer(name: impl Display, request: Option<&str>) -> Self {
        let request = request.and_then(parse_traceparent).map(Link::with_context);
        let links = request.into_iter().collect();
        let span = of_kind(SpanKind::Consumer, name).with_links(links);
        start_span(span, &Context::new())
    }

    /// A call to another service: a child of the current span.
    pub fn client(name: impl Display) -> Self {
        start_span(of_kind(SpanKind::Client, name), &Context::current())
    }

    /// The current span.
    pub fn current() -> Self {
        Span(Context::current())
    }

    /// Runs `work` with this as the current span.
    pub fn scope<W: Future>(&self, work: W) -> impl Future<Output = W::Output> + use<W> {
        work.with_context(self.0.clone())
    }

    /// Sets an attribute.
    pub fn set_attribute(&self, key: &'static str, value: impl Into<Value>) {
        self.0.span().set_attribute(KeyValue::new(key, value));
    }

    /// Marks the span as failed with an error code.
    pub fn set_error(&self, code: impl Display) {
        let code = code.to_string();
        self.set_attribute("error.type", code.clone());
        self.0.span().set_status(Status::error(code));
    }

    /// The span's `traceparent`, if it belongs to a trace.
    pub fn traceparent(&self) -> Option<String> {
        let span = self.0.span();
        let context = span.span_context();
        let (trace, span) = (context.trace_id(), context.span_id());
        let traceparent = || format!("00-{trace}-{span}-{:02x}", context.trace_flags());
        context.is_valid().then(traceparent)
    }
}

fn of_kind(kind: SpanKind, name: impl Display) -> SpanBuilder {
    SpanBuilder::from_name(name.to_string()).with_kind(kind)
}

fn start_span(span: SpanBuilder, parent: &Context) -> Span {
    let span = global::tracer("blog-post-api").build_with_context(span, parent);
    Span(parent.with_span(span))
}

fn parse_traceparent(traceparent: &str) -> Option<SpanContext> {
    trace_id(traceparent)?;
    let mut parts = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?);
    Some(SpanContext::new(
        trace,
        span,
        flags,
        true,
        TraceState::default(),
    ))
}

/// The trace id of a `traceparent`; None if that is not exactly of version 00.
/// <https://www.w3.org/TR/trace-context/>
pub fn trace_id(traceparent: &str) -> Option<&str> {
    let hex = |part: &&str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<&str> = traceparent.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else {
        return None;
    };
    let lengths = (trace.len(), parent.len(), flags.len());
    let is_sane = version == "00" && lengths == (32, 16, 2) && parts.iter().all(hex);
    let is_zero = |id: &str| id.bytes().all(|b| b == b'0');
    (is_sane && !is_zero(trace) && !is_zero(parent)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn a_sane_traceparent_names_its_trace() {
        for flags in ["00", "01", "ff"] {
            let sane = format!("00-{TRACE}-{PARENT}-{flags}");
            assert_eq!(trace_id(&sane), Some(TRACE));
        }
    }

    #[test]
    fn without_a_collector_a_span_passes_on_what_its_caller_told() {
        for flags in ["00", "01", "ff"] {
            let told = format!("00-{TRACE}-{PARENT}-{flags}");
            let span = Span::server("GET /", Some(&told));
            assert_eq!(span.traceparent(), Some(told));
        }
        assert_eq!(Span::server("GET /", None).traceparent(), None);
    }

    #[test]
    fn an_insane_traceparent_is_none() {
        let zeros = "0".repeat(32);
        let insane = [
            String::new(),
            "---".to_owned(),
            format!("01-{TRACE}-{PARENT}-01"),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("00-{TRACE}-{PARENT}-01-"),
            format!(" 00-{TRACE}-{PARENT}-01"),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{zeros}-{PARENT}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{TRACE}0-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-1"),
            format!("00-{TRACE}-{}g-01", &PARENT[1..]),
            format!("00-{}é-{PARENT}-01", &TRACE[2..]),
        ];
        for insane in insane {
            assert_eq!(trace_id(&insane), None, "{insane}");
        }
    }
}
