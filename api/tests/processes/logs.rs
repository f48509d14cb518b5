//! What operators read.

use serde_json::{Value, json};

use crate::client::{Client, text};
use crate::service::Service;
use crate::writer::Writer;

#[tokio::test]
async fn each_request_has_one_line_and_each_line_is_json() {
    let service = Service::new();
    let api = service.api().await;
    let ann = api.user("ann").await;
    let post = ann.ask("Growing tomatoes").await;
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
    Client::anonymous(&api.url).get("/nowhere").await;

    let exit = api.stop().await;
    exit.is_calm();
    let log = exit.log();
    let answered = log.iter().filter(|line| line["message"] == "answered");
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

#[tokio::test]
async fn lines_of_an_attempt_tell_its_job_and_its_number() {
    let writer = Writer::new().await;
    let service = Service::of(&writer);
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.ask("Growing tomatoes").await;
    let job = ann.until(&post, "succeeded").await;

    let log = worker.stop().await.log();
    for message in ["begun", "succeeded"] {
        let lines: Vec<&Value> = log.iter().filter(|l| l["message"] == message).collect();
        assert_eq!(lines.len(), 1, "{message}: {log:#?}");
        assert_eq!(lines[0]["span"]["job_id"], job["id"]);
        assert_eq!(lines[0]["span"]["attempt"], 1);
    }
}

#[tokio::test]
async fn lines_for_people_have_no_escape_codes_in_a_file() {
    let service = Service::new().set("LOG_FORMAT", "text");
    let api = service.start("api");
    let ready = api.line("the API is ready").await;
    assert!(ready.contains(" INFO api: the API is ready address=127.0.0.1:"));
    assert!(!api.stop().await.text().contains('\u{1b}'));
}
