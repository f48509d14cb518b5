//! The revisions of posts: what is kept, and who wins where two write at once.

use std::sync::Arc;

use entity::post;
use reqwest::Method;
use sea_orm::EntityTrait;
use sea_orm::sea_query::Expr;
use serde_json::{Value, json};
use testing::stub_openai::StubBehavior;
use testing::{EventReader, TestClient, assert_fields, at_first, job_path, post_path, text};
use tokio::sync::Notify;

use crate::support::TestApp;

async fn list(owner: &TestClient, post: &Value) -> Vec<Value> {
    owner
        .get(&format!("{}/revisions?limit=100", post_path(post)))
        .await
        .items()
}

fn versions(revisions: &[Value]) -> Vec<i64> {
    let versions = revisions.iter().map(|item| item["version"].as_i64());
    versions.collect::<Option<_>>().unwrap()
}

async fn content(owner: &TestClient, post: &Value, version: &Value) -> Value {
    let path = format!("{}/revisions/{version}", post_path(post));
    owner.get(&path).await.expect(200)["content"].clone()
}

async fn put(owner: &TestClient, post: &Value, content: &str) -> Value {
    let edit = json!({ "content": content });
    owner.put(&post_path(post), edit).await.expect(200)
}

#[tokio::test]
async fn every_change_of_a_text_is_a_revision() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let options = json!({ "model": "stub-small", "words": 300 });
    let body = json!({ "topic": "Tomatoes", "options": options });
    let asked = ann.post("/blogs", body).await.expect(202);
    assert_eq!(list(&ann, &asked).await, Vec::<Value>::new());
    app.run_jobs().await;
    let first = ann.get_post(&asked).await;
    let second = put(&ann, &asked, "Mine.").await;
    let title = json!({ "title": "Pots" });
    let renamed = ann.patch(&post_path(&asked), title).await.expect(200);
    assert_fields(&renamed, json!({ "title": "Pots", "content": "Mine." }));
    ann.regenerate(&asked).await.expect(202);
    app.run_jobs().await;
    let last = ann.get_post(&asked).await;

    let revisions = list(&ann, &asked).await;
    let numbers: Vec<_> = [&last, &renamed, &second, &first]
        .map(|post| post["version"].as_i64().unwrap())
        .to_vec();
    assert_eq!(versions(&revisions), numbers);
    let agent = json!({ "kind": "agent", "username": null, "model": "stub-small" });
    let person = json!({ "kind": "user", "username": "ann", "model": null });
    let of = |author: &Value, options: &Value, current| json!({ "author": author, "options": options, "current": current });
    assert_fields(&revisions[0], of(&agent, &options, true));
    assert_fields(&revisions[1], of(&person, &Value::Null, false));
    assert_fields(&revisions[2], of(&person, &Value::Null, false));
    assert_fields(&revisions[3], of(&agent, &options, false));
    for (revision, post) in revisions.iter().zip([&last, &renamed, &second, &first]) {
        for field in ["title", "word_count"] {
            assert_eq!(revision[field], post[field]);
        }
        let stored = content(&ann, &asked, &revision["version"]).await;
        assert_eq!(stored, post["content"]);
    }
    let paged = format!("{}/revisions?limit=1", post_path(&asked));
    assert_eq!(ann.list_all(&paged).await, revisions);
    let gone = format!("{}/revisions/1", post_path(&asked));
    ann.get(&gone).await.assert_error(404, "not_found");
}

#[tokio::test]
async fn single_fields_can_be_changed() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Tomatoes").await;
    let patch = async |body: Value| ann.patch(&post_path(&post), body).await;
    let same = patch(json!({})).await;
    assert_eq!(same.expect(200), post);
    let renamed = patch(json!({ "topic": " Potatoes " })).await.expect(200);
    let expected = json!({ "topic": "Potatoes", "title": post["title"], "version": 3 });
    assert_fields(&renamed, expected);
    assert_eq!(list(&ann, &post).await.len(), 1);
    let both = json!({ "title": "Pots", "content": "Mine." });
    let both = patch(both).await;
    both.assert_fields(200, json!({ "title": "Pots", "content": "Mine." }));
    assert_eq!(both.header("etag"), "\"4\"");

    let faults = json!({ "title": "", "topic": "x", "body": "Mine." });
    let faults = patch(faults).await;
    faults.assert_field_errors(&[
        "title: too_short",
        "topic: too_short",
        "body: unknown_field",
    ]);
    let stale = ann
        .request(Method::PATCH, &post_path(&post))
        .header("if-match", "\"3\"");
    let stale = stale.json(&json!({ "title": "Late" }));
    ann.send(stale).await.assert_error(412, "version_conflict");
    assert_eq!(ann.get_post(&post).await["title"], "Pots");
}

#[tokio::test]
async fn a_post_that_is_generated_keeps_its_topic() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Tomatoes").await;
    for change in [json!({ "topic": "Potatoes" }), json!({ "title": "Pots" })] {
        let refused = ann.patch(&post_path(&asked), change).await;
        refused.assert_error(409, "generation_in_progress");
    }
    ann.cancel(&asked).await.expect(202);
    let title = json!({ "title": "Pots" });
    let refused = ann.patch(&post_path(&asked), title).await;
    refused.assert_error(409, "job_finished");
}

#[tokio::test]
async fn a_restored_revision_is_a_new_one() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Tomatoes").await;
    put(&ann, &post, "Mine.").await;
    let restore = format!("{}/revisions/2/restore", post_path(&post));
    let stale = ann.request(Method::POST, &restore);
    let stale = ann.send(stale.header("if-match", "\"2\"")).await;
    stale.assert_error(412, "version_conflict");
    let restored = ann.post_empty(&restore).await;
    restored.assert_fields(200, json!({ "version": 4, "status": "ready" }));
    for field in ["title", "content", "excerpt", "word_count"] {
        assert_eq!(restored.body[field], post[field]);
    }
    let revisions = list(&ann, &post).await;
    assert_eq!(versions(&revisions), [4, 3, 2]);
    assert_eq!(revisions[0]["author"]["kind"], "user");
    let gone = format!("{}/revisions/9/restore", post_path(&post));
    ann.post_empty(&gone).await.assert_error(404, "not_found");
}

#[tokio::test]
async fn two_revisions_are_compared() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Tomatoes").await;
    put(&ann, &post, "One.\n\nTwo.\n\nThree.\n").await;
    let edit = json!({ "title": "Pots", "content": "One.\n\n2.\n\nThree." });
    ann.put(&post_path(&post), edit).await.expect(200);
    let path = format!("{}/revisions/3/diff/4", post_path(&post));
    let diff = ann.get(&path).await;
    diff.assert_status(200);
    assert_eq!(diff.header("content-type"), "text/x-diff; charset=utf-8");
    let expected = "--- version 3\n+++ version 4\n@@ -1,5 +1,5 @@\n One.\n \n-Two.\n+2.\n \n\
        -Three.\n+Three.\n\\ No newline at end of file\n";
    assert_eq!(diff.text, expected);
    let json = ann
        .request(Method::GET, &path)
        .header("accept", "application/json");
    let json = ann.send(json).await.expect(200);
    let line = |kind: &str, text: &str| json!({ "kind": kind, "text": text });
    let expected = json!({
        "from": { "version": 3, "title": post["title"] },
        "to": { "version": 4, "title": "Pots" },
        "hunks": [{
            "old_start": 1, "old_lines": 5, "new_start": 1, "new_lines": 5,
            "lines": [
                line("context", "One.\n"), line("context", "\n"), line("deleted", "Two.\n"),
                line("inserted", "2.\n"), line("context", "\n"), line("deleted", "Three.\n"),
                line("inserted", "Three."),
            ],
        }],
    });
    assert_eq!(json, expected);
    let same = format!("{}/revisions/3/diff/3", post_path(&post));
    assert_eq!(ann.get(&same).await.text, "");
    let gone = format!("{}/revisions/3/diff/9", post_path(&post));
    ann.get(&gone).await.assert_error(404, "not_found");
}

#[tokio::test]
async fn a_late_agent_never_overwrites_an_edit() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let gate = Arc::new(Notify::new());
    let post = app.ready_post(&ann, "Phoenixes").await;
    let writes = StubBehavior::Gate(gate.clone());
    app.agent.set(at_first(1, 0, writes));
    let again = ann.regenerate(&post).await.expect(202);
    let mut reader = EventReader::of(&ann, &again);
    assert_eq!(reader.connect().await, 200);
    let worker = app.worker().await;
    app.agent.called(6).await;
    let edited = put(&ann, &again, "Mine.").await;
    assert_fields(
        &edited,
        json!({ "status": "generating", "content": "Mine." }),
    );
    gate.notify_one();
    reader.read_to_end().await;
    worker.stop().await;

    let after = ann.get_post(&again).await;
    let expected = json!({ "status": "ready", "content": "Mine.", "title": again["title"] });
    assert_fields(&after, expected);
    assert_fields(
        &after["job"],
        json!({ "status": "succeeded", "superseded": true }),
    );
    let revisions = list(&ann, &again).await;
    assert_eq!(revisions[0]["version"], after["version"]);
    assert_eq!(reader.end.as_ref().unwrap()["version"], after["version"]);
    let flags: Vec<_> = revisions.iter().map(|item| &item["current"]).collect();
    assert_eq!(flags, [&json!(false), &json!(true), &json!(false)]);
    let theirs = content(&ann, &again, &after["version"]).await;
    assert_eq!(theirs, reader.content());

    // Who asks again has seen the edit.
    ann.regenerate(&again).await.expect(202);
    app.run_jobs().await;
    let last = ann.get_post(&again).await;
    assert_eq!(last["job"]["superseded"], false);
    assert_ne!(last["content"], "Mine.");
}

#[tokio::test]
async fn a_retry_replaces_what_its_user_has_seen() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Phoenixes").await;
    let again = ann.regenerate(&post).await.expect(202);
    ann.cancel(&again).await.expect(202);
    put(&ann, &post, "Mine.").await;
    ann.retry(&again).await.expect(202);
    app.run_jobs().await;
    let after = ann.get_post(&post).await;
    assert_fields(&after["job"], json!({ "superseded": false }));
    assert_ne!(after["content"], "Mine.");
    assert_eq!(list(&ann, &post).await.len(), 3);
}

#[tokio::test]
async fn a_retry_by_an_admin_leaves_what_its_owner_has_written_meanwhile() {
    let app = TestApp::new().await;
    let (ann, root) = (app.user("ann").await, app.admin("root").await);
    let post = app.ready_post(&ann, "Phoenixes").await;
    let again = ann.regenerate(&post).await.expect(202);
    ann.cancel(&again).await.expect(202);
    put(&ann, &post, "Mine.").await;
    let retry = format!("/admin{}/retry", job_path(&again));
    root.post_empty(&retry).await.expect(202);
    app.run_jobs().await;
    let after = ann.get_post(&post).await;
    assert_eq!(after["content"], "Mine.");
    assert_eq!(after["job"]["superseded"], true);
}

#[tokio::test]
async fn of_edits_that_race_with_a_regeneration_none_is_lost() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Races").await;
    let worker = app.worker().await;
    for round in 0..10 {
        let again = ann.regenerate(&post).await.expect(202);
        let edit = async {
            // At another moment of the job each time.
            app.agent.called(5 * (round + 1) + 1 + round % 5).await;
            put(&ann, &post, &format!("Edit {round}.")).await
        };
        let (edited, job) = tokio::join!(edit, ann.wait_for_status(&again, "succeeded"));
        let after = ann.get_post(&post).await;
        if job["superseded"] == true {
            assert_eq!(after["content"], edited["content"]);
        }
        let mut contents = Vec::new();
        for revision in list(&ann, &post).await {
            contents.push(content(&ann, &post, &revision["version"]).await);
        }
        // The first text, an edit and an agent's of each round.
        assert_eq!(contents.len(), 1 + 2 * (round + 1));
        assert!(contents.contains(&edited["content"]), "{contents:?}");
    }
    worker.stop().await;
}

#[tokio::test]
async fn the_newest_hundred_revisions_are_kept() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Diligence").await;
    for n in 0..105 {
        put(&ann, &post, &format!("Edit {n}.")).await;
    }
    let path = format!("{}/revisions?limit=100", post_path(&post));
    let kept = ann.get(&path).await.items();
    let expected: Vec<i64> = (8..=107).rev().collect();
    assert_eq!(versions(&kept), expected);
}

#[tokio::test]
async fn old_revisions_give_way_where_storage_is_full() {
    let app = TestApp::with(&["--user-max-bytes=10000"]).await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Hoards").await;
    for letter in ["a", "b", "c", "d"] {
        put(&ann, &post, &letter.repeat(3000)).await;
    }
    let kept = list(&ann, &post).await;
    assert_eq!(versions(&kept), [6, 5, 4]);
    let long = json!({ "content": "e".repeat(10_001) });
    let refused = ann.put(&post_path(&post), long).await;
    refused.assert_error(429, "quota_exceeded");
    assert_eq!(list(&ann, &post).await, kept);
}

#[tokio::test]
async fn a_text_from_before_revisions_is_kept_as_well() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Antiques").await;
    post::Entity::update_many()
        .col_expr(post::Column::TextVersion, Expr::cust("NULL"))
        .col_expr(post::Column::TextAuthor, Expr::cust("NULL"))
        .col_expr(post::Column::TextModel, Expr::cust("NULL"))
        .col_expr(post::Column::TextOptions, Expr::cust("NULL"))
        .col_expr(post::Column::TextAt, Expr::cust("NULL"))
        .exec(app.db.raw_connection())
        .await
        .unwrap();
    let before = list(&ann, &post).await;
    let agent = json!({ "kind": "agent", "username": null, "model": null });
    assert_fields(&before[0], json!({ "author": agent, "current": true }));
    ann.regenerate(&post).await.expect(202);
    app.run_jobs().await;
    let after = list(&ann, &post).await;
    assert_eq!(after.len(), 2);
    let old = content(&ann, &post, &after[1]["version"]).await;
    assert_eq!(json!(text(&old)), post["content"]);
}
