//! An agent that wants to be asked less often, and the worker that asks it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testing::stub::RecordedRequest;
use testing::stub_openai::StubBehavior;
use testing::{AT_ONCE, assert_fields, assert_soon, at_first, outcomes};
use tokio::sync::Notify;

use crate::support::TestApp;

/// Long enough for a worker to do what it should not.
const A_WHILE: Duration = Duration::from_millis(400);

/// Fits into the time that an attempt waits.
const LONG: u32 = 100;
/// Does not.
const TOO_LONG: u32 = 600;

#[tokio::test]
async fn a_rate_limit_pauses_all_jobs_and_costs_no_attempt() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let mut posts = Vec::new();
    for n in 0..10 {
        posts.push(ann.create_post(&format!("Chapter {n} of ten")).await);
    }
    // What comes within a second of the first call is refused, and what comes
    // first after that has to wait.
    let refused = Arc::new(AtomicUsize::new(0));
    let (reopened, first) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let behavior = {
        let (refused, reopened, first) = (refused.clone(), reopened.clone(), first.clone());
        let (begun, probed) = (std::sync::OnceLock::new(), AtomicBool::new(false));
        move |_: &RecordedRequest| {
            if begun.get_or_init(Instant::now).elapsed() < Duration::from_secs(1) {
                refused.fetch_add(1, Ordering::Relaxed);
                return StubBehavior::RateLimit(1);
            }
            if probed.swap(true, Ordering::Relaxed) {
                return StubBehavior::Write;
            }
            reopened.notify_one();
            StubBehavior::Gate(first.clone())
        }
    };
    app.agent.set(StubBehavior::per_request(behavior));
    let worker = app.worker_with(&["--worker-concurrency=4"]).await;

    reopened.notified().await;
    let refused = refused.load(Ordering::Relaxed);
    assert!(refused <= 4, "{refused} calls did not hear of the pause");
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(
        app.agent.calls().len(),
        refused + 1,
        "all rushed in at once"
    );
    let mut running = 0;
    for post in &posts {
        running += usize::from(ann.get_job(post).await["status"] == "running");
    }
    assert!((1..=4).contains(&running), "{running} jobs were taken");
    first.notify_one();
    app.wait_until_jobs_finished().await;
    worker.stop().await;

    for post in &posts {
        let job = ann.get_job(post).await;
        assert_eq!(outcomes(&job), ["succeeded"], "{job}");
        assert_fields(&job, json!({ "attempt": 1, "error": null }));
    }
    assert_eq!(app.agent.calls().len(), refused + 10 * 5);
}

#[tokio::test]
async fn a_429_without_retry_after_is_waited_out_in_the_same_attempt() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Modesty").await;
    let busy = StubBehavior::Fail(429, "rate_limit_exceeded");
    app.agent.set(at_first(2, 3, busy));
    let since = Instant::now();
    app.run_jobs().await;

    // Half a second at least, and then twice that.
    assert!(since.elapsed() >= Duration::from_millis(1500));
    assert_eq!(app.requested_sections(), [0, 1, 2, 3, 3, 3, 4]);
    let job = ann.get_job(&asked).await;
    assert_eq!(outcomes(&job), ["succeeded"]);
}

#[tokio::test]
async fn a_job_that_waits_for_the_agent_is_canceled_at_once() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Second thoughts").await;
    app.agent.set(StubBehavior::RateLimit(LONG));
    let worker = app.worker().await;
    app.agent.called(1).await;
    tokio::time::sleep(A_WHILE).await;

    let since = Instant::now();
    assert_eq!(ann.cancel(&asked).await.body["status"], "canceling");
    app.wait_until_jobs_finished().await;
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
    let job = ann.get_job(&asked).await;
    assert_eq!(outcomes(&job), ["canceled"]);
    assert_eq!(app.agent.calls().len(), 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_stops_waits_for_no_agent() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Departures").await;
    app.agent.set(StubBehavior::RateLimit(LONG));
    let worker = app.worker_with(&["--shutdown-grace-secs=1"]).await;
    app.agent.called(1).await;
    // This one is not even taken.
    let waiting = ann.create_post("Arrivals").await;
    tokio::time::sleep(A_WHILE).await;
    let since = Instant::now();
    worker.stop().await;
    assert_soon(since);

    let job = ann.get_job(&asked).await;
    assert_eq!(outcomes(&job), ["released"]);
    assert_fields(&job, json!({ "status": "queued", "attempt": 0 }));
    let job = ann.get_job(&waiting).await;
    assert_eq!(outcomes(&job), [""; 0]);
    assert_eq!(app.agent.calls().len(), 1);

    app.agent.set(StubBehavior::Write);
    app.run_jobs().await;
    let job = ann.get_job(&asked).await;
    assert_eq!(outcomes(&job), ["released", "succeeded"]);
}

#[tokio::test]
async fn an_idle_worker_stops_at_once_though_the_agent_wants_a_pause() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Departures").await;
    app.agent.set(StubBehavior::RateLimit(TOO_LONG));
    let worker = app.worker().await;
    app.wait_for_job(&ann, &asked, |job| !job["next_attempt_at"].is_null())
        .await;
    let waiting = ann.create_post("Arrivals").await;
    tokio::time::sleep(A_WHILE).await;
    let since = Instant::now();
    worker.stop().await;
    assert_soon(since);
    assert_eq!(app.agent.calls().len(), 1);
    for post in [asked, waiting] {
        assert_eq!(ann.cancel(&post).await.body["status"], "canceled");
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn a_worker_that_waits_for_its_agent_leaves_the_queue_to_others() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let refused = ann.create_post("Closed for today").await;
    app.agent.set(StubBehavior::RateLimit(TOO_LONG));
    let waits = app.worker().await;
    app.wait_for_job(&ann, &refused, |job| !job["next_attempt_at"].is_null())
        .await;
    let asked = ann.create_post("Next door").await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(app.agent.calls().len(), 1);
    assert_eq!(outcomes(&ann.get_job(&asked).await), [""; 0]);

    app.agent.set(StubBehavior::Write);
    let since = Instant::now();
    let other = app.worker().await;
    ann.wait_for_status(&asked, "succeeded").await;
    assert_soon(since);
    ann.cancel(&refused).await;
    app.wait_until_jobs_finished().await;
    waits.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_lease_does_not_run_out_while_its_holder_waits_for_the_agent() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Perseverance").await;
    app.agent.set(at_first(1, 1, StubBehavior::RateLimit(5)));
    let lease = &["--job-lease-secs=3"];
    let workers = (app.worker_with(lease).await, app.worker_with(lease).await);
    app.wait_until_jobs_finished().await;
    workers.0.stop().await;
    workers.1.stop().await;

    let job = ann.get_job(&asked).await;
    assert_eq!(outcomes(&job), ["succeeded"]);
    assert_eq!(app.requested_sections(), [0, 1, 1, 2, 3, 4]);
}

#[tokio::test]
async fn an_agent_that_always_answers_429_fails_the_job() {
    let app = TestApp::with(&["--job-max-attempts=2"]).await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Sisyphus").await;
    app.agent.set(StubBehavior::RateLimit(1));
    let worker = app.worker_with(&["--agent-timeout-secs=2"]).await;
    app.wait_until_jobs_finished().await;
    worker.stop().await;

    let job = ann.get_job(&asked).await;
    assert_eq!(outcomes(&job), ["failed", "failed"]);
    let expected = json!({ "code": "agent_rate_limited", "retryable": true });
    assert_fields(&job["error"], expected);
    let calls = app.agent.calls().len();
    assert!((3..=4).contains(&calls), "{calls} calls");
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_not_waited_for() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Austerity").await;
    app.agent.set(StubBehavior::Fail(429, "insufficient_quota"));
    app.run_jobs().await;

    let job = ann.get_job(&asked).await;
    assert_eq!(
        (outcomes(&job), app.agent.calls().len()),
        (vec!["failed"], 1)
    );
    let expected = json!({ "code": "agent_rate_limited", "retryable": false });
    assert_fields(&job["error"], expected);
}

#[tokio::test]
async fn a_job_that_was_not_rate_limited_is_released_uncounted_if_the_pause_is_too_long() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let halfway = ann.create_post("Halfway there").await;
    let gate = Arc::new(Notify::new());
    app.agent
        .set(at_first(1, 2, StubBehavior::Gate(gate.clone())));
    let worker = app.worker().await;
    app.agent.called(3).await;
    let refused = ann.create_post("Too late").await;
    app.agent.set(StubBehavior::RateLimit(TOO_LONG));
    let waits = |job: &Value| !job["next_attempt_at"].is_null();
    app.wait_for_job(&ann, &refused, waits).await;
    gate.notify_one();

    let back = |job: &Value| job["status"] == "queued";
    let job = app.wait_for_job(&ann, &halfway, back).await;
    assert_eq!(
        (outcomes(&job), &job["attempt"]),
        (vec!["released"], &json!(0))
    );
    assert_eq!(app.agent.calls().len(), 4);
    ann.cancel(&refused).await;
    worker.stop().await;

    app.agent.set(StubBehavior::Write);
    app.run_jobs().await;
    let job = ann.get_job(&halfway).await;
    assert_eq!(outcomes(&job), ["released", "succeeded"]);
    assert_eq!(app.requested_sections(), [0, 1, 2, 0, 3, 4]);
}
