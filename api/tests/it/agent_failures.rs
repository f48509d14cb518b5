//! What becomes of jobs when agents misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::TimeDelta;
use serde_json::{Value, json};
use testing::stub::RecordedRequest;
use testing::stub_openai::{StubBehavior, StubOpenAi};
use testing::{HEADINGS, OUTLINE, assert_fields, at_first, outcomes, text, time};

use crate::support::TestApp;

#[tokio::test]
async fn a_retryable_error_is_retried_until_it_has_passed() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Storms").await;
    app.agent
        .set(at_first(2, 0, StubBehavior::Fail(503, "server_error")));
    app.run_jobs().await;

    let job = ann.get_job(&asked).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_fields(&job, json!({ "attempt": 3, "error": null }));
    assert_eq!(outcomes(&job), ["failed", "failed", "succeeded"]);
    let attempts = job["attempts"].as_array().unwrap();
    for (number, attempt) in (1..).zip(attempts) {
        assert_eq!(attempt["attempt"], number);
        assert!(time(&attempt["started_at"]) <= time(&attempt["finished_at"]));
    }
    for failed in &attempts[..2] {
        let expected = json!({ "code": "agent_unavailable", "retryable": true });
        assert_fields(&failed["error"], expected);
    }
    assert_eq!(attempts[2]["error"], Value::Null);
    for (one, next) in attempts.iter().zip(&attempts[1..]) {
        assert!(time(&one["finished_at"]) <= time(&next["started_at"]));
    }
}

#[tokio::test]
async fn a_retry_waits_for_as_long_as_retry_after_says() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Patience").await;
    app.agent.set(at_first(1, 0, StubBehavior::RateLimit(2)));
    // Longer than the attempt waits itself.
    let worker = app.worker_with(&["--agent-timeout-secs=1"]).await;

    let waits = |job: &Value| !job["next_attempt_at"].is_null();
    let job = app.wait_for_job(&ann, &asked, waits).await;
    assert_eq!(job["status"], "queued");
    assert_fields(&job, json!({ "phase": null, "finished_at": null }));
    assert_eq!(job["queue_position"], Value::Null);
    assert_eq!(job["error"]["code"], "agent_rate_limited");
    // The database has both times, of which the end of the attempt may be written a little later.
    let (began, due) = (&job["attempts"][0]["started_at"], &job["next_attempt_at"]);
    assert!(
        time(due) - time(began) >= TimeDelta::milliseconds(1999),
        "{job}"
    );

    app.wait_until_jobs_finished().await;
    worker.stop().await;
    let job = ann.get_job(&asked).await;
    assert_eq!(outcomes(&job), ["failed", "succeeded"]);
    assert!(time(&job["attempts"][1]["started_at"]) >= time(due));
    assert_eq!(job["next_attempt_at"], Value::Null);
}

#[tokio::test]
async fn a_permanent_error_fails_the_job_at_once() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Locks").await;
    app.agent.set(StubBehavior::Fail(401, "invalid_api_key"));
    app.run_jobs().await;

    let job = ann.get_job(&asked).await;
    assert_eq!(job["status"], "failed");
    assert_eq!(job["error"]["code"], "agent_rejected");
    assert_eq!(job["error"]["retryable"], false);
    assert_eq!(job["attempts"][0]["error"], job["error"]);
    assert_eq!(outcomes(&job), ["failed"]);
    assert!(job["finished_at"].is_string() && job["next_attempt_at"].is_null());
    assert_eq!(app.agent.calls().len(), 1);
    let post = ann.get_post(&asked).await;
    assert_eq!(post["status"], "failed");
    assert_fields(&post, json!({ "title": null, "content": null }));
}

#[tokio::test]
async fn a_job_fails_with_its_last_error_when_its_attempts_are_used_up() {
    let app = TestApp::with(&["--job-max-attempts=2"]).await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Sisyphus").await;
    assert_eq!(asked["job"]["max_attempts"], 2);
    let calls = AtomicUsize::new(0);
    app.agent.set(StubBehavior::per_request(move |_| {
        match calls.fetch_add(1, Ordering::Relaxed) {
            0 => StubBehavior::Fail(500, "server_error"),
            _ => StubBehavior::RateLimit(600),
        }
    }));
    app.run_jobs().await;

    let job = ann.get_job(&asked).await;
    assert_fields(&job, json!({ "status": "failed", "attempt": 2 }));
    assert_eq!(outcomes(&job), ["failed", "failed"]);
    assert_eq!(job["attempts"][0]["error"]["code"], "agent_unavailable");
    let expected = json!({ "code": "agent_rate_limited", "retryable": true });
    assert_fields(&job["error"], expected);
    assert_eq!(ann.get_post(&asked).await["status"], "failed");
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_unavailable() {
    let mut app = TestApp::with(&["--job-max-attempts=1"]).await;
    let ann = app.user("ann").await;
    let worker = app.worker().await;
    app.agent = StubOpenAi::writing(|_| String::new()).await;
    let asked = ann.create_post("Ghosts").await;
    app.wait_until_jobs_finished().await;
    worker.stop().await;

    let job = ann.get_job(&asked).await;
    let expected = json!({ "status": "failed", "error": { "code": "agent_unavailable" } });
    assert_fields(&job, expected);
    let told = text(&job["error"]["message"]);
    assert!(
        !told.contains("127.0.0.1") && !told.contains("http"),
        "{told}"
    );
}

#[tokio::test]
async fn a_retry_requests_no_finished_section_again() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Bridges").await;
    app.agent
        .set(at_first(1, 3, StubBehavior::Fail(500, "server_error")));
    app.run_jobs().await;

    assert_eq!(app.requested_sections(), [0, 1, 2, 3, 3, 4]);
    let job = ann.get_job(&asked).await;
    assert_eq!(outcomes(&job), ["failed", "succeeded"]);
    // The stub counts ten tokens for each question, and words; nothing for a
    // refusal.
    let words = OUTLINE.split(' ').count() + 4 * 26;
    let usage = json!({ "input_tokens": 50, "output_tokens": words });
    assert_eq!(job["usage"], usage);
    let content = text(&ann.get_post(&asked).await["content"]);
    let headings = content.lines().filter(|line| line.starts_with("## "));
    assert!(
        headings.eq(HEADINGS.map(|h| format!("## {h}"))),
        "{content}"
    );
}

#[tokio::test]
async fn an_empty_section_is_requested_once_more() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Silence").await;
    app.agent
        .set(at_first(1, 2, StubBehavior::WriteText("Too short.")));
    app.run_jobs().await;

    assert_eq!(app.requested_sections(), [0, 1, 2, 2, 3, 4]);
    let job = ann.get_job(&asked).await;
    assert_eq!(outcomes(&job), ["succeeded"]);
    assert_eq!(job["usage"]["input_tokens"], 60);
}

#[tokio::test]
async fn a_section_that_stays_empty_fails_the_attempt() {
    let app = TestApp::with(&["--job-max-attempts=1"]).await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Silence").await;
    app.agent
        .set(at_first(9, 2, StubBehavior::WriteText("Too short.")));
    app.run_jobs().await;

    assert_eq!(app.requested_sections(), [0, 1, 2, 2]);
    let job = ann.get_job(&asked).await;
    let expected = json!({ "error": { "code": "agent_bad_output" }, "status": "failed" });
    assert_fields(&job, expected);
}

#[tokio::test]
async fn many_jobs_are_each_written_once() {
    let app = Arc::new(TestApp::new().await);
    let mut users = Vec::new();
    for n in 0..10 {
        users.push(app.user(&format!("user{n}")).await);
    }
    let workers = (app.worker().await, app.worker().await);
    let ask = |n: usize| {
        let user = &users[n % 10];
        async move {
            (
                user,
                user.create_post(&format!("Chapter {n:02} of forty")).await,
            )
        }
    };
    let posts = futures_util::future::join_all((0..40).map(ask)).await;
    app.wait_until_jobs_finished().await;
    workers.0.stop().await;
    workers.1.stop().await;

    let mut names = Vec::new();
    for (user, asked) in &posts {
        let job = user.get_job(asked).await;
        assert_eq!(outcomes(&job), ["succeeded"], "{job}");
        names.push(text(&job["attempts"][0]["worker"]));
        let post = user.get_post(asked).await;
        assert_fields(&post, json!({ "status": "ready", "version": 2 }));
        let about = |call: &&RecordedRequest| {
            let topic = text(&asked["topic"]);
            call.prompt().contains(&topic)
        };
        assert_eq!(app.agent.calls().iter().filter(about).count(), 5);
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 2, "one worker did it all");
}
