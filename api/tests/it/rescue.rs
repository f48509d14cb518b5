//! Workers that are stopped or vanish, and deliveries that go astray.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sea_orm::DbBackend;
use serde_json::{Value, json};
use testing::stub::RecordedRequest;
use testing::stub_openai::StubBehavior;
use testing::{assert_fields, assert_soon, at_first, outcomes, post_path, text};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::support::{SHORT_LEASE, TestApp, deliveries};

async fn finish_with_short_lease(app: &TestApp) {
    let worker = app.worker_with(SHORT_LEASE).await;
    app.wait_until_jobs_finished().await;
    worker.stop().await;
}

#[tokio::test]
async fn the_job_of_a_worker_that_vanished_is_finished_by_another() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Vanishing").await;
    app.lose_worker().await;
    let since = Instant::now();
    assert_eq!(ann.get_job(&asked).await["status"], "running");
    finish_with_short_lease(&app).await;

    assert_soon(since);
    let job = ann.get_job(&asked).await;
    assert_eq!(job["status"], "succeeded");
    assert_eq!(outcomes(&job), ["lost", "succeeded"]);
    let attempts = &job["attempts"];
    assert_eq!([&attempts[0]["attempt"], &attempts[1]["attempt"]], [1, 2]);
    assert_eq!(attempts[0]["error"]["code"], "worker_lost");
    assert_ne!(attempts[0]["worker"], attempts[1]["worker"]);
    assert_eq!(
        app.requested_sections(),
        [0, 1, 2, 2, 3, 4],
        "sections were paid for twice"
    );
}

#[tokio::test]
async fn a_job_that_loses_all_its_workers_fails() {
    let app = TestApp::with(&["--job-max-attempts=1"]).await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Quicksand").await;
    app.lose_worker().await;
    finish_with_short_lease(&app).await;

    let job = ann.get_job(&asked).await;
    let expected = json!({ "status": "failed", "error": { "code": "worker_lost" } });
    assert_fields(&job, expected);
    assert_eq!(outcomes(&job), ["lost"]);
    assert_eq!(ann.get_post(&asked).await["status"], "failed");
}

#[tokio::test]
async fn a_canceled_job_whose_worker_vanished_is_canceled_by_another() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Nobody home").await;
    app.lose_worker().await;
    // Nobody is there to stop it yet, however often one asks.
    for _ in 0..2 {
        let canceled = ann.cancel(&asked).await;
        canceled.assert_status(202);
        assert_eq!(canceled.body["status"], "canceling");
        assert_eq!(canceled.header("retry-after"), "1");
    }
    finish_with_short_lease(&app).await;

    let job = ann.get_job(&asked).await;
    assert_eq!(job["status"], "canceled");
    assert_eq!(outcomes(&job), ["lost"]);
    assert_eq!(ann.get_post(&asked).await["status"], "canceled");
}

#[tokio::test]
async fn a_stopping_worker_releases_its_job_uncounted() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Relays").await;
    app.agent.set(at_first(1, 2, StubBehavior::Hang));
    let worker = app.worker_with(&["--shutdown-grace-secs=0"]).await;
    app.agent.called(3).await;
    worker.stop().await;

    let job = ann.get_job(&asked).await;
    assert_fields(&job, json!({ "status": "queued", "attempt": 0 }));
    assert_fields(&job, json!({ "phase": null, "error": null }));
    assert_eq!(job["queue_position"], 1);
    assert_eq!(outcomes(&job), ["released"]);
    app.run_jobs().await;

    let job = ann.get_job(&asked).await;
    assert_fields(&job, json!({ "status": "succeeded", "attempt": 1 }));
    assert_eq!(outcomes(&job), ["released", "succeeded"]);
    assert_eq!(job["attempts"][1]["attempt"], 1);
    assert_eq!(app.requested_sections(), [0, 1, 2, 2, 3, 4]);
}

#[tokio::test]
async fn a_stopping_worker_finishes_its_job_if_there_is_time() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Last orders").await;
    let gate = Arc::new(Notify::new());
    app.agent
        .set(at_first(1, 2, StubBehavior::Gate(gate.clone())));
    let worker = app.worker().await;
    app.agent.called(3).await;
    tokio::join!(worker.stop(), async { gate.notify_one() });

    let job = ann.get_job(&asked).await;
    assert_eq!(outcomes(&job), ["succeeded"]);
}

#[tokio::test]
async fn a_busy_worker_leaves_the_queue_to_others() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let slow = ann.create_post("Slow food").await;
    let quick = ann.create_post("Quick food").await;
    app.agent.set(StubBehavior::per_request(
        |call: &RecordedRequest| match call.prompt().contains("Slow food") {
            true => StubBehavior::Hang,
            false => StubBehavior::Write,
        },
    ));
    let busy = app
        .worker_with(&["--worker-concurrency=1", "--shutdown-grace-secs=0"])
        .await;
    app.agent.called(1).await;
    // Long enough for it to look for more.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let since = Instant::now();
    let free = app.worker().await;
    ann.wait_for_status(&quick, "succeeded").await;
    assert_soon(since);

    let job = ann.get_job(&slow).await;
    assert_eq!(job["status"], "running");
    ann.delete(&post_path(&slow)).await;
    free.stop().await;
    busy.stop().await;
}

/// Another delivery for a job's attempt.
async fn push(app: &TestApp, job: Uuid, attempt: i32) {
    strange_row(app, &deliveries::payload(job, attempt)).await;
}

#[tokio::test]
async fn deliveries_that_come_twice_do_no_harm() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Twins").await;
    let id: Uuid = text(&asked["job"]["id"]).parse().unwrap();
    for attempt in [0, 1, 1, 2] {
        push(&app, id, attempt).await;
    }
    let workers = (app.worker().await, app.worker().await);
    app.wait_until_jobs_finished().await;
    let job = ann.get_job(&asked).await;
    assert_eq!(outcomes(&job), ["succeeded"]);

    for attempt in [1, 2] {
        push(&app, id, attempt).await;
    }
    app.wait_until_jobs_finished().await;
    workers.0.stop().await;
    workers.1.stop().await;
    assert_eq!(ann.get_job(&asked).await, job);
    assert_eq!(app.requested_sections(), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_delivery_without_a_job_is_dropped() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    push(&app, Uuid::now_v7(), 1).await;
    strange_row(&app, r#"{"nonsense": true}"#).await;
    let asked = ann.create_post("Sense").await;
    app.run_jobs().await;
    assert_eq!(outcomes(&ann.get_job(&asked).await), ["succeeded"]);
}

/// A delivery with `body` for its payload.
async fn strange_row(app: &TestApp, body: &str) {
    let (sql, _) = deliveries::insert(app.db.backend(), body);
    app.execute(&sql).await;
}

#[tokio::test]
async fn a_delivery_that_is_no_json_stops_neither_the_worker_nor_its_jobs() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let gate = Arc::new(Notify::new());
    app.agent
        .set(at_first(1, 2, StubBehavior::Gate(gate.clone())));
    let running = ann.create_post("Business as usual").await;
    let worker = app.worker().await;
    app.agent.called(3).await;
    strange_row(&app, "no json at all").await;
    let later = ann.create_post("And more of it").await;
    ann.wait_for_status(&later, "succeeded").await;
    gate.notify_one();

    let over = |job: &Value| !job["finished_at"].is_null();
    let job = app.wait_for_job(&ann, &running, over).await;
    assert_eq!(outcomes(&job), ["succeeded"], "{job}");
    // The row is swept away, or apalis would stumble over it for ever.
    app.wait_until_jobs_finished().await;
    worker.stop().await;
}

#[tokio::test]
async fn a_lost_delivery_is_created_again() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Lost property").await;
    let lose = format!("DELETE FROM {}", deliveries::table(app.db.backend()));
    app.execute(&lose).await;
    finish_with_short_lease(&app).await;
    let job = ann.get_job(&asked).await;
    assert_eq!(outcomes(&job), ["succeeded"]);
    assert_eq!(job["attempt"], 1);
}

#[tokio::test]
async fn a_delivery_received_by_a_dead_worker_is_created_again() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Dead letters").await;
    let long_ago = match app.db.backend() {
        DbBackend::Postgres => "to_timestamp(1)",
        _ => "1",
    };
    let taken = format!(
        "UPDATE {} SET status = 'Queued', lock_by = NULL, lock_at = {long_ago}",
        deliveries::table(app.db.backend())
    );
    app.execute(&taken).await;
    finish_with_short_lease(&app).await;
    assert_eq!(outcomes(&ann.get_job(&asked).await), ["succeeded"]);
}

/// As it is when the clock was set back after the job was asked for.
#[tokio::test]
async fn a_queued_job_whose_delivery_is_due_in_hours_is_delivered_now() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    ann.create_post("Growing tomatoes").await;
    let ahead = match app.db.backend() {
        DbBackend::Postgres => "UPDATE apalis.jobs SET run_at = run_at + interval '3 hours'",
        _ => "UPDATE Jobs SET run_at = run_at + 3 * 3600",
    };
    app.execute(ahead).await;
    finish_with_short_lease(&app).await;
}
