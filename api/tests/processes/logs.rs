//! What operators read.

use serde_json::{Value, json};
use testing::stub::{Act, whole};
use testing::{TestClient, text};

use crate::support::{OUTLINE, ScriptedAgent, Service};

const FULL_PACE: &str = "agent rate limit over: calls at full concurrency again";

#[tokio::test]
async fn each_request_has_one_line_and_each_line_is_json() {
    let service = Service::new();
    let api = service.api().await;
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    let id = text(&post["id"]);
    let fine = ann.request(reqwest::Method::GET, &format!("/blogs/{id}"));
    let answer = ann.send(fine.header("x-request-id", "my-own-1")).await;
    assert_eq!(answer.headers["x-request-id"], "my-own-1");
    let forged = ann.request(reqwest::Method::GET, "/blogs/nonsense");
    let refused = ann
        .send(forged.header("x-request-id", "no spaces\u{e9}"))
        .await;
    let given = refused.headers["x-request-id"].to_str().unwrap().to_owned();
    assert_ne!(given, "no spaces\u{e9}");
    TestClient::anonymous(&api.url).get("/nowhere").await;

    let exit = api.stop().await;
    exit.assert_no_warnings();
    let log = exit.log();
    let answered = log
        .iter()
        .filter(|line| line["message"] == "request completed");
    let answered: Vec<&Value> = answered.collect();
    let seen = |line: &&Value| {
        let span = &line["span"];
        assert!(!text(&span["request_id"]).is_empty(), "{line}");
        assert!(line["millis"].is_u64(), "{line}");
        json!([span["method"], span["route"], line["status"]])
    };
    let seen: Vec<Value> = answered.iter().map(seen).collect();
    let expected = [
        json!(["POST", "/api/v1/users/register", 201]),
        json!(["POST", "/api/v1/blogs", 202]),
        json!(["GET", "/api/v1/blogs/{id}", 200]),
        json!(["GET", "/api/v1/blogs/{id}", refused.status]),
        json!(["GET", "unknown", 404]),
    ];
    assert_eq!(seen, expected);
    assert_eq!(answered[2]["span"]["request_id"], "my-own-1");
    assert_eq!(answered[3]["span"]["request_id"], given);
}

/// What a worker says of no job.
const OF_THE_WORKER: [&str; 5] = [
    "connections to Postgres",
    "metrics are served",
    "the worker is ready",
    "stopping: starting no new work, finishing what runs",
    "the worker has stopped",
];

/// All that a worker said of jobs: which attempt it is, whose request it comes
/// from, and the message. There must be no line without.
fn said_of_attempts(log: &[Value]) -> Vec<Value> {
    let of_a_job = |line: &&Value| !OF_THE_WORKER.contains(&line["message"].as_str().unwrap());
    let told = |line: &Value| {
        let span = &line["span"];
        assert!(span["job_id"].is_string(), "{line}");
        let trace = &span["trace_id"];
        json!([span["attempt"], span["request_id"], trace, line["message"]])
    };
    log.iter().filter(of_a_job).map(told).collect()
}

/// Asks for something, as a request that has an id and a place in a trace.
async fn ask(ann: &TestClient, path: &str, id: &str, trace: &str) -> Value {
    let request = ann.request(reqwest::Method::POST, path);
    let request = request.header("x-request-id", id);
    let request = request.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    let body = json!({ "topic": "Growing tomatoes" });
    let request = match path {
        "/blogs" => request.json(&body),
        _ => request,
    };
    let answer = ann.send(request).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.body
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const ANOTHER: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::test]
async fn every_log_line_of_an_attempt_has_the_request_id_of_its_job() {
    let busy = || whole(503, &[], "come again");
    let writer = ScriptedAgent::scripted(move |asked, before| match (asked, before) {
        (OUTLINE, 0) => Some(busy()),
        (OUTLINE, 1) => Some(vec![Act::Hold]),
        (OUTLINE, 2) => Some(whole(401, &[], "no")),
        _ => None,
    })
    .await;
    let service = Service::of(&writer);
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ask(&ann, "/blogs", "from-ann", TRACE).await;
    writer.wait_for_requests(OUTLINE, 2).await;
    let killed = worker.kill().await.log();
    let heir = service.worker().await;
    ann.wait_for_status(&post, "failed").await;
    let retry = format!("/jobs/{}/retry", text(&post["job"]["id"]));
    ask(&ann, &retry, "once-more", ANOTHER).await;
    ann.wait_for_status(&post, "succeeded").await;

    let asked = |attempt: i32, message: &str| json!([attempt, "from-ann", TRACE, message]);
    let expected = [
        asked(1, "attempt started"),
        asked(1, "the agent wrote no text"),
        asked(1, "attempt failed; the job will be retried"),
        asked(2, "attempt started"),
    ];
    assert_eq!(said_of_attempts(&killed), expected);
    let expected = [
        asked(2, "rescued a job: its worker's lease expired"),
        asked(3, "attempt started"),
        asked(3, "the agent wrote no text"),
        asked(3, "job failed"),
        json!([4, "once-more", ANOTHER, "attempt started"]),
        json!([4, "once-more", ANOTHER, "attempt succeeded"]),
    ];
    assert_eq!(said_of_attempts(&heir.stop().await.log()), expected);

    // The API's lines tell the same trace.
    let log = api.stop().await.log();
    let of_trace = |line: &&Value| line["span"]["trace_id"] == TRACE;
    let of_trace: Vec<&Value> = log.iter().filter(of_trace).collect();
    assert_eq!(of_trace.len(), 1, "{log:#?}");
    assert_eq!(of_trace[0]["span"]["request_id"], "from-ann");
}

#[tokio::test]
async fn warnings_name_their_job_even_without_other_lines() {
    let writer = ScriptedAgent::scripted(|_, _| Some(whole(401, &[], "no"))).await;
    let service = Service::of(&writer);
    let api = service.api().await;
    let service = service.set("RUST_LOG", "warn");
    let worker = service.start("worker");
    let ann = api.user("ann").await;
    let post = ask(&ann, "/blogs", "from-ann", TRACE).await;
    ann.wait_for_status(&post, "failed").await;
    let said = said_of_attempts(&worker.stop().await.log());
    let asked = |message: &str| json!([1, "from-ann", TRACE, message]);
    let expected = [asked("the agent wrote no text"), asked("job failed")];
    assert_eq!(said, expected);
}

#[tokio::test]
async fn the_text_log_has_no_escape_codes_in_a_file() {
    let service = Service::new().set("LOG_FORMAT", "text");
    let api = service.start("api");
    let ready = api.line("the API is ready").await;
    assert!(ready.contains(" INFO api::program: the API is ready address=127.0.0.1:"));
    assert!(!api.stop().await.text().contains('\u{1b}'));
}

#[tokio::test]
async fn a_rate_limit_is_logged_in_one_line_and_its_end_in_another() {
    let writer = ScriptedAgent::scripted(|asked, before| {
        let refused = asked == OUTLINE && before == 0;
        let headers = [("retry-after", "1")];
        refused.then(|| whole(429, &headers, "slow down, please"))
    })
    .await;
    let service = Service::of(&writer);
    let api = service.api().await;
    let ann = api.user("ann").await;
    let mut posts = Vec::new();
    for _ in 0..5 {
        posts.push(ann.create_post("Growing tomatoes").await);
    }
    let worker = service.worker().await;
    for post in &posts {
        ann.wait_for_status(post, "succeeded").await;
    }

    let log = worker.stop().await.log();
    let warnings: Vec<&Value> = log.iter().filter(|line| line["level"] == "WARN").collect();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert_eq!(warnings[0]["seconds"], 1.0);
    let error = text(&warnings[0]["error"]);
    assert!(error.contains("slow down, please"), "{error}");
    let ended = log.iter().filter(|line| line["message"] == FULL_PACE);
    assert_eq!(ended.count(), 1);
}
