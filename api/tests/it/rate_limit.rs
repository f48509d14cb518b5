//! How often one may ask.

use std::time::Duration;

use entity::post;
use serde_json::json;
use testing::{PASSWORD, TestClient, TestResponse};

use crate::support::TestApp;

/// With so few requests a minute, none comes back while a test runs.
const FOUR: &str = "--rate-limit-per-minute=4";

/// How many requests are left, and in how many seconds there is one more.
fn left(answer: &TestResponse) -> (u32, u64) {
    let field = answer.header("ratelimit");
    let told = field.strip_prefix("\"default\";r=").expect(field);
    let (left, seconds) = told.split_once(";t=").expect(field);
    (left.parse().unwrap(), seconds.parse().unwrap())
}

fn is_refused(answer: &TestResponse) {
    answer.assert_error(429, "rate_limited");
    let (left, seconds) = left(answer);
    assert_eq!(left, 0);
    assert_eq!(answer.header("retry-after"), seconds.to_string());
}

async fn me(client: &TestClient) -> TestResponse {
    client.get("/users/me").await
}

#[tokio::test]
async fn every_response_shows_how_many_requests_are_left() {
    let app = TestApp::with(&[FOUR]).await;
    let ann = app.user("ann").await;
    let answers = [
        me(&ann).await,
        ann.post("/blogs", json!({ "topic": "?" })).await,
        ann.get("/nothing/of/the/kind").await,
        ann.get("/openapi.json").await,
    ];
    let statuses = answers.each_ref().map(|answer| answer.status);
    assert_eq!(statuses, [200, 422, 404, 200]);
    let told = answers.each_ref().map(left);
    assert_eq!(told, [(3, 15), (2, 15), (1, 15), (0, 15)]);

    let refused = me(&ann).await;
    is_refused(&refused);
    assert!(left(&refused).1 <= 15, "{refused:?}");
    for answer in answers.iter().chain([&refused]) {
        let policy = answer.header("ratelimit-policy");
        assert_eq!(policy, "\"default\";q=4;w=60");
    }
}

#[tokio::test]
async fn a_client_that_waits_as_long_as_retry_after_says_may_go_on() {
    let app = TestApp::with(&["--rate-limit-per-minute=60"]).await;
    let ann = app.user("ann").await;
    let mut answer = me(&ann).await;
    while answer.status == 200 {
        answer = me(&ann).await;
    }
    is_refused(&answer);
    let (_, seconds) = left(&answer);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    me(&ann).await.expect(200);
}

#[tokio::test]
async fn a_rate_limited_request_is_not_executed() {
    let app = TestApp::with(&[FOUR]).await;
    let ann = app.user("ann").await;
    for _ in 0..4 {
        me(&ann).await.expect(200);
    }
    is_refused(&ann.post("/blogs", json!({ "topic": "Valves" })).await);
    assert_eq!(app.count(post::Entity).await, 0);
}

#[tokio::test]
async fn users_share_no_limit_and_those_who_are_not_signed_in_share_that_of_their_address() {
    let app = TestApp::with(&[FOUR]).await;
    // Both sign up from one address.
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    for _ in 0..4 {
        me(&ann).await.expect(200);
    }
    is_refused(&me(&ann).await);
    assert_eq!(left(&me(&bob).await).0, 3);
    // Whoever they are, and whatever they ask for.
    assert_eq!(left(&app.anonymous().get("/models").await).0, 1);
    assert_eq!(left(&app.anonymous().get("/openapi.json").await).0, 0);
    is_refused(&app.anonymous().get("/models").await);
    me(&bob).await.expect(200);
}

#[tokio::test]
async fn a_token_that_we_did_not_sign_counts_to_the_address() {
    let app = TestApp::with(&[FOUR]).await;
    let ann = app.user("ann").await;
    let mut forged = ann.token.clone();
    // The last characters are the signature's.
    forged.replace_range(forged.len() - 4.., "AAAA");
    for (token, expected) in [(forged.as_str(), 2), ("nonsense", 1), (&forged, 0)] {
        let answer = me(&app.client_with_token(token)).await;
        assert_eq!((answer.status, left(&answer).0), (401, expected));
    }
    is_refused(&me(&app.client_with_token(&forged)).await);
    assert_eq!(left(&me(&ann).await).0, 3);
}

#[tokio::test]
async fn logins_count_to_the_address_even_with_a_token() {
    let app = TestApp::with(&[FOUR]).await;
    let ann = app.user("ann").await;
    for expected in [2, 1, 0] {
        let answer = ann.login("ann", "not that of ann").await;
        assert_eq!((answer.status, left(&answer).0), (401, expected));
    }
    is_refused(&ann.login("ann", PASSWORD).await);
    is_refused(&ann.refresh(&ann.refresh_token).await);
    assert_eq!(left(&me(&ann).await).0, 3);
}

#[tokio::test]
async fn health_metrics_and_docs_are_not_rate_limited() {
    let app = TestApp::with(&["--rate-limit-per-minute=1"]).await;
    let client = app.anonymous();
    client.get("/models").await;
    is_refused(&client.get("/models").await);
    for path in ["//health", "//ready", "//docs/", "//metrics"] {
        for _ in 0..3 {
            let answer = client.get(path).await;
            answer.assert_status(200);
            assert_eq!(answer.header("ratelimit"), "", "{path}");
        }
    }
}

#[tokio::test]
async fn without_a_limit_no_ratelimit_headers_are_sent() {
    let app = TestApp::with(&["--rate-limit-per-minute=0"]).await;
    let ann = app.user("ann").await;
    let answer = me(&ann).await;
    answer.assert_status(200);
    for field in ["ratelimit", "ratelimit-policy"] {
        assert!(!answer.headers.contains_key(field));
    }
}
