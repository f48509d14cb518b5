//! What must be written nowhere: passwords, tokens, keys.

use reqwest::Method;
use serde_json::json;
use testing::{PASSWORD, TestClient, text};

use crate::support::{Api, Collector, ScriptedAgent, Service};

const KEY: &str = "sk-marked-key-0123456789";
const HEADER: &str = "marked-header-0123456789";
const COLLECTOR_KEY: &str = "marked-collector-key-0123456789";
const SECRET: &str = "marked-secret-0123456789-0123456789";
const NEW_PASSWORD: &str = "marked new password";

/// Everything at its loudest; naming a library overrides what we set for it.
const LOUD: &str = "trace,apalis_core=trace,apalis_sqlite=trace,sea_orm=trace,\
                    sea_orm_migration=trace,sqlx=trace,hyper=trace,reqwest=trace";

#[tokio::test]
async fn no_secret_is_logged_or_stored_however_loud_the_log_is() {
    let (writer, collector) = (ScriptedAgent::new().await, Collector::new().await);
    let service = Service::of(&writer)
        .set("RUST_LOG", LOUD)
        .set("JWT_SECRET", SECRET)
        .set("AGENT_API_KEY", KEY)
        .set("AGENT_HEADERS", format!("x-other-key: {HEADER}"))
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .set(
            "OTEL_EXPORTER_OTLP_HEADERS",
            format!("x-key={COLLECTOR_KEY}"),
        );
    let (api, worker) = (service.api().await, service.worker().await);

    let secrets = whole_flow(&api).await;
    // The key was sent, so it might have been logged.
    let calls = writer.calls();
    assert_eq!(calls[0].headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(calls[0].headers["x-other-key"], HEADER);
    let outputs = [api.stop().await.text(), worker.stop().await.text()];
    assert_eq!(collector.headers()["x-key"], COLLECTOR_KEY);
    for output in &outputs {
        assert!(output.contains("\"TRACE\""), "the log is not loud");
    }
    let stored = service.stored().await;
    assert!(contains(&stored, "Growing tomatoes"), "nothing is stored");
    for secret in secrets {
        for output in &outputs {
            let line = output.lines().find(|line| line.contains(&secret));
            assert_eq!(line, None, "{secret} is logged");
        }
        assert!(!contains(&stored, &secret), "{secret} is stored");
    }
}

#[tokio::test]
async fn no_secret_is_in_what_an_agents_refusal_leaves_behind() {
    // Some providers repeat the key in their answer.
    let body =
        json!({ "error": { "message": format!("bad key {KEY}"), "code": "invalid_api_key" } });
    let refusal = testing::stub::whole(
        401,
        &[("content-type", "application/json")],
        &body.to_string(),
    );
    let writer = ScriptedAgent::scripted(move |_, _| Some(refusal.clone())).await;
    let service = Service::of(&writer).set("AGENT_API_KEY", KEY);
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    let job = ann.wait_for_status(&post, "failed").await;
    assert_eq!(job["error"]["code"], "agent_rejected");
    assert!(!job.to_string().contains(KEY));
    let log = worker.stop().await.text();
    assert!(log.contains("bad key"), "{log}");
    assert!(!log.contains(KEY), "{log}");
    api.stop().await;
    assert!(!contains(&service.stored().await, KEY));
}

/// Does all that has to do with secrets, and tells those.
async fn whole_flow(api: &Api) -> Vec<String> {
    let ann = api.user("ann").await;
    let mut secrets = vec![PASSWORD, NEW_PASSWORD, KEY, HEADER, COLLECTOR_KEY, SECRET];
    let given = "marked wrong password";
    secrets.push(given);
    let wrong = json!({ "username": "ann", "password": given });
    let wrong = TestClient::anonymous(&api.url)
        .post("/users/login", wrong)
        .await;
    assert_eq!(wrong.status, 401);
    let login = json!({ "username": "ann", "password": PASSWORD });
    let login = ann.post("/users/login", login).await;
    assert_eq!(login.status, 200);
    let again = ann.clone().with_session(&login.body);
    let refreshed = json!({ "refresh_token": again.refresh_token });
    let refreshed = ann.post("/users/refresh", refreshed).await;
    assert_eq!(refreshed.status, 200);
    let third = ann.clone().with_session(&refreshed.body);
    // Twice is theft.
    let spent = json!({ "refresh_token": again.refresh_token });
    assert_eq!(ann.post("/users/refresh", spent).await.status, 401);
    assert_eq!(third.get("/users/me").await.status, 401);
    let change = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD });
    let changed = ann.put("/users/me/password", change).await;
    assert_eq!(changed.status, 204, "{changed:?}");
    let broken = ann.request(reqwest::Method::POST, "/users/login");
    let broken = broken.header("content-type", "application/json");
    let broken = broken.body(format!("{{\"password\": \"{PASSWORD}\", nonsense"));
    assert_eq!(ann.send(broken).await.status, 400);
    let post = ann.create_post("Growing tomatoes").await;
    ann.wait_for_status(&post, "succeeded").await;

    let tokens = [&ann, &again, &third].map(|c| [c.token.clone(), c.refresh_token.clone()]);
    let secrets = secrets.into_iter().map(str::to_owned);
    secrets.chain(tokens.into_iter().flatten()).collect()
}

fn contains(stored: &[u8], secret: &str) -> bool {
    let mut parts = stored.windows(secret.len());
    parts.any(|part| part == secret.as_bytes())
}

#[tokio::test]
async fn no_key_in_an_agents_address_is_logged() {
    let address = "http://me:hunter2@127.0.0.1:1/v1?key=hunter2";
    for agent in ["", "openai"] {
        let service = Service::new()
            .set("AGENT", agent)
            .set("AGENT_MODEL", "stub")
            .set("AGENT_URL", address)
            .set("JOB_MAX_ATTEMPTS", "1");
        let (api, worker) = (service.api().await, service.worker().await);
        let ann = api.user("ann").await;
        let post = ann.create_post("Growing tomatoes").await;
        ann.wait_for_status(&post, "failed").await;
        let log = worker.stop().await.text();
        assert!(log.contains("Connection refused"), "{log}");
        assert!(!log.contains("hunter2"), "{log}");
    }
}

/// The text of a post, and all copies of it.
#[tokio::test]
async fn a_post_that_is_deleted_is_nowhere_any_more() {
    const TOPIC: &str = "Growing marked tomatoes";
    const TEXT: &str = "Marked words of my own";
    let writer = ScriptedAgent::new().await;
    let service = Service::of(&writer);
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let ask = ann.request(Method::POST, "/blogs");
    let ask = ask
        .header("idempotency-key", "k1")
        .header("prefer", "wait=30");
    let post = ann.send(ask.json(&json!({ "topic": TOPIC }))).await;
    assert_eq!(post.status, 201, "{post:?}");
    let path = format!("/blogs/{}", text(&post.body["id"]));
    let written = text(&post.body["content"]);
    let written: String = written.lines().last().unwrap().chars().take(40).collect();
    ann.put(&path, json!({ "content": TEXT.repeat(500) })).await;
    let others = ann.create_post("Growing potatoes").await;
    ann.wait_for_status(&others, "succeeded").await;
    let marks = [TOPIC, TEXT, &written];
    let stored = service.stored().await;
    assert!(marks.iter().all(|mark| contains(&stored, mark)));

    let deleted = ann.send(ann.request(Method::DELETE, &path)).await;
    assert_eq!(deleted.status, 200);
    // The last to go writes the log into the file, and removes it.
    let outputs = [api.stop().await.text(), worker.stop().await.text()];
    let stored = service.stored().await;
    assert!(contains(&stored, "Growing potatoes"));
    for mark in marks {
        assert!(!contains(&stored, mark), "{mark} is stored");
        assert!(outputs.iter().all(|output| !output.contains(mark)));
    }
}
