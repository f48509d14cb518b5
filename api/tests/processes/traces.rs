//! What a collector of traces is sent.

use std::time::Duration;

use entity::job;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use reqwest::Method;
use sea_orm::EntityTrait;
use serde_json::{Value, json};
use testing::stub::whole;
use testing::{HEADINGS, TestClient, text};
use tokio::net::TcpListener;

use crate::support::{Collector, OUTLINE, ScriptedAgent, Service, Span};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// The caller's own trace, and its own span.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What a stop may take when the collector is of no help: less than the exporter's own limit.
const AT_MOST: Duration = Duration::from_secs(9);

async fn ask(ann: &TestClient) -> Value {
    let request = ann.request(Method::POST, "/blogs");
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    let request = request.header("x-request-id", "from-ann");
    let body = json!({ "topic": "Growing tomatoes" });
    let answer = ann.send(request.json(&body)).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.body
}

fn said(span: &Span, names: &[&str]) -> Vec<Value> {
    let said = |name: &&str| span.attributes.get(*name).cloned().unwrap_or_default();
    names.iter().map(said).collect()
}

#[tokio::test]
async fn a_request_is_sent_as_a_part_of_its_callers_trace_and_each_attempt_linked_to_it() {
    let collector = Collector::new().await;
    let writer = ScriptedAgent::scripted(|asked, before| {
        let busy = asked == OUTLINE && before == 0;
        busy.then(|| whole(503, &[], "come again"))
    })
    .await;
    let service = Service::of(&writer).set(ENDPOINT, collector.url());
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ask(&ann).await;
    ann.wait_for_status(&post, "succeeded").await;
    // What has not been sent by then is sent now.
    worker.stop().await;
    api.stop().await.assert_no_warnings();

    let [request] = &collector.named("POST /api/v1/blogs")[..] else {
        panic!("{:#?}", collector.spans());
    };
    assert_eq!(request.service, "blog-api");
    assert_eq!(request.kind, SpanKind::Server);
    assert_eq!((&*request.trace, &*request.parent), (TRACE, CALLER));
    let names = ["request_id", "http.route", "http.response.status_code"];
    let expected = [json!("from-ann"), json!("/api/v1/blogs"), json!(202)];
    assert_eq!(said(request, &names), expected);

    let attempts = collector.named("attempt");
    let [failed, succeeded] = &attempts[..] else {
        panic!("{attempts:#?}");
    };
    let job_id = &post["job"]["id"];
    for (attempt, number) in [(failed, 1), (succeeded, 2)] {
        assert_eq!(attempt.service, "blog-worker");
        assert_eq!(attempt.kind, SpanKind::Consumer);
        // A trace of its own, which leads to the request.
        assert_eq!(attempt.parent, "");
        assert_ne!(attempt.trace, TRACE);
        let link = (TRACE.to_owned(), request.id.clone());
        assert_eq!(attempt.links, [link]);
        let names = ["job_id", "attempt", "model", "request_id"];
        let expected = [
            job_id.clone(),
            json!(number),
            json!("stub"),
            json!("from-ann"),
        ];
        assert_eq!(said(attempt, &names), expected);
    }
    assert_ne!(failed.trace, succeeded.trace);
    assert_eq!(failed.attributes["outcome"], "retried");
    assert_eq!(failed.error.as_deref(), Some("agent_unavailable"));
    assert_eq!(succeeded.attributes["outcome"], "succeeded");
    assert_eq!(succeeded.error, None);
}

#[tokio::test]
async fn each_call_to_the_agent_is_a_part_of_its_attempt() {
    let collector = Collector::new().await;
    let writer = ScriptedAgent::scripted(|asked, before| {
        let busy = asked == OUTLINE && before == 0;
        busy.then(|| whole(503, &[], "come again"))
    })
    .await;
    let service = Service::of(&writer).set(ENDPOINT, collector.url());
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ask(&ann).await;
    ann.wait_for_status(&post, "succeeded").await;
    worker.stop().await;

    let calls = collector.named("chat stub");
    assert_eq!(calls.len(), 1 + 1 + HEADINGS.len());
    let attempts = collector.named("attempt");
    let names = [
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "error.type",
    ];
    for (n, call) in calls.iter().enumerate() {
        let attempt = &attempts[n.min(1)];
        assert_eq!(call.kind, SpanKind::Client);
        assert_eq!((&call.trace, &call.parent), (&attempt.trace, &attempt.id));
        let (read, written, error) = match n {
            0 => (Value::Null, Value::Null, json!("agent_unavailable")),
            _ => (json!(10), json!(20), Value::Null),
        };
        let expected = [
            json!("chat"),
            json!("openai"),
            json!("stub"),
            read,
            written,
            error,
        ];
        assert_eq!(said(call, &names), expected);
        // A model that traces, too, can go on from there.
        let told = format!("00-{}-{}-01", call.trace, call.id);
        assert_eq!(writer.calls()[n].headers["traceparent"], told);
    }
}

#[tokio::test]
async fn a_job_keeps_the_trace_of_its_request_or_without_a_collector_of_its_caller() {
    let (collector, writer) = (Collector::new().await, ScriptedAgent::new().await);
    for url in [Some(collector.url()), None] {
        let service = Service::of(&writer).set(ENDPOINT, url.clone().unwrap_or_default());
        let (api, worker) = (service.api().await, service.worker().await);
        let ann = api.user("ann").await;
        let post = ask(&ann).await;
        ann.wait_for_status(&post, "succeeded").await;
        worker.stop().await.assert_no_warnings();
        api.stop().await.assert_no_warnings();

        let db = service.database().await;
        let id = text(&post["job"]["id"]).parse::<uuid::Uuid>().unwrap();
        let job = job::Entity::find_by_id(id).one(db.read()).await.unwrap();
        let place = match url {
            Some(_) => collector.named("POST /api/v1/blogs")[0].id.clone(),
            None => CALLER.to_owned(),
        };
        let expected = format!("00-{TRACE}-{place}-01");
        assert_eq!(job.unwrap().traceparent, Some(expected));
        db.close().await;
    }
    // Nobody but a collector's owner has an agent told of it.
    let calls = writer.calls();
    let (traced, untraced) = calls.split_at(1 + HEADINGS.len());
    let told = |call: &testing::stub::RecordedRequest| call.headers.contains_key("traceparent");
    assert!(traced.iter().all(told));
    assert!(!untraced.iter().any(told) && !untraced.is_empty());
}

#[tokio::test]
async fn a_request_that_its_caller_does_not_trace_is_not_sent() {
    let collector = Collector::new().await;
    let service = Service::new().set(ENDPOINT, collector.url());
    let api = service.api().await;
    let ann = api.user("ann").await;
    let request = ann.request(Method::GET, "/users/me");
    let untraced = format!("00-{TRACE}-{CALLER}-00");
    ann.send(request.header("traceparent", untraced)).await;
    api.stop().await;
    let names: Vec<String> = collector.spans().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["POST /api/v1/users/register"]);
}

#[tokio::test]
async fn a_dead_or_silent_collector_costs_one_log_line_and_little_time() {
    // Nobody listens there; and here somebody does, and says nothing.
    let dumb = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dumb = (format!("http://{}", dumb.local_addr().unwrap()), Some(dumb));
    for (url, _listener) in [("http://127.0.0.1:1".to_owned(), None), dumb] {
        let writer = ScriptedAgent::new().await;
        let service = Service::of(&writer)
            .set(ENDPOINT, url)
            .set("OTEL_BSP_SCHEDULE_DELAY", "10");
        let (api, worker) = (service.api().await, service.worker().await);
        let ann = api.user("ann").await;
        let post = ask(&ann).await;
        let job = ann.wait_for_status(&post, "succeeded").await;
        assert_eq!(job["attempt"], 1);
        for exit in [worker.stop().await, api.stop().await] {
            assert!(exit.took < AT_MOST, "{:?}", exit.took);
            let troubled =
                |line: &&Value| ["WARN", "ERROR"].contains(&line["level"].as_str().unwrap());
            let log = exit.log();
            let troubles: Vec<&Value> = log.iter().filter(troubled).collect();
            assert!(troubles.len() <= 1, "{troubles:#?}");
        }
    }
}

#[tokio::test]
async fn a_collector_that_fails_and_recovers_is_logged_once_each() {
    let collector = Collector::new().await;
    collector.refuses(true);
    let service = Service::new()
        .set(ENDPOINT, collector.url())
        .set("OTEL_BSP_SCHEDULE_DELAY", "10");
    let api = service.api().await;
    let ann = TestClient::anonymous(&api.url);
    for times in 1..4 {
        ann.get("/users/me").await;
        collector.has_refused(times).await;
    }
    collector.refuses(false);
    ann.get("/models").await;
    api.wait_for_message("traces reach the collector again")
        .await;
    let log = api.stop().await.log();
    let lost = "traces don't reach the collector; trying again";
    let lost = log.iter().filter(|line| line["message"] == lost);
    assert_eq!(lost.count(), 1, "{log:#?}");
}
