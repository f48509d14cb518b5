//! A program of the operator's own as the agent, in real processes.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use testing::{TIMEOUT, outcomes, text};
use tokio::time::{sleep, timeout};

use crate::support::{Service, wait_until_dead};

/// A service whose agent is a shell script; its first argument is the folder.
pub(crate) fn service(script: &str) -> Service {
    let service = Service::new();
    let file = service.path().join("agent.sh");
    std::fs::write(&file, script).unwrap();
    let command = format!("/bin/sh {} {}", file.display(), service.path().display());
    service.set("AGENT", "script").set("AGENT_SCRIPT", command)
}

/// Two lives that no SIGTERM ends: the script's own, and that of a child which
/// holds all of its pipes open. The file appears whole.
pub(crate) const LIVES_ON: &str = r#"
    trap '' TERM
    sleep 1000 &
    echo $$ $! > $1/draft
    mv $1/draft $1/processes
    wait
"#;

/// Waits until the script of [`LIVES_ON`] runs, and tells its processes.
pub(crate) async fn processes(folder: &Path) -> Vec<u32> {
    let read = async {
        loop {
            if let Ok(ids) = std::fs::read_to_string(folder.join("processes")) {
                let ids = ids.split_whitespace().map(|id| id.parse().unwrap());
                return ids.collect();
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let ids: Vec<u32> = timeout(TIMEOUT, read).await.expect("no script runs");
    assert_eq!(ids.len(), 2);
    ids
}

#[tokio::test]
async fn a_script_writes_the_post_and_gets_none_of_our_secrets() {
    let service = service(
        r#"
        env > $1/environment
        cat > $1/input
        echo '{"type": "progress", "percent": 50}'
        echo '{"type": "post", "title": "On Tea", "content": "Tea is a drink that is made of leaves. One pours hot water over them, waits, and drinks what has become of it."}'
        "#,
    );
    let service = service
        .set("AGENT_API_KEY", "hidden-key")
        .set("AGENT_HEADERS", "x-key: hidden-header")
        .set("JWT_SECRET", "hidden-secret-hidden-secret-hidden")
        .set("AGENT_SCRIPT_ENV_TOKEN", "meant-for-it");
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.create_post("A cup of tea").await;
    let job = ann.wait_for_status(&post, "succeeded").await;
    assert_eq!(outcomes(&job), ["succeeded"]);
    assert_eq!(job["model"], "script");

    let post = ann.get_post(&post).await;
    assert_eq!(post["title"], "On Tea");
    assert!(text(&post["content"]).contains("One pours hot water over them"));
    let read = |file| std::fs::read_to_string(service.path().join(file)).unwrap();
    let input: serde_json::Value = serde_json::from_str(&read("input")).unwrap();
    assert_eq!(input["topic"], "A cup of tea");
    assert_eq!(input["job_id"], job["id"]);
    let environment = read("environment");
    assert!(environment.lines().any(|line| line == "TOKEN=meant-for-it"));
    let settings = ["hidden", "AGENT", "JWT", "DATABASE", "DATA_DIR"];
    for ours in settings {
        assert!(!environment.contains(ours), "{environment}");
    }
    worker.stop().await.assert_no_warnings();
    service.assert_at_rest().await;
}

#[tokio::test]
async fn a_cancel_kills_a_script_and_all_that_it_started() {
    let service = service(LIVES_ON);
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.create_post("A cup of tea").await;
    let ids = processes(service.path()).await;

    let cancel = format!("/jobs/{}/cancel", text(&post["job"]["id"]));
    let answer = ann.post(&cancel, json!({})).await;
    assert_eq!(answer.body["status"], "canceling", "{answer:?}");
    let job = ann.wait_for_status(&post, "canceled").await;
    assert_eq!(outcomes(&job), ["canceled"]);
    for id in ids {
        wait_until_dead(id).await;
    }
    worker.stop().await.assert_no_warnings();
    service.assert_at_rest().await;
}

#[tokio::test]
async fn a_killed_worker_takes_its_script_with_it() {
    let service = service(LIVES_ON);
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    ann.create_post("A cup of tea").await;
    let ids = processes(service.path()).await;
    worker.kill().await;
    for id in ids {
        wait_until_dead(id).await;
    }
}

#[tokio::test]
async fn a_stopped_worker_kills_its_script_when_the_grace_is_over() {
    let service = service(LIVES_ON).set("SHUTDOWN_GRACE_SECS", "0");
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.create_post("A cup of tea").await;
    let ids = processes(service.path()).await;
    worker.stop().await.assert_no_warnings();
    for id in ids {
        wait_until_dead(id).await;
    }
    let job = ann.get_job(&post).await;
    assert_eq!(
        (&job["status"], &job["attempt"]),
        (&json!("queued"), &json!(0))
    );
    assert_eq!(outcomes(&job), ["released"]);
}

#[tokio::test]
async fn a_script_that_is_not_there_fails_the_job_and_not_the_worker() {
    let service = Service::new()
        .set("AGENT", "script")
        .set("AGENT_SCRIPT", "/nowhere/agent");
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    for _ in 0..2 {
        let post = ann.create_post("A cup of tea").await;
        let job = ann.wait_for_status(&post, "failed").await;
        assert_eq!(outcomes(&job), ["failed"]);
        assert_eq!(job["error"]["code"], "agent_unavailable");
        assert!(!job.to_string().contains("/nowhere"), "{job}");
    }
    let log = worker.stop().await.text();
    assert!(log.contains("/nowhere/agent"), "{log}");
    service.assert_at_rest().await;
}

#[tokio::test]
async fn a_script_is_asked_for_no_parts_of_posts() {
    let service = service(r#"echo '{"type": "post", "title": "Tea", "content": "Tea is hot."}'"#);
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let body = json!({ "topic": "A cup of tea", "outline": "review" });
    let refused = ann.post("/blogs", body).await;
    refused.assert_field_errors(&["outline: unsupported"]);
    let post = ann.create_post("A cup of tea").await;
    ann.wait_for_status(&post, "succeeded").await;
    let section = format!("/blogs/{}/sections/0/regenerate", text(&post["id"]));
    let refused = ann.post(&section, json!({})).await;
    refused.assert_field_errors(&["number: unsupported"]);
    worker.stop().await;
}
