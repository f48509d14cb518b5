//! What is measured, as Prometheus would collect it.

use std::time::Duration;

use reqwest::Method;
use tokio::time::timeout;

use crate::test_app::{TestApp, TestClient};

/// The API's metrics.
async fn scrape(client: &TestClient) -> String {
    let answer = client.send(client.request(Method::GET, "//metrics")).await;
    assert_eq!(answer.status, 200);
    let format = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(answer.header("content-type"), format);
    answer.text
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
    let post = ann.ask("Counting sheep").await;
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
async fn a_client_that_goes_is_not_waited_for_any_more() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = ann.ask("Going, going").await;
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
async fn the_queue_is_as_long_as_its_jobs_are_many() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let text = scrape(&ann).await;
    let queued = r#"blog_queue_jobs{status="queued"}"#;
    let oldest = "blog_queue_oldest_due_seconds";
    assert_eq!(value(&text, queued), Some(0.0));
    assert_eq!(value(&text, oldest), Some(0.0));

    for topic in ["One thing", "Another thing"] {
        ann.ask(topic).await;
    }
    let text = scrape(&ann).await;
    assert_eq!(value(&text, queued), Some(2.0));
    let first = value(&text, oldest).unwrap();
    let later = value(&scrape(&ann).await, oldest).unwrap();
    assert!(
        0.0 < first && first < later && later < 30.0,
        "{first} {later}"
    );

    app.run_jobs().await;
    let text = scrape(&ann).await;
    assert_eq!(value(&text, queued), Some(0.0));
    assert_eq!(value(&text, oldest), Some(0.0));
}

#[tokio::test]
async fn a_scrape_without_a_database_lacks_only_what_that_would_tell() {
    let app = TestApp::new().await;
    let client = app.anonymous();
    let up = scrape(&client).await;
    assert_eq!(value(&up, "blog_database_up"), Some(1.0));
    assert!(up.contains("blog_queue_"), "{up}");

    app.db.clone().close().await;
    let text = scrape(&client).await;
    assert_eq!(value(&text, "blog_database_up"), Some(0.0));
    assert!(!text.contains("blog_queue_"), "{text}");
    assert!(text.contains("blog_http_requests_total{"), "{text}");
    assert!(text.contains("blog_build_info{program=\"api\""), "{text}");
}

#[tokio::test]
async fn a_process_tells_what_it_uses() {
    let app = TestApp::new().await;
    let text = scrape(&app.anonymous()).await;
    let read = |name: &str| value(&text, name).unwrap_or_else(|| panic!("{name}: {text}"));
    assert!(read("process_cpu_seconds_total") > 0.0);
    assert!(read("process_resident_memory_bytes") > 1e6);
    assert!(read("process_open_fds") < read("process_max_fds"));
    let now = chrono::Utc::now().timestamp() as f64;
    assert!((now - 60.0..=now + 1.0).contains(&read("process_start_time_seconds")));
}
