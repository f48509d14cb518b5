//! Posts: how they are asked for and read.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use testing::stub::RecordedRequest;
use testing::stub_openai::StubBehavior;
use testing::{
    SOON, TestClient, TestResponse, assert_fields, assert_soon, post_path, requested_part, text,
    time,
};

use crate::support::TestApp;

/// Asks for a post and waits for it.
async fn ask_and_wait(owner: &TestClient, prefer: &str) -> TestResponse {
    let request = owner.request(Method::POST, "/blogs");
    let request = request.json(&json!({ "topic": "Waiting" }));
    owner.send(request.header("prefer", prefer)).await
}

async fn read_as(owner: &TestClient, post: &Value, media_type: &str) -> TestResponse {
    let request = owner.request(Method::GET, &post_path(post));
    owner.send(request.header("accept", media_type)).await
}

#[tokio::test]
async fn a_created_post_comes_with_its_job() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let body = json!({ "topic": "  Café au lait  " });
    let answer = ann.post("/blogs", body).await;
    answer.assert_status(202);
    let post = &answer.body;
    let location = format!("/api/v1{}", post_path(post));
    assert_eq!(answer.header("location"), location);
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.header("preference-applied"), "");
    let me = ann.get("/users/me").await.expect(200);
    let expected = json!({
        "id": post["id"],
        "topic": "Café au lait",
        "title": null,
        "content": null,
        "sources": [],
        "citations": [],
        "grounding": null,
        "excerpt": null,
        "status": "generating",
        "word_count": 0,
        "reading_minutes": 0,
        "version": 1,
        "author": { "id": me["id"], "username": "ann" },
        "job": post["job"],
        "created_at": post["created_at"],
        "updated_at": post["created_at"],
    });
    assert_eq!(post, &expected);
    assert_eq!(post["job"]["blog_id"], post["id"]);
    assert_eq!(&ann.get_post(post).await, post);
    app.run_jobs().await;
}

#[tokio::test]
async fn a_post_that_is_ready_has_every_field() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Completeness").await;
    assert_fields(&post, json!({ "status": "ready", "version": 2 }));
    assert_eq!(post["title"], "A Good Title");
    let content = text(&post["content"]);
    assert!(content.starts_with("## First Things\n\nOnce "), "{content}");
    let excerpt = text(&post["excerpt"]);
    assert!(excerpt.starts_with("Once ") && excerpt.chars().count() <= 201);
    // Four sections of 26 words, and their headings.
    assert_eq!(post["word_count"], 4 * 26 + 8);
    assert_eq!(post["reading_minutes"], 1);
    assert!(time(&post["updated_at"]) > time(&post["created_at"]));
    let status = ann.get(&format!("{}/status", post_path(&post))).await;
    assert_eq!(status.expect(200), post["job"]);
}

#[tokio::test]
async fn all_options_reach_the_agent() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let options = json!({
        "tone": "humorous", "audience": "retired sailors", "language": "de-AT", "words": 300,
        "keywords": ["rope", "Anker"], "instructions": "Mention Captain Tom.",
        "model": "stub-small",
    });
    let body = json!({ "topic": "Knots", "options": options });
    let asked = ann.post("/blogs", body).await.expect(202);
    assert_eq!(asked["job"]["model"], "stub-small");
    app.run_jobs().await;
    let calls = app.agent.calls();
    for call in &calls {
        assert_eq!(call.body["model"], "stub-small");
        let said = call.prompt();
        for wish in [
            "Knots",
            "humorous",
            "retired sailors",
            "de-AT",
            "rope",
            "Anker",
            "Captain Tom",
        ] {
            assert!(said.contains(wish), "{wish}: {said}");
        }
    }
    assert!(!calls.is_empty());
}

#[tokio::test]
async fn the_first_model_is_the_default() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let body = json!({ "topic": "Defaults", "options": { "tone": "neutral", "model": null } });
    let asked = ann.post("/blogs", body).await.expect(202);
    assert_eq!(asked["job"]["model"], "stub-large");
    app.run_jobs().await;
    assert!(
        app.agent
            .calls()
            .iter()
            .all(|call| call.body["model"] == "stub-large")
    );
}

#[tokio::test]
async fn a_client_that_waits_gets_the_post_when_it_is_ready() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let worker = app.worker().await;
    let answer = ask_and_wait(&ann, "wait=20").await;
    worker.stop().await;
    answer.assert_status(201);
    assert_eq!(answer.header("preference-applied"), "wait=20");
    let location = format!("/api/v1{}", post_path(&answer.body));
    assert_eq!(answer.header("location"), location);
    assert_eq!(answer.header("retry-after"), "");
    let expected = json!({ "status": "ready", "job": { "status": "succeeded" } });
    assert_fields(&answer.body, expected);
    assert_eq!(answer.body, ann.get_post(&answer.body).await);
}

#[tokio::test]
async fn a_client_that_waits_learns_at_once_that_the_job_failed() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    app.agent.set(StubBehavior::Fail(401, "invalid_api_key"));
    let worker = app.worker().await;
    let since = Instant::now();
    let answer = ask_and_wait(&ann, "respond-async, wait=20").await;
    worker.stop().await;
    assert_soon(since);
    let job = json!({ "error": { "code": "agent_rejected" } });
    answer.assert_fields(202, json!({ "status": "failed", "job": job }));
    assert_eq!(answer.header("preference-applied"), "wait=20");
    assert_eq!(answer.header("retry-after"), "");
}

#[tokio::test]
async fn a_client_that_waits_in_vain_gets_the_job_as_it_stands() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    for wait in [0, 1] {
        let since = Instant::now();
        let answer = ask_and_wait(&ann, &format!("wait={wait}")).await;
        let (least, took) = (Duration::from_secs(wait), since.elapsed());
        assert!((least..least + SOON).contains(&took), "{took:?}");
        answer.assert_fields(202, json!({ "job": { "status": "queued" } }));
        assert_eq!(answer.header("preference-applied"), format!("wait={wait}"));
        assert_eq!(answer.header("retry-after"), "1");
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn nobody_waits_longer_than_a_minute() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let worker = app.worker().await;
    let answer = ask_and_wait(&ann, "wait=99999").await;
    assert_eq!(answer.header("preference-applied"), "wait=60");
    // What can't be read is no preference.
    let answer = ask_and_wait(&ann, "wait=long").await;
    answer.assert_status(202);
    assert_eq!(answer.header("preference-applied"), "");
    app.wait_until_jobs_finished().await;
    worker.stop().await;
}

#[tokio::test]
async fn an_unchanged_post_is_not_sent_again() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Still lifes").await;
    for (media_type, tag) in FORMATS {
        let first = read_as(&ann, &post, media_type).await;
        first.assert_status(200);
        assert_eq!(first.header("etag"), tag);
        let listed = format!("\"1\", {tag}");
        let again = unless_unchanged(&ann, &post, media_type, &listed).await;
        again.assert_status(304);
        assert_eq!(again.header("etag"), tag);
        assert_eq!(again.header("vary"), "Accept");
        let changed = unless_unchanged(&ann, &post, media_type, "\"1\"").await;
        changed.assert_status(200);
        assert_eq!(changed.text, first.text);
    }
}

/// The formats of a post of version 2, with their tags.
const FORMATS: [(&str, &str); 3] = [
    ("application/json", "\"2\""),
    ("text/markdown", "\"2-md\""),
    ("text/html", "\"2-html\""),
];

#[tokio::test]
async fn an_etag_of_one_format_does_not_match_the_others() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Still lifes").await;
    for (media_type, own) in FORMATS {
        for (_, tag) in FORMATS {
            let answer = unless_unchanged(&ann, &post, media_type, tag).await;
            let expected = if tag == own { 304 } else { 200 };
            answer.assert_status(expected);
        }
        // Whichever of them one has read, one knows the version.
        ann.put_if_match(&post, own, json!({ "content": "" }))
            .await
            .expect(422);
    }
    let put = ann
        .put_if_match(&post, "\"2-html\"", json!({ "content": "Mine" }))
        .await;
    put.assert_status(200);
    assert_eq!(put.header("etag"), "\"3\"");
}

async fn unless_unchanged(
    owner: &TestClient,
    post: &Value,
    media_type: &str,
    tag: &str,
) -> TestResponse {
    let request = owner.request(Method::GET, &post_path(post));
    let request = request.header("accept", media_type);
    owner.send(request.header("if-none-match", tag)).await
}

#[tokio::test]
async fn a_post_is_sent_again_for_as_long_as_its_job_goes_on() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Moving pictures").await;
    ann.regenerate(&post).await.expect(202);

    let queued = ann.get(&post_path(&post)).await;
    app.agent.set(StubBehavior::Hang);
    let worker = app.worker().await;
    ann.wait_for_status(&queued.body, "running").await;
    let tag = queued.header("etag");
    let running = unless_unchanged(&ann, &post, "application/json", tag).await;
    running.assert_fields(200, json!({ "job": { "status": "running" } }));
    assert_eq!(running.header("etag"), tag);
    // Its text is what it was.
    for (media_type, format) in [("text/markdown", "-md\""), ("text/html", "-html\"")] {
        let tag = tag.trim_end_matches('"').to_owned() + format;
        let text = unless_unchanged(&ann, &post, media_type, &tag).await;
        text.assert_status(304);
    }

    ann.cancel(&running.body).await;
    app.wait_until_jobs_finished().await;
    worker.stop().await;
    let canceled = unless_unchanged(&ann, &post, "application/json", tag).await;
    canceled.assert_fields(200, json!({ "status": "canceled" }));
    // Nothing changes any more without a new version.
    let tag = canceled.header("etag");
    let unchanged = unless_unchanged(&ann, &post, "application/json", tag).await;
    unchanged.assert_status(304);
}

#[tokio::test]
async fn an_unchanged_html_page_is_not_rendered() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Many words").await;
    // Others keep all places.
    for _ in 0..std::thread::available_parallelism().unwrap().get() {
        let renders = app.renders.clone();
        tokio::spawn(async move { renders.run(std::future::pending::<()>()).await });
    }
    let unchanged = unless_unchanged(&ann, &post, "text/html", "\"2-html\"").await;
    unchanged.assert_status(304);
    let changed = unless_unchanged(&ann, &post, "text/html", "\"1\"").await;
    changed.assert_error(503, "unavailable");
    assert_ne!(changed.header("retry-after"), "");
}

#[tokio::test]
async fn a_post_can_be_read_as_markdown_and_as_html() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Formats").await;
    let markdown = read_as(&ann, &post, "text/markdown").await;
    let kind = markdown.header("content-type");
    assert_eq!(kind, "text/markdown; charset=utf-8");
    assert_eq!(markdown.text, text(&post["content"]));
    let html = read_as(&ann, &post, "text/html").await;
    assert_eq!(html.header("content-type"), "text/html; charset=utf-8");
    assert!(
        html.text.starts_with("<h2>First Things</h2>\n<p>Once "),
        "{}",
        html.text
    );
    let json = read_as(&ann, &post, "*/*").await;
    assert_eq!(json.body, post);
    for answer in [markdown, html, json] {
        assert_eq!(answer.header("vary"), "Accept");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn nothing_that_an_agent_or_a_user_writes_can_run_in_a_page() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Attacks").await;
    app.agent.set(StubBehavior::per_request(
        |call: &RecordedRequest| match requested_part(call) {
            1 => StubBehavior::WriteText(HOSTILE),
            _ => StubBehavior::Write,
        },
    ));
    app.run_jobs().await;
    let written = read_as(&ann, &asked, "text/html").await;
    ann.put(&post_path(&asked), json!({ "content": HOSTILE }))
        .await;
    let edited = read_as(&ann, &asked, "text/html").await;
    assert_eq!(read_as(&ann, &asked, "text/markdown").await.text, HOSTILE);
    for html in [written, edited] {
        let page = html.text.to_lowercase();
        assert!(page.contains("quiet harbour"), "{page}");
        for bad in [
            "<script",
            "onerror",
            "<iframe",
            "href=\"javascript:",
            "<style",
        ] {
            assert!(!page.contains(bad), "{bad} in {page}");
        }
        assert!(
            html.header("content-security-policy")
                .contains("default-src 'none'")
        );
    }
}

const HOSTILE: &str = "The quiet harbour lies behind the hill, and every boat that comes home \
    finds a place in it. <script>alert(1)</script> <img src=x onerror=alert(2)> Nobody has ever \
    been turned away there, [they say](javascript:alert(3)).\n\n<iframe src=\"//evil\"></iframe>\
    \n\n<style>body { display: none }</style>\n";

#[tokio::test]
async fn content_that_is_not_there_yet_cannot_be_read() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Prophecies").await;
    for media_type in ["text/markdown", "text/html"] {
        let answer = read_as(&ann, &asked, media_type).await;
        answer.assert_error(409, "generation_in_progress");
    }
    read_as(&ann, &asked, "application/json").await.expect(200);
    app.agent.set(StubBehavior::Fail(401, "invalid_api_key"));
    app.run_jobs().await;
    for media_type in ["text/markdown", "text/html"] {
        let failed = read_as(&ann, &asked, media_type).await;
        failed.assert_error(409, "job_finished");
        let detail = text(&failed.body["detail"]);
        assert!(detail.contains("Regenerate"), "{detail}");
    }
}
