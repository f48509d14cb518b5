//! Posts: how they are changed, written anew and deleted.

use std::time::{Duration, Instant};

use entity::post;
use reqwest::Method;
use sea_orm::EntityTrait;
use sea_orm::sea_query::Expr;
use serde_json::{Value, json};
use testing::stub_openai::StubBehavior;

use crate::agent_failures::at_first;
use crate::support::{TestApp, TestClient, TestResponse, text};

fn path(post: &Value) -> String {
    format!("/blogs/{}", text(&post["id"]))
}

async fn ready(app: &TestApp, owner: &TestClient, topic: &str) -> Value {
    let asked = owner.create_post(topic).await;
    app.run_jobs().await;
    owner.get_post(&asked).await
}

async fn put_if(owner: &TestClient, post: &Value, tag: &str, body: Value) -> TestResponse {
    let request = owner
        .request(Method::PUT, &path(post))
        .header("if-match", tag);
    owner.send(request.json(&body)).await
}

async fn regenerate(owner: &TestClient, post: &Value) -> TestResponse {
    let path = format!("{}/regenerate", path(post));
    owner.send(owner.request(Method::POST, &path)).await
}

#[tokio::test]
async fn an_edit_replaces_the_text_and_raises_the_version() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = ready(&app, &ann, "Revisions").await;
    let body = json!({ "content": "# Top\n\nMy *own* words.", "title": " Mine " });
    let edited = ann.put(&path(&post), body).await;
    assert_eq!((edited.status, edited.header("etag")), (200, "\"3\""));
    assert_eq!(edited.body["title"], "Mine");
    assert_eq!(edited.body["content"], "# Top\n\nMy *own* words.");
    assert_eq!(edited.body["excerpt"], "My own words.");
    assert_eq!(edited.body["word_count"], 4);
    assert_eq!(
        (&edited.body["status"], &edited.body["version"]),
        (&json!("ready"), &json!(3))
    );
    assert_eq!(edited.body["created_at"], post["created_at"]);
    assert_ne!(edited.body["updated_at"], post["updated_at"]);
    assert_eq!(ann.get_post(&post).await, edited.body);

    let edited = ann
        .put(&path(&post), json!({ "content": "Only text." }))
        .await;
    assert_eq!(
        edited.body["title"], "Mine",
        "a title that is not given is kept"
    );
    assert_eq!(edited.body["version"], 4);
}

#[tokio::test]
async fn an_edit_of_an_old_version_is_refused() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = ready(&app, &ann, "Collisions").await;
    let mine = json!({ "content": "Mine." });
    assert_eq!(put_if(&ann, &post, "\"2\"", mine.clone()).await.status, 200);
    let stale = put_if(&ann, &post, "\"2\"", json!({ "content": "Stale." })).await;
    assert_eq!((stale.status, stale.code()), (412, "version_conflict"));
    assert_eq!(ann.get_post(&post).await["content"], "Mine.");
    assert_eq!(put_if(&ann, &post, "*", mine.clone()).await.status, 200);
    assert_eq!(
        put_if(&ann, &post, "\"3\", \"4\"", mine).await.body["version"],
        5
    );
}

#[tokio::test]
async fn of_two_edits_at_once_one_is_refused() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = ready(&app, &ann, "Duels").await;
    let edits = (0..8).map(|n| put_if(&ann, &post, "\"2\"", json!({ "content": format!("{n}") })));
    let answers = futures_util::future::join_all(edits).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412]);
    assert_eq!(ann.get_post(&post).await["version"], 3);
}

#[tokio::test]
async fn a_post_that_is_being_generated_cannot_be_edited() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Impatience").await;
    let refused = ann.put(&path(&asked), json!({ "content": "Mine." })).await;
    assert_eq!(
        (refused.status, refused.code()),
        (409, "generation_in_progress")
    );
    app.run_jobs().await;
    assert_ne!(ann.get_post(&asked).await["content"], "Mine.");
}

#[tokio::test]
async fn a_failed_post_becomes_ready_by_an_edit() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Do it yourself").await;
    app.agent.set(StubBehavior::Fail(401, "invalid_api_key"));
    app.run_jobs().await;
    let edited = ann.put(&path(&asked), json!({ "content": "Mine." })).await;
    assert_eq!(
        (edited.status, &edited.body["status"]),
        (200, &json!("ready"))
    );
    assert_eq!(edited.body["title"], "Do it yourself");
    assert_eq!(edited.body["job"]["status"], "failed");
}

#[tokio::test]
async fn a_deleted_post_is_gone_with_its_jobs() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = ready(&app, &ann, "Ephemera").await;
    let queued = ann.create_post("Never begun").await;
    assert_eq!(
        shared::queue::count_deliveries(app.db.read())
            .await
            .unwrap(),
        1
    );
    for post in [&post, &queued] {
        let deleted = ann.delete(&path(post)).await;
        assert_eq!(deleted.status, 200);
        assert!(!text(&deleted.body["message"]).is_empty());
        let job = format!("/jobs/{}", text(&post["job"]["id"]));
        for path in [path(post), format!("{}/status", path(post)), job] {
            assert_eq!(ann.get(&path).await.code(), "not_found", "{path}");
        }
        assert_eq!(ann.delete(&path(post)).await.status, 404);
    }
    assert_eq!(
        shared::queue::count_deliveries(app.db.read())
            .await
            .unwrap(),
        0
    );
    assert_eq!(ann.get("/jobs").await.body["items"], json!([]));
}

#[tokio::test]
async fn deleting_a_post_stops_its_worker() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Trapdoors").await;
    app.agent.set(StubBehavior::Hang);
    let worker = app.worker().await;
    app.agent.called(1).await;
    let since = Instant::now();
    assert_eq!(ann.delete(&path(&asked)).await.status, 200);
    app.agent.client_gone().await;
    assert!(
        since.elapsed() < Duration::from_secs(2),
        "{:?}",
        since.elapsed()
    );
    worker.stop().await;
    assert_eq!(app.agent.calls().len(), 1);
}

#[tokio::test]
async fn a_post_keeps_its_text_until_the_new_one_is_ready() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = ready(&app, &ann, "Phoenixes").await;
    let again = regenerate(&ann, &post).await;
    assert_eq!(again.status, 202);
    assert_eq!(again.header("location"), format!("/api/v1{}", path(&post)));
    assert_eq!(again.header("retry-after"), "1");
    assert_eq!(
        (&again.body["status"], &again.body["version"]),
        (&json!("generating"), &json!(3))
    );
    assert_ne!(again.body["job"]["id"], post["job"]["id"]);
    for field in ["title", "content", "excerpt", "word_count"] {
        assert_eq!(again.body[field], post[field]);
    }
    assert_eq!(ann.get_post(&post).await, again.body);
    app.run_jobs().await;

    let new = ann.get_post(&post).await;
    assert_eq!(
        (&new["status"], &new["version"]),
        (&json!("ready"), &json!(4))
    );
    assert_ne!(new["content"], post["content"]);
    assert_eq!(new["job"]["id"], again.body["job"]["id"]);
    let status = ann.get(&format!("{}/status", path(&post))).await.body;
    assert_eq!(status, new["job"]);
    assert_eq!(app.requested_sections(), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_post_is_not_regenerated_twice_at_once() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Echoes").await;
    let refused = regenerate(&ann, &asked).await;
    assert_eq!(
        (refused.status, refused.code()),
        (409, "generation_in_progress")
    );
    app.run_jobs().await;

    let answers = (0..6).map(|_| regenerate(&ann, &asked));
    let answers = futures_util::future::join_all(answers).await;
    let accepted = answers.iter().filter(|answer| answer.status == 202);
    assert_eq!(accepted.count(), 1);
    let refused = answers
        .iter()
        .filter(|a| a.code() == "generation_in_progress");
    assert_eq!(refused.count(), 5);
    app.run_jobs().await;
    assert_eq!(
        ann.get("/jobs").await.body["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn a_failed_or_canceled_post_can_be_regenerated() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let failed = ann.create_post("Failure").await;
    app.agent
        .set(at_first(1, 1, StubBehavior::Fail(401, "invalid_api_key")));
    app.run_jobs().await;
    let canceled = ann.create_post("Cancellation").await;
    let cancel = text(&canceled["job"]["links"]["cancel"]).replace("/api/v1", "");
    ann.post(&cancel, json!({})).await;
    for (post, status) in [(&failed, "failed"), (&canceled, "canceled")] {
        assert_eq!(ann.get_post(post).await["status"], status);
        let again = regenerate(&ann, post).await;
        assert_eq!(
            (again.status, &again.body["status"]),
            (202, &json!("generating"))
        );
        assert_eq!(
            (&again.body["title"], &again.body["content"]),
            (&Value::Null, &Value::Null)
        );
    }
    app.run_jobs().await;
    for post in [failed, canceled] {
        assert_eq!(ann.get_post(&post).await["status"], "ready");
    }
}

#[tokio::test]
async fn a_regeneration_that_fails_leaves_the_old_text() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = ready(&app, &ann, "Safety nets").await;
    regenerate(&ann, &post).await;
    app.agent.set(StubBehavior::Fail(401, "invalid_api_key"));
    app.run_jobs().await;
    let after = ann.get_post(&post).await;
    assert_eq!(after["status"], "failed");
    assert_eq!(
        (&after["title"], &after["content"]),
        (&post["title"], &post["content"])
    );
}

#[tokio::test]
async fn a_regeneration_takes_the_default_for_a_model_that_is_gone() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = ready(&app, &ann, "Old models").await;
    let options = Expr::value(json!({ "model": "gone", "words": 200 }));
    post::Entity::update_many()
        .col_expr(post::Column::Options, options)
        .exec(app.db.raw_connection())
        .await
        .unwrap();
    let again = regenerate(&ann, &post).await;
    assert_eq!(
        (again.status, &again.body["job"]["model"]),
        (202, &json!("stub-large"))
    );
    app.run_jobs().await;
    assert_eq!(ann.get_post(&post).await["status"], "ready");
}

#[tokio::test]
async fn a_regeneration_keeps_the_options_unless_others_are_given() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let options = json!({ "audience": "lighthouse keepers", "model": "stub-small" });
    let body = json!({ "topic": "Lamps", "options": options });
    let asked = ann.post("/blogs", body).await.body;
    app.run_jobs().await;
    let calls = app.agent.calls().len();
    let kept = regenerate(&ann, &asked).await.body;
    assert_eq!(kept["job"]["model"], "stub-small");
    app.run_jobs().await;
    for call in &app.agent.calls()[calls..] {
        assert_eq!(call.body["model"], "stub-small");
        assert!(
            call.body["messages"]
                .to_string()
                .contains("lighthouse keepers")
        );
    }

    let calls = app.agent.calls().len();
    let body = json!({ "options": { "audience": "moths" } });
    let changed = ann
        .post(&format!("{}/regenerate", path(&asked)), body)
        .await;
    assert_eq!(
        (changed.status, &changed.body["job"]["model"]),
        (202, &json!("stub-large"))
    );
    app.run_jobs().await;
    for call in &app.agent.calls()[calls..] {
        let said = call.body["messages"].to_string();
        assert!(
            said.contains("moths") && !said.contains("lighthouse keepers"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn the_posts_of_others_cannot_be_seen_or_changed() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let post = ready(&app, &ann, "Diaries").await;
    let answers = [
        bob.get(&path(&post)).await,
        bob.get(&format!("{}/status", path(&post))).await,
        bob.put(&path(&post), json!({ "content": "Bob was here." }))
            .await,
        put_if(&bob, &post, "\"1\"", json!({ "content": "Bob was here." })).await,
        regenerate(&bob, &post).await,
        bob.delete(&path(&post)).await,
    ];
    for answer in answers {
        assert_eq!((answer.status, answer.code()), (404, "not_found"));
    }
    assert_eq!(ann.get_post(&post).await, post);
}
