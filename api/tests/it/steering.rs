//! Steering a job: its outline is reviewed, one section is written again, and what was written
//! before a cancel is kept.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use testing::stub_openai::StubBehavior;
use testing::{
    EventReader, HEADINGS, TestClient, TestResponse, assert_fields, at_first, job_path, post_path,
    text,
};
use tokio::sync::Notify;

use crate::support::{SHORT_LEASE, TestApp};

const ONE_CALL: &[&str] = &["--agent-writing=one-call"];
const BY_SECTION: &[&str] = &["--agent-writing=by-section"];

const PLAN: &str = "# Red Gold\n## Sun: How much of it they need.\n## Water: When to give it.";

/// What a model that writes by sections answers.
fn write_by_section() -> StubBehavior {
    StubBehavior::per_request(|call| {
        let prompt = call.prompt();
        StubBehavior::WriteText(if prompt.contains("Plan a blog post") {
            PLAN
        } else if prompt.contains("Write section 1") {
            "Six hours make them sweet."
        } else {
            "The morning is best."
        })
    })
}

async fn ask_for_review(owner: &TestClient) -> Value {
    let body = json!({ "topic": "Tomatoes", "outline": "review" });
    owner.post("/blogs", body).await.expect(202)
}

/// A post whose job awaits the review of its outline.
async fn awaiting_review(app: &TestApp, owner: &TestClient, arguments: &[&str]) -> Value {
    let post = ask_for_review(owner).await;
    let worker = app.worker_with(arguments).await;
    owner.wait_for_status(&post, "awaiting_review").await;
    worker.stop().await;
    post
}

fn outline_path(post: &Value) -> String {
    format!("{}/outline", post_path(post))
}

async fn approve(owner: &TestClient, post: &Value) -> TestResponse {
    let path = format!("{}/approve", outline_path(post));
    owner.post_empty(&path).await
}

/// Reads all events of a post's job, which must give its stored text.
async fn assert_told(owner: &TestClient, post: &Value) -> EventReader {
    let mut reader = EventReader::of(owner, post);
    assert_eq!(reader.connect().await, 200);
    reader.read_to_end().await;
    let stored = owner.get_post(post).await;
    assert_eq!(json!(reader.title), stored["title"]);
    assert_eq!(json!(reader.content()), stored["content"]);
    let end = reader.end.as_ref().unwrap();
    assert_eq!(end["version"], stored["version"]);
    reader
}

#[tokio::test]
async fn an_outline_is_read_changed_and_approved() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    app.agent.set(write_by_section());
    let post = awaiting_review(&app, &ann, BY_SECTION).await;
    assert_eq!(app.agent.calls().len(), 1);
    assert_eq!(app.count_deliveries().await, 0);
    let job = ann.get(&job_path(&post)).await;
    assert_eq!(job.header("retry-after"), "");
    let expected = json!({ "status": "awaiting_review", "phase": null, "finished_at": null });
    job.assert_fields(200, expected);
    assert_eq!(job.body["attempts"][0]["outcome"], "succeeded");
    assert_eq!(ann.get_post(&post).await["status"], "generating");
    let root = app.admin("root").await;
    let queue = root.get("/admin/queue").await.expect(200);
    assert_fields(
        &queue["counts"],
        json!({ "awaiting_review": 1, "queued": 0 }),
    );

    let outline = ann.get(&outline_path(&post)).await;
    assert_eq!(outline.header("etag"), "\"1\"");
    let section = |heading: &str, about: &str| json!({ "heading": heading, "about": about });
    let expected = json!({
        "title": "Red Gold", "version": 1,
        "sections": [
            section("Sun", "How much of it they need."), section("Water", "When to give it."),
        ],
    });
    assert_eq!(outline.expect(200), expected);

    let title = "**My** own title, with marks.";
    let changed = json!({
        "title": format!(" {title} "),
        "sections": [section("Pots", "Why they are big."), { "heading": "Water # 2" }],
    });
    let changed = ann.put(&outline_path(&post), changed).await;
    assert_eq!(changed.header("etag"), "\"2\"");
    let expected = json!({
        "title": title, "version": 2,
        "sections": [section("Pots", "Why they are big."), section("Water # 2", "")],
    });
    assert_eq!(changed.expect(200), expected);
    assert_eq!(ann.get(&outline_path(&post)).await.body, expected);

    let approved = approve(&ann, &post).await;
    approved.assert_fields(202, json!({ "status": "generating" }));
    assert_eq!(approved.body["job"]["status"], "queued");
    let worker = app.worker_with(BY_SECTION).await;
    let job = ann.wait_for_status(&post, "succeeded").await;
    worker.stop().await;
    let written = ann.get_post(&post).await;
    let content = "## Pots\n\nSix hours make them sweet.\n\n## Water # 2\n\nThe morning is best.\n";
    assert_fields(&written, json!({ "title": title, "content": content }));
    assert_eq!(job["attempt"], 2);
    let calls = app.agent.calls();
    assert_eq!(calls.len(), 3);
    assert!(calls[1].prompt().contains("Why they are big."));
    assert_told(&ann, &post).await;

    let late = json!({ "title": "Late", "sections": [{ "heading": "Late" }] });
    let late = ann.put(&outline_path(&post), late).await;
    late.assert_error(409, "job_finished");
    approve(&ann, &post).await.assert_error(409, "job_finished");
}

#[tokio::test]
async fn the_smallest_models_write_to_an_outline_too() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = awaiting_review(&app, &ann, &[]).await;
    let outline = ann.get(&outline_path(&post)).await.expect(200);
    let headings = outline["sections"].as_array().unwrap().iter();
    let headings: Vec<String> = headings.map(|section| text(&section["heading"])).collect();
    assert_eq!(headings, HEADINGS);
    let fewer = json!({
        "title": "Mine",
        "sections": [{ "heading": HEADINGS[2] }, { "heading": HEADINGS[0] }],
    });
    ann.put(&outline_path(&post), fewer).await.expect(200);
    approve(&ann, &post).await.assert_status(202);
    app.run_jobs().await;
    assert_eq!(app.requested_sections(), [0, 3, 1]);
    let content = text(&ann.get_post(&post).await["content"]);
    let headings: Vec<&str> = content
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    assert_eq!(headings, [HEADINGS[2], HEADINGS[0]]);
    assert_told(&ann, &post).await;
}

#[tokio::test]
async fn a_changed_outline_is_not_approved_unseen() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = awaiting_review(&app, &ann, &[]).await;
    let change = json!({ "title": "Mine", "sections": [{ "heading": "One" }] });
    let put = |tag: &str| {
        let request = ann.request(Method::PUT, &outline_path(&post));
        request.header("if-match", tag).json(&change)
    };
    ann.send(put("\"1\"")).await.assert_status(200);
    let stale = ann.send(put("\"1\"")).await;
    stale.assert_error(412, "version_conflict");
    let path = format!("{}/approve", outline_path(&post));
    let approve = |tag: &str| ann.request(Method::POST, &path).header("if-match", tag);
    let stale = ann.send(approve("\"1\"")).await;
    stale.assert_error(412, "version_conflict");
    ann.send(approve("\"2\"")).await.assert_status(202);
    ann.cancel(&post).await.expect(202);
}

#[tokio::test]
async fn of_approvals_and_changes_at_once_each_is_whole() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    for _ in 0..5 {
        let post = awaiting_review(&app, &ann, &[]).await;
        let changes = (0..4).map(async |n| {
            let change =
                json!({ "title": format!("Title {n}"), "sections": [{ "heading": "One" }] });
            ann.put(&outline_path(&post), change).await
        });
        let approvals = (0..4).map(|_| approve(&ann, &post));
        let changes = futures_util::future::join_all(changes);
        let approvals = futures_util::future::join_all(approvals);
        let (changes, approvals) = tokio::join!(changes, approvals);
        let accepted = approvals.iter().filter(|answer| answer.status == 202);
        assert_eq!(accepted.count(), 1);
        for answer in changes.iter().chain(&approvals) {
            if !matches!(answer.status, 200 | 202) {
                answer.assert_error(409, "job_finished");
            }
        }
        let stored = changes.iter().filter(|answer| answer.status == 200);
        let outline = ann.get(&outline_path(&post)).await.expect(200);
        let count = i64::try_from(stored.count()).unwrap();
        assert_eq!(outline["version"], json!(1 + count));
        ann.cancel(&post).await.expect(202);
    }
}

#[tokio::test]
async fn a_job_that_awaits_its_review_counts_when_it_goes_on() {
    let app = TestApp::with(&["--user-max-active-jobs=1"]).await;
    let ann = app.user("ann").await;
    let reviewed = awaiting_review(&app, &ann, &[]).await;
    let other = ann.create_post("Basil").await;
    let refused = approve(&ann, &reviewed).await;
    refused.assert_error(429, "quota_exceeded");
    let worker = app.worker().await;
    ann.wait_for_status(&other, "succeeded").await;
    approve(&ann, &reviewed).await.assert_status(202);
    ann.wait_for_status(&reviewed, "succeeded").await;
    worker.stop().await;
}

#[tokio::test]
async fn a_canceled_review_is_taken_up_again_by_a_retry() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = awaiting_review(&app, &ann, &[]).await;
    let canceled = ann.cancel(&post).await;
    canceled.assert_fields(202, json!({ "status": "canceled" }));
    assert_eq!(ann.get_post(&post).await["status"], "canceled");
    approve(&ann, &post).await.assert_error(409, "job_finished");
    ann.retry(&post).await.expect(202);
    let worker = app.worker().await;
    ann.wait_for_status(&post, "awaiting_review").await;
    assert_eq!(app.requested_sections(), [0]);
    approve(&ann, &post).await.assert_status(202);
    ann.wait_for_status(&post, "succeeded").await;
    worker.stop().await;
    assert_told(&ann, &post).await;
}

#[tokio::test]
async fn an_outline_is_there_when_it_is_written_and_was_asked_for() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let bad = json!({ "topic": "Tomatoes", "outline": "none" });
    let bad = ann.post("/blogs", bad).await;
    bad.assert_field_errors(&["outline: invalid_type"]);
    let waits = ask_for_review(&ann).await;
    for answer in [
        ann.get(&outline_path(&waits)).await,
        approve(&ann, &waits).await,
    ] {
        answer.assert_error(409, "generation_in_progress");
    }
    ann.cancel(&waits).await.expect(202);
    let never = ann.get(&outline_path(&waits)).await;
    never.assert_error(409, "job_finished");
    let plain = app.ready_post(&ann, "Basil").await;
    for answer in [
        ann.get(&outline_path(&plain)).await,
        approve(&ann, &plain).await,
    ] {
        answer.assert_error(404, "not_found");
    }
}

#[tokio::test]
async fn faults_of_an_outline_are_told_by_their_places() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = awaiting_review(&app, &ann, &[]).await;
    let put = async |body: Value| ann.put(&outline_path(&post), body).await;
    let one = json!({ "heading": "One" });
    let none = put(json!({ "title": "T", "sections": [] })).await;
    none.assert_field_errors(&["sections: too_short"]);
    let many = put(json!({ "title": "T", "sections": vec![one.clone(); 21] })).await;
    many.assert_field_errors(&["sections: too_long"]);
    let odd = json!([one, { "heading": "A\nB" }, { "about": "x".repeat(1001) }, 7]);
    let odd = put(json!({ "sections": odd })).await;
    odd.assert_field_errors(&[
        "title: required",
        "sections.1.heading: invalid",
        "sections.2.heading: required",
        "sections.2.about: too_long",
        "sections.3: invalid_type",
        "sections.3.heading: required",
    ]);
    let outline = ann.get(&outline_path(&post)).await.expect(200);
    assert_eq!(outline["version"], 1);
    ann.cancel(&post).await.expect(202);
}

#[tokio::test]
async fn who_waits_for_a_post_is_told_that_its_outline_is_there() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let worker = app.worker().await;
    let request = ann
        .request(Method::POST, "/blogs")
        .header("prefer", "wait=30");
    let body = json!({ "topic": "Tomatoes", "outline": "review" });
    let answer = ann.send(request.json(&body)).await;
    answer.assert_fields(202, json!({ "status": "generating" }));
    assert_eq!(answer.body["job"]["status"], "awaiting_review");
    worker.stop().await;
    ann.cancel(&answer.body).await.expect(202);
}

const POST: &str = "Hello.\n\n## Sun\n\nSix hours.\n\n### Shade\n\nNone.\n\n## Water\n\nDaily.\n";

/// A post with this text.
async fn post_with(app: &TestApp, owner: &TestClient, content: &str) -> Value {
    let post = app.ready_post(owner, "Tomatoes").await;
    let edit = json!({ "content": content, "title": "Pots" });
    owner.put(&post_path(&post), edit).await.expect(200)
}

async fn regenerate_section(
    owner: &TestClient,
    post: &Value,
    number: u32,
    body: Value,
) -> TestResponse {
    let path = format!("{}/sections/{number}/regenerate", post_path(post));
    owner.post(&path, body).await
}

#[tokio::test]
async fn one_section_is_written_again_and_all_others_stay() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = post_with(&app, &ann, POST).await;
    let path = format!("{}/sections", post_path(&post));
    let listed = ann.get(&path).await.items();
    let item = |number: u32, heading: Value, words: u32| json!({ "number": number, "heading": heading, "words": words });
    let expected = [
        item(0, Value::Null, 1),
        item(1, json!("Sun"), 4),
        item(2, json!("Water"), 1),
    ];
    assert_eq!(listed, expected);

    app.agent.set(StubBehavior::WriteText(
        "Sure!\n\n## Sun\n\nEight hours, and *no* shade.",
    ));
    let calls = app.agent.calls().len();
    let wish = json!({ "instructions": "Eight hours.", "options": { "tone": "humorous" } });
    let again = regenerate_section(&ann, &post, 1, wish).await;
    again.assert_fields(202, json!({ "status": "generating", "content": POST }));
    assert_eq!(again.body["job"]["section"], 1);
    app.run_jobs().await;
    let written = ann.get_post(&post).await;
    let content = "Hello.\n\n## Sun\n\nEight hours, and *no* shade.\n\n## Water\n\nDaily.\n";
    let expected = json!({ "content": content, "title": "Pots", "status": "ready" });
    assert_fields(&written, expected);
    let calls = &app.agent.calls()[calls..];
    assert_eq!(calls.len(), 1);
    for asked in ["Eight hours.", "humorous", "Six hours."] {
        assert!(calls[0].prompt().contains(asked), "{asked}");
    }
    assert_told(&ann, &written).await;
    // The wishes for one section are none for the post.
    let before = ann.get("/jobs").await.items();
    assert_eq!(before[0]["section"], 1);
    app.agent.set(StubBehavior::Write);
    ann.regenerate(&post).await.expect(202);
    app.run_jobs().await;
    let prompt = app.agent.calls().last().unwrap().prompt();
    assert!(!prompt.contains("humorous"), "{prompt}");
}

#[tokio::test]
async fn sections_stay_however_their_text_is_formatted() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    app.agent.set(StubBehavior::Write);
    for (content, number, expected) in [
        ("A.\n## Sun\nB.", 1, "A.\n## Sun\nNew.\n"),
        (
            "## Sun\n\n\n\n## Water\n",
            0,
            "## Sun\n\nNew.\n\n\n\n## Water\n",
        ),
        (
            "# T\n\n## Sun ##\r\n\r\nB.\r\n\r\n## Water\r\n\r\nC.\r\n",
            0,
            "# T\n\n## Sun ##\r\n\r\nNew.\r\n\r\n## Water\r\n\r\nC.\r\n",
        ),
        ("Just this.", 0, "New.\n"),
    ] {
        app.agent.set(StubBehavior::Write);
        let post = post_with(&app, &ann, content).await;
        app.agent.set(StubBehavior::WriteText("New."));
        let again = regenerate_section(&ann, &post, number, json!({})).await;
        again.assert_status(202);
        app.run_jobs().await;
        let written = ann.get_post(&post).await;
        assert_eq!(written["content"], expected);
        assert_told(&ann, &written).await;
    }
}

#[tokio::test]
async fn of_a_whole_post_only_the_section_is_taken() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = post_with(&app, &ann, POST).await;
    app.agent.set(StubBehavior::WriteText(
        "# Pots\n\nOther.\n\n## Sun\n\nEight hours.\n\n## Water\n\nWeekly.",
    ));
    regenerate_section(&ann, &post, 2, json!({}))
        .await
        .assert_status(202);
    app.run_jobs().await;
    let content = ann.get_post(&post).await["content"].clone();
    assert_eq!(content, POST.replace("Daily.", "Weekly."));
}

#[tokio::test]
async fn a_section_of_an_edited_text_is_a_revision_beside_it() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = post_with(&app, &ann, POST).await;
    let gate = Arc::new(Notify::new());
    app.agent.set(StubBehavior::Gate(gate.clone()));
    let again = regenerate_section(&ann, &post, 0, json!({})).await;
    let calls = app.agent.calls().len();
    let path = post_path(&again.expect(202));
    ann.put(&path, json!({ "content": "Mine." }))
        .await
        .expect(200);
    // It begins with the text that its number is of, not with the edited one.
    app.agent.set(StubBehavior::WriteText("New."));
    let worker = app.worker().await;
    app.agent.called(calls + 1).await;
    let job = ann
        .wait_for_status(&ann.get_post(&post).await, "succeeded")
        .await;
    worker.stop().await;
    assert_eq!(job["superseded"], true);
    let revision = ann
        .get(&format!("{path}/revisions"))
        .await
        .items()
        .remove(0);
    let revision = format!("{path}/revisions/{}", revision["version"]);
    let revision = ann.get(&revision).await.expect(200);
    assert_fields(&revision, json!({ "title": "Pots", "current": false }));
    assert_eq!(revision["content"], POST.replace("Hello.", "New."));
    assert_eq!(ann.get_post(&post).await["content"], "Mine.");
}

#[tokio::test]
async fn a_section_that_is_not_begun_is_not_lost_by_a_cancel() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = post_with(&app, &ann, POST).await;
    app.agent.set(StubBehavior::Hang);
    let again = regenerate_section(&ann, &post, 2, json!({}))
        .await
        .expect(202);
    let calls = app.agent.calls().len();
    let worker = app.worker().await;
    app.agent.called(calls + 1).await;
    cancel_and_keep(&ann, &again).await.assert_status(202);
    ann.wait_for_status(&again, "canceled").await;
    let expected = json!({ "status": "canceled", "content": POST });
    assert_fields(&ann.get_post(&post).await, expected);

    app.agent.set(StubBehavior::WriteAndHang("Every"));
    let again = regenerate_section(&ann, &post, 2, json!({}))
        .await
        .expect(202);
    let mut reader = EventReader::of(&ann, &again);
    assert_eq!(reader.connect().await, 200);
    reader
        .read_until(|reader| reader.content().contains("Every"))
        .await;
    cancel_and_keep(&ann, &again).await.assert_status(202);
    ann.wait_for_status(&again, "canceled").await;
    worker.stop().await;
    let kept = ann.get_post(&post).await;
    assert_eq!(kept["content"], POST.replace("Daily.", "Every"));
    assert_told(&ann, &kept).await;
    // There is another text now than the one that the number is of.
    ann.retry(&kept).await.assert_error(409, "job_finished");
}

#[tokio::test]
async fn a_section_has_to_be_there() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Tomatoes").await;
    let early = regenerate_section(&ann, &asked, 0, json!({})).await;
    early.assert_error(409, "generation_in_progress");
    app.run_jobs().await;
    let post = ann.get_post(&asked).await;
    let missing = regenerate_section(&ann, &post, 9, json!({})).await;
    missing.assert_error(404, "not_found");
    let path = format!("{}/sections/0/regenerate", post_path(&post));
    let stale = ann.request(Method::POST, &path).header("if-match", "\"1\"");
    let stale = ann.send(stale).await;
    stale.assert_error(412, "version_conflict");
    let odd = format!("{}/sections/x/regenerate", post_path(&post));
    ann.post_empty(&odd).await.assert_error(404, "not_found");
    let bad = regenerate_section(&ann, &post, 0, json!({ "words": 5 })).await;
    bad.assert_field_errors(&["words: unknown_field"]);
    assert_eq!(ann.get_post(&post).await, post);
}

async fn cancel_and_keep(owner: &TestClient, post: &Value) -> TestResponse {
    let path = format!("{}/cancel?keep=true", job_path(post));
    owner.post_empty(&path).await
}

#[tokio::test]
async fn what_was_written_before_a_cancel_is_kept() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let text = "# Red Gold\n\nTomatoes grow anywhere.\n\n## Sun\n\nSix hours, and";
    app.agent.set(StubBehavior::WriteAndHang(text));
    let post = ann.create_post("Tomatoes").await;
    let mut reader = EventReader::of(&ann, &post);
    assert_eq!(reader.connect().await, 200);
    let worker = app.worker_with(ONE_CALL).await;
    reader
        .read_until(|reader| reader.content().contains("Six hours, and"))
        .await;
    cancel_and_keep(&ann, &post).await.assert_status(202);
    reader.read_to_end().await;
    worker.stop().await;
    let kept = ann.get_post(&post).await;
    let content = "Tomatoes grow anywhere.\n\n## Sun\n\nSix hours, and\n";
    let expected = json!({ "status": "ready", "title": "Red Gold", "content": content });
    assert_fields(&kept, expected);
    assert_eq!(kept["job"]["status"], "canceled");
    assert_eq!(reader.content(), content);
    let end = reader.end.as_ref().unwrap();
    assert_fields(
        end,
        json!({ "status": "canceled", "version": kept["version"] }),
    );
    assert_told(&ann, &kept).await;
}

#[tokio::test]
async fn sections_that_are_only_planned_are_not_kept() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let plan = StubBehavior::per_request(|call| {
        let prompt = call.prompt();
        if prompt.contains("Plan a blog post") {
            StubBehavior::WriteText(PLAN)
        } else {
            StubBehavior::WriteAndHang("Six hours make")
        }
    });
    app.agent.set(plan);
    let post = ann.create_post("Tomatoes").await;
    let mut reader = EventReader::of(&ann, &post);
    assert_eq!(reader.connect().await, 200);
    let worker = app.worker_with(BY_SECTION).await;
    reader
        .read_until(|reader| reader.content().contains("Six hours make"))
        .await;
    cancel_and_keep(&ann, &post).await.assert_status(202);
    reader.read_to_end().await;
    worker.stop().await;
    let kept = ann.get_post(&post).await;
    assert_eq!(kept["content"], "## Sun\n\nSix hours make\n");
    assert_eq!(reader.content(), "## Sun\n\nSix hours make\n");
    assert_told(&ann, &kept).await;
}

#[tokio::test]
async fn a_text_is_kept_though_its_worker_is_lost() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let text = "# Red Gold\n\nTomatoes grow anywhere.\n\nEven in";
    app.agent.set(StubBehavior::WriteAndHang(text));
    let post = ann.create_post("Tomatoes").await;
    let mut reader = EventReader::of(&ann, &post);
    assert_eq!(reader.connect().await, 200);
    let worker = app.worker_with(&[SHORT_LEASE, ONE_CALL].concat()).await;
    reader
        .read_until(|reader| reader.content().contains("Even in"))
        .await;
    worker.abort();
    app.agent.client_gone().await;
    cancel_and_keep(&ann, &post).await.assert_status(202);
    let rescuer = app.worker().await;
    reader.read_to_end().await;
    rescuer.stop().await;
    let kept = ann.get_post(&post).await;
    assert_fields(&kept, json!({ "status": "ready", "title": "Red Gold" }));
    assert_told(&ann, &kept).await;
}

#[tokio::test]
async fn what_is_kept_is_a_revision_beside_an_edit() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Tomatoes").await;
    app.agent.set(StubBehavior::WriteAndHang(
        "# Red Gold\n\nTomatoes grow anywhere.\n\nEven",
    ));
    let again = ann.regenerate(&post).await.expect(202);
    let mut reader = EventReader::of(&ann, &again);
    assert_eq!(reader.connect().await, 200);
    let worker = app.worker_with(ONE_CALL).await;
    reader
        .read_until(|reader| reader.content().contains("Even"))
        .await;
    let edit = json!({ "content": "Mine." });
    ann.put(&post_path(&post), edit).await.expect(200);
    cancel_and_keep(&ann, &again).await.assert_status(202);
    reader.read_to_end().await;
    worker.stop().await;
    let after = ann.get_post(&post).await;
    assert_fields(&after, json!({ "content": "Mine.", "status": "ready" }));
    assert_eq!(after["job"]["superseded"], true);
    let version = &reader.end.as_ref().unwrap()["version"];
    let kept = format!("{}/revisions/{version}", post_path(&post));
    let kept = ann.get(&kept).await.expect(200);
    assert_eq!(kept["content"], json!(reader.content()));
    // The next attempt starts from the edit.
    app.agent.set(StubBehavior::Write);
    ann.retry(&again).await.expect(202);
    app.run_jobs().await;
    let after = ann.get_post(&post).await;
    assert_eq!(after["job"]["superseded"], false);
    assert_ne!(after["content"], "Mine.");
}

#[tokio::test]
async fn an_outline_is_not_approved_where_storage_is_full() {
    let app = TestApp::with(&["--user-max-bytes=5000"]).await;
    let ann = app.user("ann").await;
    let reviewed = awaiting_review(&app, &ann, &[]).await;
    let other = ann.create_post("Basil").await;
    let worker = app.worker().await;
    ann.wait_for_status(&other, "succeeded").await;
    worker.stop().await;
    let full = json!({ "content": "x".repeat(5000) });
    ann.put(&post_path(&other), full).await.expect(200);
    let refused = approve(&ann, &reviewed).await;
    refused.assert_error(429, "quota_exceeded");
    ann.cancel(&reviewed).await.expect(202);
}

#[tokio::test]
async fn where_nothing_was_written_nothing_is_kept() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let queued = ann.create_post("Tomatoes").await;
    let canceled = cancel_and_keep(&ann, &queued).await;
    canceled.assert_fields(202, json!({ "status": "canceled" }));
    let reviewed = awaiting_review(&app, &ann, &[]).await;
    cancel_and_keep(&ann, &reviewed).await.assert_status(202);
    for post in [&queued, &reviewed] {
        let expected = json!({ "status": "canceled", "content": null });
        assert_fields(&ann.get_post(post).await, expected);
        cancel_and_keep(&ann, post)
            .await
            .assert_error(409, "job_finished");
    }
    // The text of a regeneration that brought nothing stays.
    let post = app.ready_post(&ann, "Basil").await;
    let again = ann.regenerate(&post).await.expect(202);
    cancel_and_keep(&ann, &again).await.assert_status(202);
    assert_eq!(ann.get_post(&post).await["content"], post["content"]);
}

#[tokio::test]
async fn a_job_that_waits_for_its_next_attempt_keeps_what_the_last_has_written() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    // Longer than an attempt waits.
    app.agent.set(at_first(1, 3, StubBehavior::RateLimit(600)));
    let post = ann.create_post("Tomatoes").await;
    let worker = app.worker().await;
    let is_due_later = |job: &Value| !job["next_attempt_at"].is_null();
    app.wait_for_job(&ann, &post, is_due_later).await;
    let canceled = cancel_and_keep(&ann, &post).await;
    canceled.assert_fields(202, json!({ "status": "canceled" }));
    worker.stop().await;
    let kept = ann.get_post(&post).await;
    assert_eq!(kept["status"], "ready");
    assert_eq!(text(&kept["content"]).matches("## ").count(), 2);
    assert_told(&ann, &kept).await;
}
