//! The queue and its workers, as admins see and steer them.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use entity::clock::now;
use entity::{job, worker};
use serde_json::{Value, json};
use shared::change_watcher::ChangeWatcher;
use testing::stub_openai::StubBehavior;
use testing::{TIMEOUT, TestClient, assert_fields, assert_soon, text};
use tokio::time::{sleep, timeout};

use crate::support::TestApp;

async fn queue(admin: &TestClient) -> Value {
    admin.get("/admin/queue").await.expect(200)
}

async fn switch(admin: &TestClient, to: &str) -> Value {
    let answer = admin.post(&format!("/admin/queue/{to}"), json!({})).await;
    answer.assert_status(200);
    answer.body
}

async fn workers(admin: &TestClient) -> Vec<Value> {
    admin.get("/admin/workers").await.items()
}

/// The workers as soon as they are as wanted.
async fn workers_once(
    app: &TestApp,
    admin: &TestClient,
    wanted: impl Fn(&[Value]) -> bool,
) -> Vec<Value> {
    let mut changes = ChangeWatcher::watch(&app.db);
    let workers = async {
        loop {
            let workers = workers(admin).await;
            if wanted(&workers) {
                return workers;
            }
            changes.changed().await;
        }
    };
    timeout(TIMEOUT, workers).await.unwrap()
}

#[tokio::test]
async fn the_queue_shows_its_counts_and_timings() {
    let app = TestApp::new().await;
    let (root, ann) = (app.admin("root").await, app.user("ann").await);
    let none = json!({
        "paused": false, "paused_at": null,
        "counts": {
            "queued": 0, "running": 0, "awaiting_review": 0, "canceling": 0,
            "succeeded": 0, "failed": 0, "canceled": 0,
        },
        "oldest_queued_at": null, "oldest_queued_seconds": null,
        "jobs_per_minute": 0.0, "pickup_ms": null, "duration_ms": null,
    });
    assert_eq!(queue(&root).await, none);
    for topic in ["One", "Two", "Three"] {
        ann.create_post(topic).await;
    }
    app.run_jobs().await;
    let oldest = ann.create_post("Four").await;
    ann.create_post("Five").await;
    let now = queue(&root).await;
    assert_fields(&now["counts"], json!({ "succeeded": 3, "queued": 2 }));
    assert_eq!(now["oldest_queued_at"], oldest["job"]["created_at"]);
    assert_eq!(now["jobs_per_minute"], 3.0);
    for measured in ["pickup_ms", "duration_ms"] {
        let [p50, p99] = ["p50", "p99"].map(|p| now[measured][p].as_i64().unwrap());
        assert!(0 <= p50 && p50 <= p99 && p99 < 30_000, "{measured}");
    }
    let history = root.get("/admin/queue/history").await.items();
    assert_eq!(history.len(), 61);
    let finished: Vec<i64> = history
        .iter()
        .map(|minute| minute["finished"].as_i64().unwrap())
        .collect();
    // All in the last minute, or the clock has just begun another.
    assert_eq!(finished.iter().sum::<i64>(), 3);
    assert_eq!(finished[59] + finished[60], 3);
    app.agent.set(StubBehavior::Fail(401, "invalid_api_key"));
    app.run_jobs().await;
    let history = root.get("/admin/queue/history").await.items();
    let failed = history.iter().map(|minute| minute["failed"].as_i64());
    assert_eq!(failed.map(Option::unwrap).sum::<i64>(), 2);
}

/// As if all that has happened to jobs had happened two days earlier.
async fn two_days_later(app: &TestApp) {
    let ago = now() - TimeDelta::days(2);
    use job::Column::{CreatedAt, FinishedAt, StartedAt};
    for column in [CreatedAt, StartedAt, FinishedAt] {
        app.set_all(column, ago).await;
    }
}

#[tokio::test]
async fn a_retried_job_is_measured_from_its_retry_on() {
    let app = TestApp::new().await;
    let (root, ann) = (app.admin("root").await, app.user("ann").await);
    let asked = ann.create_post("One").await;
    app.agent.set(StubBehavior::Fail(401, "invalid_api_key"));
    app.run_jobs().await;
    two_days_later(&app).await;

    // Off the queue again before any worker has it: it has no times.
    let again = ann.retry(&asked).await.expect(202);
    assert_fields(&again, json!({ "started_at": null, "finished_at": null }));
    ann.cancel(&asked).await;
    let now = queue(&root).await;
    assert_fields(&now, json!({ "pickup_ms": null, "duration_ms": null }));

    ann.retry(&asked).await;
    app.agent.set(StubBehavior::Write);
    let worker = app.worker().await;
    app.wait_until_jobs_finished().await;
    let now = queue(&root).await;
    for measured in ["pickup_ms", "duration_ms"] {
        let p99 = now[measured]["p99"].as_i64().unwrap();
        assert!(p99 < 60_000, "{measured}: {p99}");
    }
    let metrics = worker.metrics.render().unwrap();
    let sum = "blog_job_duration_seconds_sum{outcome=\"succeeded\"} ";
    let sum = metrics.lines().find_map(|line| line.strip_prefix(sum));
    let took: f64 = sum.unwrap().parse().unwrap();
    assert!(took < 60.0, "{took}");
    worker.stop().await;
}

#[tokio::test]
async fn a_paused_queue_accepts_jobs_and_no_worker_takes_any_until_it_is_resumed() {
    let app = TestApp::new().await;
    let (root, ann) = (app.admin("root").await, app.user("ann").await);
    let paused = switch(&root, "pause").await;
    assert_eq!(paused["paused"], true);
    // Again changes nothing, not even since when.
    assert_eq!(
        switch(&root, "pause").await["paused_at"],
        paused["paused_at"]
    );
    let worker = app.worker().await;
    let asked = [ann.create_post("One").await, ann.create_post("Two").await];
    // Its safety net comes by twice.
    sleep(Duration::from_millis(1200)).await;
    assert_eq!(queue(&root).await["counts"]["queued"], 2);
    // One that is started meanwhile heeds it, too.
    worker.stop().await;
    let worker = app.worker().await;
    sleep(Duration::from_millis(700)).await;
    assert_eq!(queue(&root).await["counts"]["queued"], 2);

    let begun = Instant::now();
    assert_eq!(switch(&root, "resume").await["paused"], false);
    for asked in &asked {
        app.wait_for_job(&ann, asked, |job| job["status"] != "queued")
            .await;
    }
    assert_soon(begun);
    app.wait_until_jobs_finished().await;
    worker.stop().await;
    let trail = root.get("/admin/audit").await.items();
    let mut actions: Vec<_> = trail.iter().map(|event| text(&event["action"])).collect();
    actions.retain(|action| action.starts_with("queue"));
    assert_eq!(actions, ["queue_resumed", "queue_paused"]);
}

#[tokio::test]
async fn a_running_job_goes_on_when_the_queue_is_paused() {
    let app = TestApp::new().await;
    let (root, ann) = (app.admin("root").await, app.user("ann").await);
    app.agent.set(StubBehavior::Hang);
    let running = ann.create_post("One").await;
    let worker = app.worker_with(&["--worker-concurrency=1"]).await;
    app.agent.called(1).await;
    let waiting = ann.create_post("Two").await;
    switch(&root, "pause").await;
    app.agent.set(StubBehavior::Write);
    ann.cancel(&running).await;
    ann.wait_for_status(&running, "canceled").await;
    // The slot is free now.
    sleep(Duration::from_millis(700)).await;
    assert_eq!(ann.get_job(&waiting).await["status"], "queued");
    switch(&root, "resume").await;
    app.wait_until_jobs_finished().await;
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_shows_what_it_is_and_what_it_runs() {
    let app = TestApp::new().await;
    let (root, ann) = (app.admin("root").await, app.user("ann").await);
    assert_eq!(workers(&root).await, [] as [Value; 0]);
    app.agent.set(StubBehavior::Hang);
    let worker = app.worker_with(&["--worker-concurrency=7"]).await;
    let asked = ann.create_post("One").await;
    let job = ann.wait_for_status(&asked, "running").await;
    let found = workers_once(&app, &root, |workers| !workers.is_empty()).await;
    let [found] = found.as_slice() else {
        panic!("{found:?}")
    };
    let id = text(&job["id"]);
    assert_eq!(found["running_jobs"], json!([id]));
    assert_eq!(found["name"], job["attempts"][0]["worker"]);
    assert!(text(&found["name"]).starts_with(&text(&found["host"])));
    assert_eq!(found["version"], env!("CARGO_PKG_VERSION"));
    assert_fields(found, json!({ "agent": "openai", "model": "stub-large" }));
    assert_fields(found, json!({ "concurrency": 7, "alive": true }));
    ann.cancel(&asked).await;
    app.wait_until_jobs_finished().await;
    worker.stop().await;
    assert_eq!(workers(&root).await[0]["running_jobs"], json!([]));
}

#[tokio::test]
async fn a_worker_without_heartbeats_is_not_alive_and_is_deleted_after_a_day() {
    let app = TestApp::new().await;
    let root = app.admin("root").await;
    let told = worker::Model {
        name: "w1".to_owned(),
        host: "somewhere".to_owned(),
        version: "1.0.0".to_owned(),
        agent: "openai".to_owned(),
        model: "stub-large".to_owned(),
        concurrency: 4,
        started_at: now(),
        seen_at: now(),
    };
    told.heartbeat(app.db.raw_connection()).await.unwrap();
    let silent_for = async |seconds: u64| {
        let seen = now() - Duration::from_secs(seconds);
        app.set_all(worker::Column::SeenAt, seen).await;
    };
    for (seconds, alive) in [(10, true), (20, false), (23 * 3600, false)] {
        silent_for(seconds).await;
        ::worker::maintenance::cleanup::run_once(&app.db, Duration::from_secs(3600)).await;
        assert_eq!(workers(&root).await[0]["alive"], alive, "{seconds}");
    }
    silent_for(25 * 3600).await;
    ::worker::maintenance::cleanup::run_once(&app.db, Duration::from_secs(3600)).await;
    assert_eq!(app.count(worker::Entity).await, 0);
}
