//! Metrics, as the processes serve them.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use crate::support::{Process, ScriptedAgent, Service};

const SERVED: &str = "metrics are served";

/// Where a worker serves its metrics.
async fn address(worker: &Process) -> String {
    let said = worker.wait_for_message(SERVED).await;
    said["address"].as_str().unwrap().to_owned()
}

async fn get(url: &str) -> reqwest::Response {
    // Nothing here needs TLS, but the library wants a provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::get(url).await.unwrap()
}

async fn scrape(address: &str) -> String {
    let response = get(&format!("http://{address}/metrics")).await;
    assert_eq!(response.status(), 200);
    let format = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(response.headers()["content-type"], format);
    response.text().await.unwrap()
}

/// Has Prometheus' own checker look at a scrape.
fn check(scrape: &str) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Err(error) if error.kind() == ErrorKind::NotFound && std::env::var_os("CI").is_none() => {
            return eprintln!("promtool is not installed: nobody has checked the metrics");
        }
        promtool => promtool.expect("promtool, of Debian's package prometheus"),
    };
    let mut input = promtool.stdin.take().unwrap();
    input.write_all(scrape.as_bytes()).unwrap();
    drop(input);
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(
        output.status.success() && said.is_empty(),
        "{said}\n{scrape}"
    );
}

#[tokio::test]
async fn promtool_accepts_our_metrics() {
    let writer = ScriptedAgent::new().await;
    let service = Service::of(&writer);
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    ann.wait_for_status(&post, "succeeded").await;
    ann.get("/nowhere").await;
    ann.create_post("Growing potatoes").await;

    let of_api = scrape(api.url.strip_prefix("http://").unwrap()).await;
    assert!(of_api.contains("blog_http_requests_total{"), "{of_api}");
    check(&of_api);
    let of_worker = scrape(&address(&worker).await).await;
    assert!(of_worker.contains("blog_agent_calls_total{"), "{of_worker}");
    check(&of_worker);
    api.stop().await.assert_no_warnings();
    worker.stop().await.assert_no_warnings();
}

#[tokio::test]
async fn workers_of_one_machine_have_a_metrics_address_each() {
    let service = Service::new().set("METRICS_ADDR", "");
    let workers = [service.worker().await, service.worker().await];
    let (first, second) = (address(&workers[0]).await, address(&workers[1]).await);
    assert_ne!(first, second);
    for address in [first, second] {
        assert!(address.starts_with("127.0.0.1:"), "{address}");
        assert!(
            scrape(&address)
                .await
                .contains("blog_build_info{program=\"worker\"")
        );
    }
    for worker in workers {
        worker.stop().await.assert_no_warnings();
    }
}

#[tokio::test]
async fn a_worker_serves_metrics_alone_and_nothing_if_that_is_off() {
    let service = Service::new().set("METRICS_ADDR", "off");
    let exit = service.worker().await.stop().await;
    exit.assert_no_warnings();
    assert!(!exit.text().contains(SERVED), "{}", exit.text());

    let service = Service::new();
    let worker = service.worker().await;
    let other = format!("http://{}/blogs", address(&worker).await);
    assert_eq!(get(&other).await.status(), 404);
    worker.stop().await.assert_no_warnings();
}
