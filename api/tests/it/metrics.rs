//! What is measured, as Prometheus would collect it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use entity::job;
use reqwest::Method;
use sea_orm::EntityTrait;
use serde_json::{Value, json};
use testing::stub_openai::StubBehavior;
use testing::{TestClient, text};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::support::{SHORT_LEASE, TestApp, deliveries};

/// The API's metrics.
async fn scrape(client: &TestClient) -> String {
    let answer = client.send(client.request(Method::GET, "//metrics")).await;
    answer.assert_status(200);
    let format = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(answer.header("content-type"), format);
    answer.text
}

/// The API's metrics as if nobody had asked for them before.
async fn first_scrape(app: &TestApp) -> String {
    let metrics = api::metrics::Metrics::new().unwrap();
    metrics.render(&app.db).await.unwrap()
}

/// The value of a series, if there is one.
fn value(scrape: &str, series: &str) -> Option<f64> {
    let mut lines = scrape.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map(|value| value.parse().unwrap())
}

#[tokio::test]
async fn a_request_is_counted_under_its_route_and_status() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = ann.create_post("Counting sheep").await;
    for id in ["nobody", post["id"].as_str().unwrap()] {
        ann.get(&format!("/blogs/{id}")).await;
    }
    app.run_jobs().await;

    let text = scrape(&ann).await;
    let count = |labels: &str| value(&text, &format!("blog_http_requests_total{{{labels}}}"));
    let created = r#"method="POST",route="/api/v1/blogs",status="202""#;
    assert_eq!(count(created), Some(1.0), "{text}");
    let found = r#"method="GET",route="/api/v1/blogs/{id}",status="200""#;
    assert_eq!(count(found), Some(1.0), "{text}");
    let missing = r#"method="GET",route="/api/v1/blogs/{id}",status="404""#;
    assert_eq!(count(missing), Some(1.0), "{text}");
    let latency =
        r#"blog_http_request_duration_seconds_count{method="GET",route="/api/v1/blogs/{id}"}"#;
    assert_eq!(value(&text, latency), Some(2.0), "{text}");
    // The scrape itself.
    assert_eq!(value(&text, "blog_http_requests_in_flight"), Some(1.0));
}

#[tokio::test]
async fn neither_paths_nor_methods_that_nobody_knows_become_series() {
    let app = TestApp::new().await;
    let client = app.anonymous();
    for path in ["/a", "/b", "//c", "//docs/d"] {
        client.get(path).await;
    }
    for method in ["BREW", "PROPFIND"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        client.send(client.request(method, "//health")).await;
    }
    let text = scrape(&client).await;
    let mut series: Vec<&str> = text.lines().collect();
    series.retain(|line| line.starts_with("blog_http_requests_total"));
    let expected = [
        r#"blog_http_requests_total{method="GET",route="/docs/{*rest}",status="404"} 1"#,
        r#"blog_http_requests_total{method="GET",route="unknown",status="404"} 3"#,
        r#"blog_http_requests_total{method="other",route="/health",status="405"} 2"#,
    ];
    assert_eq!(series, expected);
}

#[tokio::test]
async fn the_request_of_a_disconnected_client_is_no_longer_in_flight() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = ann.create_post("Going, going").await;
    let path = format!("/jobs/{}?wait=60", post["job"]["id"].as_str().unwrap());
    let waiting = tokio::spawn(async move { ann.get(&path).await });
    let client = app.anonymous();
    let in_flight = async |so_many: f64| {
        let reached = async {
            while value(&scrape(&client).await, "blog_http_requests_in_flight") != Some(so_many) {}
        };
        let reached = timeout(Duration::from_secs(10), reached).await;
        reached.expect("not so many are in flight");
    };
    in_flight(2.0).await;
    waiting.abort();
    in_flight(1.0).await;
    app.run_jobs().await;
}

#[tokio::test]
async fn queue_metrics_count_the_queued_jobs() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let text = first_scrape(&app).await;
    let queued = r#"blog_queue_jobs{status="queued"}"#;
    let oldest = "blog_queue_oldest_due_seconds";
    assert_eq!(value(&text, queued), Some(0.0));
    assert_eq!(value(&text, oldest), Some(0.0));

    for topic in ["One thing", "Another thing"] {
        ann.create_post(topic).await;
    }
    let text = first_scrape(&app).await;
    assert_eq!(value(&text, queued), Some(2.0));
    let first = value(&text, oldest).unwrap();
    // It is told in milliseconds, and grows.
    let grows = async {
        loop {
            let later = value(&first_scrape(&app).await, oldest).unwrap();
            if later > first {
                return later;
            }
        }
    };
    let later = timeout(Duration::from_secs(10), grows).await.unwrap();
    assert!(later < 30.0, "{first} {later}");

    app.run_jobs().await;
    let text = first_scrape(&app).await;
    assert_eq!(value(&text, queued), Some(0.0));
    assert_eq!(value(&text, oldest), Some(0.0));
}

#[tokio::test]
async fn a_paused_queue_has_a_metric() {
    let app = TestApp::new().await;
    let root = app.admin("root").await;
    for (action, paused) in [("resume", 0.0), ("pause", 1.0), ("resume", 0.0)] {
        root.post(&format!("/admin/queue/{action}"), json!({}))
            .await;
        let text = first_scrape(&app).await;
        assert_eq!(value(&text, "blog_queue_paused"), Some(paused), "{action}");
    }
}

#[tokio::test]
async fn queue_metrics_are_cached_between_scrapes() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let queued = async || value(&scrape(&ann).await, r#"blog_queue_jobs{status="queued"}"#);
    assert_eq!(queued().await, Some(0.0));
    ann.create_post("Patience").await;
    assert_eq!(queued().await, Some(0.0));
    let seen = async {
        while queued().await != Some(1.0) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    let seen = timeout(Duration::from_secs(30), seen).await;
    seen.expect("the queue is not measured again");
    app.run_jobs().await;
}

#[tokio::test]
async fn a_scrape_without_a_database_lacks_only_the_queue_metrics() {
    let app = TestApp::new().await;
    let client = app.anonymous();
    let up = scrape(&client).await;
    assert_eq!(value(&up, "blog_database_up"), Some(1.0));
    assert!(up.contains("blog_queue_"), "{up}");

    app.db.clone().close().await;
    let is_down = async {
        loop {
            let text = scrape(&client).await;
            if value(&text, "blog_database_up") == Some(0.0) {
                break text;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    let text = timeout(Duration::from_secs(30), is_down).await;
    let text = text.expect("the database seems to be up");
    assert!(!text.contains("blog_queue_"), "{text}");
    assert!(text.contains("blog_http_requests_total{"), "{text}");
    assert!(text.contains("blog_build_info{program=\"api\""), "{text}");
}

#[tokio::test]
async fn process_metrics_are_exported() {
    let app = TestApp::new().await;
    let text = scrape(&app.anonymous()).await;
    let read = |name: &str| value(&text, name).unwrap_or_else(|| panic!("{name}: {text}"));
    assert!(read("process_cpu_seconds_total") > 0.0);
    assert!(read("process_resident_memory_bytes") > 1e6);
    assert!(read("process_open_fds") < read("process_max_fds"));
    let now = chrono::Utc::now().timestamp() as f64;
    assert!((now - 60.0..=now + 1.0).contains(&read("process_start_time_seconds")));
}

#[tokio::test]
async fn a_job_is_counted_from_its_pickup_to_its_end() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    ann.create_post("Life and times").await;
    let worker = app.worker().await;
    app.wait_until_jobs_finished().await;
    let metrics = worker.metrics.clone();
    worker.stop().await;

    let text = metrics.render().unwrap();
    let read = |series: &str| value(&text, series).unwrap_or_else(|| panic!("{series}: {text}"));
    assert_eq!(read("blog_job_pickup_seconds_count"), 1.0);
    let succeeded = r#"{outcome="succeeded"}"#;
    for name in ["blog_job_attempt_duration", "blog_job_duration"] {
        assert_eq!(read(&format!("{name}_seconds_count{succeeded}")), 1.0);
    }
    let attempt = read(&format!("blog_job_attempt_duration_seconds_sum{succeeded}"));
    let job = read(&format!("blog_job_duration_seconds_sum{succeeded}"));
    assert!(0.0 < attempt && attempt <= job + 0.001, "{attempt} {job}");
    let succeeded = r#"{error="",outcome="succeeded"}"#;
    for name in ["blog_job_attempts_total", "blog_jobs_finished_total"] {
        assert_eq!(read(&format!("{name}{succeeded}")), 1.0);
    }
    assert_eq!(read("blog_worker_jobs_running"), 0.0);
    assert_eq!(read("blog_worker_concurrency"), 4.0);

    let calls = r#"{agent="openai",model="stub-large",outcome="succeeded"}"#;
    assert_eq!(read(&format!("blog_agent_calls_total{calls}")), 5.0);
    let model = r#"{agent="openai",model="stub-large"}"#;
    let timed = format!("blog_agent_call_duration_seconds_count{model}");
    assert_eq!(read(&timed), 5.0);
    let job = ann.get("/jobs").await.expect(200)["items"][0].clone();
    for (direction, name) in [("in", "input_tokens"), ("out", "output_tokens")] {
        let labels = format!(r#"{{agent="openai",direction="{direction}",model="stub-large"}}"#);
        let tokens = read(&format!("blog_agent_tokens_total{labels}"));
        assert_eq!(tokens, job["usage"][name].as_f64().unwrap());
    }
}

#[tokio::test]
async fn counters_start_at_zero() {
    let app = TestApp::new().await;
    let worker = app.worker().await;
    let text = worker.metrics.render().unwrap();
    for series in [
        r#"blog_jobs_finished_total{error="worker_lost",outcome="failed"}"#,
        r#"blog_job_attempts_total{error="agent_rate_limited",outcome="retried"}"#,
        r#"blog_job_attempts_total{error="",outcome="lost"}"#,
        r#"blog_agent_calls_total{agent="openai",model="stub-small",outcome="agent_timeout"}"#,
        r#"blog_agent_tokens_total{agent="openai",direction="out",model="stub-small"}"#,
        r#"blog_job_warnings_total{code="loop",model="stub-small"}"#,
        r#"blog_rescues_total{outcome="requeued"}"#,
        "blog_redeliveries_total",
    ] {
        assert_eq!(value(&text, series), Some(0.0), "{series}: {text}");
    }
    worker.stop().await;
}

#[tokio::test]
async fn errors_of_the_agent_are_counted_by_their_kind() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    ann.create_post("No and no and no").await;
    let times = AtomicUsize::new(0);
    app.agent.set(StubBehavior::per_request(move |_| {
        match times.fetch_add(1, Ordering::Relaxed) {
            0 => StubBehavior::Fail(429, "rate_limit_exceeded"),
            1 | 2 => StubBehavior::Fail(500, "server_error"),
            _ => StubBehavior::Fail(401, "invalid_api_key"),
        }
    }));
    let worker = app.worker().await;
    app.wait_until_jobs_finished().await;
    let metrics = worker.metrics.clone();
    worker.stop().await;

    let text = metrics.render().unwrap();
    let calls = |outcome: &str| {
        let labels = format!(r#"{{agent="openai",model="stub-large",outcome="{outcome}"}}"#);
        value(&text, &format!("blog_agent_calls_total{labels}"))
    };
    assert_eq!(calls("agent_rate_limited"), Some(1.0), "{text}");
    assert_eq!(calls("agent_unavailable"), Some(2.0), "{text}");
    assert_eq!(calls("agent_rejected"), Some(1.0), "{text}");
    let attempts = |outcome: &str, error: &str| {
        let labels = format!(r#"{{error="{error}",outcome="{outcome}"}}"#);
        value(&text, &format!("blog_job_attempts_total{labels}"))
    };
    assert_eq!(
        attempts("retried", "agent_unavailable"),
        Some(2.0),
        "{text}"
    );
    assert_eq!(attempts("failed", "agent_rejected"), Some(1.0), "{text}");
    let failed = r#"blog_jobs_finished_total{error="agent_rejected",outcome="failed"}"#;
    assert_eq!(value(&text, failed), Some(1.0), "{text}");
}

#[tokio::test]
async fn a_cancel_is_counted_by_whoever_ends_the_job() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    app.agent.set(StubBehavior::Hang);
    let worker = app.worker_with(&["--worker-concurrency=1"]).await;
    let running = ann.create_post("Never mind").await;
    app.agent.called(1).await;
    let at_work = value(
        &worker.metrics.render().unwrap(),
        "blog_worker_jobs_running",
    );
    assert_eq!(at_work, Some(1.0));
    let queued = ann.create_post("Never ever mind").await;
    for asked in [queued, running] {
        let job = asked["job"]["id"].as_str().unwrap();
        ann.post(&format!("/jobs/{job}/cancel"), json!({})).await;
    }
    app.wait_until_jobs_finished().await;
    let metrics = worker.metrics.clone();
    worker.stop().await;

    let text = metrics.render().unwrap();
    let canceled = r#"blog_jobs_finished_total{error="",outcome="canceled"}"#;
    assert_eq!(value(&scrape(&ann).await, canceled), Some(1.0));
    for series in [
        canceled,
        r#"blog_agent_calls_total{agent="openai",model="stub-large",outcome="canceled"}"#,
        r#"blog_job_attempts_total{error="",outcome="canceled"}"#,
    ] {
        assert_eq!(value(&text, series), Some(1.0), "{series}: {text}");
    }
    assert_eq!(value(&text, "blog_worker_jobs_running"), Some(0.0));
}

/// Takes a post's job out of the queue, though it waits.
async fn lose_delivery(app: &TestApp, post: &Value) {
    let id: Uuid = text(&post["job"]["id"]).parse().unwrap();
    let job = job::Entity::find_by_id(id).one(app.db.read()).await;
    let delivery = job.unwrap().unwrap().delivery_id.unwrap();
    let table = deliveries::table(app.db.backend());
    let delete = format!("DELETE FROM {table} WHERE id = '{delivery}'");
    app.execute(&delete).await;
}

#[tokio::test]
async fn a_rescue_and_a_new_delivery_are_counted() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    ann.create_post("Man overboard").await;
    app.lose_worker().await;
    lose_delivery(&app, &ann.create_post("Letter in a bottle").await).await;
    let worker = app.worker_with(SHORT_LEASE).await;
    app.wait_until_jobs_finished().await;
    let metrics = worker.metrics.clone();
    worker.stop().await;

    let text = metrics.render().unwrap();
    let rescued = r#"blog_rescues_total{outcome="requeued"}"#;
    assert_eq!(value(&text, rescued), Some(1.0), "{text}");
    assert_eq!(value(&text, "blog_redeliveries_total"), Some(1.0), "{text}");
    let swept = value(&text, r#"blog_sweeps_total{outcome="succeeded"}"#);
    assert!(swept > Some(0.0), "{text}");
}
