//! What those who run the service rely on.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;
use testing::PASSWORD;
use uuid::Uuid;

use crate::support::{TestApp, documented_routes};

#[tokio::test]
async fn a_service_that_works_is_healthy_and_ready() {
    let app = TestApp::new().await;
    for path in ["//health", "//ready"] {
        let answer = app.anonymous().get(path).await.expect(200);
        assert_eq!(answer, json!({ "status": "ok", "missing": [] }));
    }
}

#[tokio::test]
async fn a_service_without_a_migration_is_not_ready_and_says_which() {
    let app = TestApp::new().await;
    let missing = "m20261122_000002_posts_and_jobs";
    let sql = format!("DELETE FROM seaql_migrations WHERE version = '{missing}'");
    app.execute(&sql).await;

    let answer = app.anonymous().get("//ready").await;
    let missing = [format!("migration {missing}")];
    answer.assert_fields(503, json!({ "status": "unavailable", "missing": missing }));
    assert_ne!(answer.header("retry-after"), "");
    app.anonymous().get("//health").await.expect(200);
}

#[tokio::test]
async fn a_service_without_any_migration_is_not_ready() {
    let app = TestApp::new().await;
    app.execute("DROP TABLE seaql_migrations").await;
    let answer = app.anonymous().get("//ready").await.expect(503);
    assert!(!answer["missing"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn without_a_database_requests_are_answered_503_with_retry_after() {
    let mut app = TestApp::new().await;
    let ann = app.user("ann").await;
    app.allow_unfinished_jobs();
    app.db.clone().close().await;

    let id = Uuid::now_v7();
    let anonymous = app.anonymous();
    let answers = [
        ann.get("/users/me").await,
        ann.get("/blogs").await,
        ann.get(&format!("/jobs/{id}?wait=5")).await,
        ann.post("/blogs", json!({ "topic": "Tomatoes" })).await,
        ann.delete(&format!("/blogs/{id}")).await,
        anonymous.register("bob", PASSWORD).await,
        anonymous.login("bob", PASSWORD).await,
        anonymous.refresh(&ann.refresh_token).await,
    ];
    for answer in answers {
        answer.assert_error(503, "unavailable");
        let after: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&after));
        // Nothing is told of the inside.
        let text = answer.text.to_lowercase();
        assert!(!text.contains("sql") && !text.contains("pool"), "{text}");
    }
    let ready = anonymous.get("//ready").await;
    ready.assert_fields(503, json!({ "missing": ["the database"] }));
    assert_ne!(ready.header("retry-after"), "");
    anonymous.get("//health").await.expect(200);
    // What needs no database goes on.
    anonymous.get("/openapi.json").await.expect(200);
}

#[tokio::test]
async fn an_internal_error_reveals_no_details() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let sql = "ALTER TABLE blog_posts RENAME COLUMN topic TO subject";
    app.execute(sql).await;
    let answer = ann.get("/blogs").await;
    answer.assert_error(500, "internal");
    let text = answer.text.to_lowercase();
    for inside in ["sql", "topic", "column", "blog_posts", "panick", ".rs"] {
        assert!(!text.contains(inside), "{text}");
    }
}

#[tokio::test]
async fn a_request_keeps_the_id_that_its_sender_gave_it() {
    let app = TestApp::new().await;
    let client = app.anonymous();
    let longest = "x".repeat(128);
    for id in ["1", "a-b_c.D9", &Uuid::nil().to_string(), &longest] {
        // Of answers of all kinds, from all layers.
        for path in ["//health", "/users/me", "/nothing", "//docs/"] {
            let request = client.request(Method::GET, path);
            let answer = client.send(request.header("x-request-id", id)).await;
            assert_eq!(answer.header("x-request-id"), id, "{path}");
        }
    }
}

#[tokio::test]
async fn a_request_id_unfit_for_logs_is_replaced() {
    let app = TestApp::new().await;
    let client = app.anonymous();
    let long = "x".repeat(129);
    let bad: [&[u8]; 8] = [
        b"",
        b"a b",
        b"a\"b",
        b"a\tb",
        b"<script>",
        b"id=1 level=error",
        b"\xc3\xa4",
        long.as_bytes(),
    ];
    for id in bad {
        let request = client.request(Method::GET, "/users/me");
        let answer = client.send(request.header("x-request-id", id)).await;
        let given = Uuid::parse_str(answer.header("x-request-id"));
        assert_eq!(given.unwrap().get_version_num(), 7);
    }
}

#[tokio::test]
async fn each_request_gets_a_request_id_of_its_own() {
    let app = TestApp::new().await;
    let client = app.anonymous();
    let first = client.get("//health").await;
    let second = client.get("//health").await;
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}

#[tokio::test]
async fn every_response_forbids_content_sniffing() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    for path in [
        "//health",
        "//docs/",
        "/openapi.json",
        "/users/me",
        "/nothing",
        "/users/login",
    ] {
        let answer = ann.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    }
}

#[tokio::test]
async fn every_response_has_a_content_type_and_text_a_charset() {
    let app = TestApp::new().await;
    let ann = app.admin("ann").await;
    let mut kinds = BTreeSet::new();
    for route in documented_routes(&app).await {
        let path = route.path(&Uuid::now_v7().to_string());
        if path == "/users/logout" {
            continue;
        }
        for client in [&ann, &app.anonymous()] {
            let request = client.request(route.method.clone(), &path);
            let answer = client.send(request).await;
            let kind = answer.header("content-type").to_owned();
            if answer.text.is_empty() {
                assert_eq!(kind, "", "{route:?}");
                continue;
            }
            let is_json = matches!(
                kind.as_str(),
                // JSON has no charset: it is always UTF-8 (RFC 8259, 8.1).
                "application/json" | "application/problem+json"
            );
            let is_text = kind.starts_with("text/") && kind.ends_with("; charset=utf-8");
            assert!(is_json || is_text, "{route:?}: {kind}");
            assert_eq!(answer.body.is_object(), is_json, "{route:?}: {kind}");
            kinds.insert(kind);
        }
    }
    assert_eq!(kinds.len(), 3, "{kinds:?}");
}
