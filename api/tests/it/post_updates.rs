//! Posts: how they are changed, written anew and deleted.

use std::time::Instant;

use entity::post;
use sea_orm::EntityTrait;
use sea_orm::sea_query::Expr;
use serde_json::json;
use testing::stub_openai::StubBehavior;
use testing::{AT_ONCE, assert_fields, at_first, job_path, post_path, text};

use crate::support::TestApp;

#[tokio::test]
async fn an_edit_replaces_the_text_and_raises_the_version() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Revisions").await;
    let body = json!({ "content": "# Top\n\nMy *own* words.", "title": " Mine " });
    let edited = ann.put(&post_path(&post), body).await;
    let expected = json!({
        "title": "Mine", "content": "# Top\n\nMy *own* words.", "excerpt": "My own words.",
        "word_count": 4, "status": "ready", "version": 3,
    });
    edited.assert_fields(200, expected);
    assert_eq!(edited.header("etag"), "\"3\"");
    assert_eq!(edited.body["created_at"], post["created_at"]);
    assert_ne!(edited.body["updated_at"], post["updated_at"]);
    assert_eq!(ann.get_post(&post).await, edited.body);

    let edited = ann
        .put(&post_path(&post), json!({ "content": "Only text." }))
        .await;
    assert_fields(&edited.body, json!({ "title": "Mine", "version": 4 }));
}

#[tokio::test]
async fn an_edit_of_an_old_version_is_refused() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Collisions").await;
    let mine = json!({ "content": "Mine." });
    ann.put_if_match(&post, "\"2\"", mine.clone())
        .await
        .expect(200);
    let stale = ann
        .put_if_match(&post, "\"2\"", json!({ "content": "Stale." }))
        .await;
    stale.assert_error(412, "version_conflict");
    assert_eq!(ann.get_post(&post).await["content"], "Mine.");
    ann.put_if_match(&post, "*", mine.clone()).await.expect(200);
    assert_eq!(
        ann.put_if_match(&post, "\"3\", \"4\"", mine).await.body["version"],
        5
    );
}

#[tokio::test]
async fn of_two_edits_at_once_one_is_refused() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Duels").await;
    let edits =
        (0..8).map(|n| ann.put_if_match(&post, "\"2\"", json!({ "content": format!("{n}") })));
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
    let refused = ann
        .put(&post_path(&asked), json!({ "content": "Mine." }))
        .await;
    refused.assert_error(409, "generation_in_progress");
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
    let edited = ann
        .put(&post_path(&asked), json!({ "content": "Mine." }))
        .await;
    edited.assert_fields(200, json!({ "status": "ready" }));
    assert_eq!(edited.body["title"], "Do it yourself");
    assert_eq!(edited.body["job"]["status"], "failed");
}

#[tokio::test]
async fn a_deleted_post_is_gone_with_its_jobs() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Ephemera").await;
    let queued = ann.create_post("Never begun").await;
    assert_eq!(app.count_deliveries().await, 1);
    for post in [&post, &queued] {
        let deleted = ann.delete(&post_path(post)).await.expect(200);
        assert!(!text(&deleted["message"]).is_empty());
        let job = job_path(post);
        for path in [post_path(post), format!("{}/status", post_path(post)), job] {
            ann.get(&path).await.assert_error(404, "not_found");
        }
        ann.delete(&post_path(post)).await.expect(404);
    }
    assert_eq!(app.count_deliveries().await, 0);
    assert_eq!(ann.get("/jobs").await.expect(200)["items"], json!([]));
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
    ann.delete(&post_path(&asked)).await.expect(200);
    app.agent.client_gone().await;
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
    worker.stop().await;
    assert_eq!(app.agent.calls().len(), 1);
}

#[tokio::test]
async fn a_post_keeps_its_text_until_the_new_one_is_ready() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Phoenixes").await;
    let again = ann.regenerate(&post).await;
    again.assert_status(202);
    assert_eq!(
        again.header("location"),
        format!("/api/v1{}", post_path(&post))
    );
    assert_eq!(again.header("retry-after"), "1");
    assert_fields(&again.body, json!({ "status": "generating", "version": 3 }));
    assert_ne!(again.body["job"]["id"], post["job"]["id"]);
    for field in ["title", "content", "excerpt", "word_count"] {
        assert_eq!(again.body[field], post[field]);
    }
    assert_eq!(ann.get_post(&post).await, again.body);
    app.run_jobs().await;

    let new = ann.get_post(&post).await;
    assert_fields(&new, json!({ "status": "ready", "version": 4 }));
    assert_ne!(new["content"], post["content"]);
    assert_eq!(new["job"]["id"], again.body["job"]["id"]);
    let status = ann
        .get(&format!("{}/status", post_path(&post)))
        .await
        .expect(200);
    assert_eq!(status, new["job"]);
    assert_eq!(app.requested_sections(), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_post_is_not_regenerated_twice_at_once() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Echoes").await;
    let refused = ann.regenerate(&asked).await;
    refused.assert_error(409, "generation_in_progress");
    app.run_jobs().await;

    let answers = (0..6).map(|_| ann.regenerate(&asked));
    let answers = futures_util::future::join_all(answers).await;
    let accepted = answers.iter().filter(|answer| answer.status == 202);
    assert_eq!(accepted.count(), 1);
    let refused = answers
        .iter()
        .filter(|a| a.code() == "generation_in_progress");
    assert_eq!(refused.count(), 5);
    app.run_jobs().await;
    assert_eq!(
        ann.get("/jobs").await.expect(200)["items"]
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
    ann.cancel(&canceled).await;
    for (post, status) in [(&failed, "failed"), (&canceled, "canceled")] {
        assert_eq!(ann.get_post(post).await["status"], status);
        let again = ann.regenerate(post).await;
        again.assert_fields(202, json!({ "status": "generating" }));
        assert_fields(&again.body, json!({ "title": null, "content": null }));
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
    let post = app.ready_post(&ann, "Safety nets").await;
    ann.regenerate(&post).await;
    app.agent.set(StubBehavior::Fail(401, "invalid_api_key"));
    app.run_jobs().await;
    let after = ann.get_post(&post).await;
    assert_eq!(after["status"], "failed");
    let expected = json!({ "title": post["title"], "content": post["content"] });
    assert_fields(&after, expected);
}

#[tokio::test]
async fn a_regeneration_takes_the_default_for_a_model_that_is_gone() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Old models").await;
    let options = Expr::value(json!({ "model": "gone", "words": 200 }));
    post::Entity::update_many()
        .col_expr(post::Column::Options, options)
        .exec(app.db.raw_connection())
        .await
        .unwrap();
    let again = ann.regenerate(&post).await;
    again.assert_fields(202, json!({ "job": { "model": "stub-large" } }));
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
    let kept = ann.regenerate(&asked).await.body;
    assert_eq!(kept["job"]["model"], "stub-small");
    app.run_jobs().await;
    for call in &app.agent.calls()[calls..] {
        assert_eq!(call.body["model"], "stub-small");
        assert!(call.prompt().contains("lighthouse keepers"));
    }

    let calls = app.agent.calls().len();
    let body = json!({ "options": { "audience": "moths" } });
    let changed = ann
        .post(&format!("{}/regenerate", post_path(&asked)), body)
        .await;
    changed.assert_fields(202, json!({ "job": { "model": "stub-large" } }));
    app.run_jobs().await;
    for call in &app.agent.calls()[calls..] {
        let said = call.prompt();
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
    let post = app.ready_post(&ann, "Diaries").await;
    let answers = [
        bob.get(&post_path(&post)).await,
        bob.get(&format!("{}/status", post_path(&post))).await,
        bob.put(&post_path(&post), json!({ "content": "Bob was here." }))
            .await,
        bob.put_if_match(&post, "\"1\"", json!({ "content": "Bob was here." }))
            .await,
        bob.regenerate(&post).await,
        bob.delete(&post_path(&post)).await,
    ];
    for answer in answers {
        answer.assert_error(404, "not_found");
    }
    assert_eq!(ann.get_post(&post).await, post);
}
