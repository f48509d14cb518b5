//! A collector of traces, which takes them as OpenTelemetry's exporters send
//! them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span as Sent;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use serde_json::{Value, json};
use testing::TIMEOUT;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// A span, its ids in hex.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// Who sent it.
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty for the root of a trace.
    pub(crate) parent: String,
    /// Traces and spans that it is linked to.
    pub(crate) links: Vec<(String, String)>,
    pub(crate) attributes: BTreeMap<String, Value>,
    /// What its status says if that is an error.
    pub(crate) error: Option<String>,
}

pub(crate) struct Collector {
    url: String,
    taken: Arc<Taken>,
    server: AbortHandle,
}

struct Taken {
    spans: watch::Sender<Vec<Span>>,
    headers: watch::Sender<HeaderMap>,
    refusals: watch::Sender<usize>,
    refuses: AtomicBool,
}

impl Collector {
    pub(crate) async fn new() -> Collector {
        let taken = Arc::new(Taken {
            spans: watch::Sender::default(),
            headers: watch::Sender::default(),
            refusals: watch::Sender::default(),
            refuses: AtomicBool::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/v1/traces", post(take))
            .with_state(taken.clone());
        let server = tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
        Collector {
            url,
            taken,
            server: server.abort_handle(),
        }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// All spans that have come.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.taken.spans.borrow().clone()
    }

    /// Those of a name.
    pub(crate) fn named(&self, name: &str) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.name == name);
        spans
    }

    /// Of the latest request.
    pub(crate) fn headers(&self) -> HeaderMap {
        self.taken.headers.borrow().clone()
    }

    /// Whether it refuses what comes from now on.
    pub(crate) fn refuses(&self, refuses: bool) {
        self.taken.refuses.store(refuses, Ordering::SeqCst);
    }

    /// Waits until it has refused so often.
    pub(crate) async fn has_refused(&self, times: usize) {
        let mut refusals = self.taken.refusals.subscribe();
        let enough = timeout(TIMEOUT, refusals.wait_for(|refusals| *refusals >= times)).await;
        enough.expect("nothing comes to refuse").unwrap();
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(State(taken): State<Arc<Taken>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if taken.refuses.load(Ordering::SeqCst) {
        taken.refusals.send_modify(|refusals| *refusals += 1);
        return StatusCode::BAD_REQUEST;
    }
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let sent = ExportTraceServiceRequest::decode(body).unwrap();
    for process in sent.resource_spans {
        let attributes = attributes(&process.resource.unwrap().attributes);
        let service = attributes["service.name"].as_str().unwrap();
        let sent = process.scope_spans.iter().flat_map(|scope| &scope.spans);
        let spans: Vec<Span> = sent.map(|span| read(service, span)).collect();
        taken.spans.send_modify(|all| all.extend(spans));
    }
    taken.headers.send_replace(headers);
    StatusCode::OK
}

fn read(service: &str, sent: &Sent) -> Span {
    let links = sent.links.iter();
    let status = sent.status.as_ref();
    Span {
        service: service.to_owned(),
        name: sent.name.clone(),
        kind: sent.kind(),
        trace: hex(&sent.trace_id),
        id: hex(&sent.span_id),
        parent: hex(&sent.parent_span_id),
        links: links
            .map(|link| (hex(&link.trace_id), hex(&link.span_id)))
            .collect(),
        attributes: attributes(&sent.attributes),
        error: status
            .filter(|status| status.code == 2)
            .map(|status| status.message.clone()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(sent: &[KeyValue]) -> BTreeMap<String, Value> {
    let value = |sent: &KeyValue| match sent.value.clone()?.value? {
        any_value::Value::StringValue(text) => Some(json!(text)),
        any_value::Value::IntValue(number) => Some(json!(number)),
        other => panic!("nobody should send {other:?}"),
    };
    let read = |sent: &KeyValue| (sent.key.clone(), value(sent).unwrap_or_default());
    sent.iter().map(read).collect()
}
