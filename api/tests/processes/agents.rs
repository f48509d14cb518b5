//! Agents that don't answer, and what clients notice of it.

use reqwest::Method;
use serde_json::json;
use testing::stub::{Act, stream};
use testing::stub_openai::delta;
use testing::{SOON, outcomes};

use crate::support::{Api, OUTLINE, Process, ScriptedAgent, Service};

/// Nobody listens there, and no one without privileges ever will.
const NOBODY: &str = "http://127.0.0.1:1/v1";

#[tokio::test]
async fn a_post_is_accepted_at_once_though_the_agent_is_dead() {
    let service = Service::new()
        .set("AGENT", "openai")
        .set("AGENT_MODEL", "stub")
        .set("AGENT_URL", NOBODY);
    asking_is_answered_at_once(&service, "dead").await;
}

#[tokio::test]
async fn a_post_is_accepted_at_once_though_the_agent_hangs() {
    let writer = ScriptedAgent::scripted(|_, _| Some(vec![Act::Hold])).await;
    let _running = asking_is_answered_at_once(&Service::of(&writer), "hanging").await;
    writer.wait_for_request(OUTLINE).await;
}

#[tokio::test]
async fn a_post_is_accepted_at_once_though_the_agent_never_ends() {
    let endless = stream([Act::Endless(delta("tea "))]);
    let writer = ScriptedAgent::scripted(move |_, _| Some(endless.clone())).await;
    let _running = asking_is_answered_at_once(&Service::of(&writer), "endless").await;
    writer.wait_for_request(OUTLINE).await;
}

/// The worker is at it all the while. Returns both processes, which run on.
async fn asking_is_answered_at_once(service: &Service, agent: &str) -> (Api, Process) {
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let mut times = Vec::new();
    for _ in 0..30 {
        let body = json!({ "topic": "Growing tomatoes" });
        let answer = ann
            .send(ann.request(Method::POST, "/blogs").json(&body))
            .await;
        assert_eq!(answer.status, 202, "{answer:?}");
        times.push(answer.took);
    }
    times.sort();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    eprintln!("POST /blogs, agent {agent}: median {median:?}, longest {longest:?}");
    assert!(longest < SOON, "{times:?}");
    (api, worker)
}

#[tokio::test]
async fn without_any_agent_jobs_fail_and_the_log_says_what_to_set() {
    // AGENT is not set, so this is where the local model would be.
    let service = Service::new()
        .set("AGENT_URL", NOBODY)
        .set("JOB_MAX_ATTEMPTS", "1");
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    let job = ann.wait_for_status(&post, "failed").await;
    assert_eq!(job["error"]["code"], "agent_unavailable");
    assert_eq!(outcomes(&job), ["failed"]);
    assert_eq!(ann.get_post(&post).await["status"], "failed");
    // What the client reads tells nothing of where the agent should be.
    assert!(!job.to_string().contains("127.0.0.1"), "{job}");

    let log = worker.stop().await.text();
    for setting in ["AGENT", "AGENT_URL", "AGENT_MODEL", "AGENT_API_KEY"] {
        assert!(log.contains(setting), "{log}");
    }
    assert!(log.contains("Connection refused"), "{log}");
    service.assert_at_rest().await;
}

#[tokio::test]
async fn a_job_whose_agent_is_dead_is_tried_as_often_as_set() {
    let service = Service::new()
        .set("AGENT_URL", NOBODY)
        .set("JOB_MAX_ATTEMPTS", "3");
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    let job = ann.wait_for_status(&post, "failed").await;
    assert_eq!(outcomes(&job), ["failed"; 3]);
    assert_eq!(
        (&job["attempt"], &job["max_attempts"]),
        (&json!(3), &json!(3))
    );
    worker.stop().await;
    service.assert_at_rest().await;
}
