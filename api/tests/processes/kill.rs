//! Processes that end without a word.

use std::sync::Arc;
use std::time::{Duration, Instant};

use entity::{job, post};
use reqwest::Method;
use sea_orm::{EntityTrait, PaginatorTrait};
use serde_json::json;
use testing::stub::Act;
use testing::{HEADINGS, SOON, TIMEOUT, outcomes, text};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{sleep, timeout};

use crate::support::{LEASE, OUTLINE, ScriptedAgent, Service};

#[tokio::test]
async fn a_killed_worker_costs_a_job_no_more_than_the_step_it_was_at() {
    let second = HEADINGS[1];
    let writer = ScriptedAgent::scripted(move |asked, before| {
        let first_time = asked == second && before == 0;
        first_time.then(|| vec![Act::Hold])
    })
    .await;
    let service = Service::of(&writer);
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    writer.wait_for_request(second).await;

    worker.kill().await;
    let killed = Instant::now();
    let heir = service.worker().await;
    let job = ann.wait_for_status(&post, "succeeded").await;
    assert!(killed.elapsed() < LEASE + SOON, "{:?}", killed.elapsed());

    assert_eq!(outcomes(&job), ["lost", "succeeded"]);
    assert_eq!(job["attempt"], 2);
    assert_eq!(job["attempts"][0]["error"]["code"], "worker_lost");
    assert!(job["error"].is_null());
    let [first, _, third, fourth] = HEADINGS;
    let expected = [OUTLINE, first, second, second, third, fourth];
    assert_eq!(writer.asked(), expected);
    // Stored once: every change would raise the version again.
    let post = ann.get_post(&post).await;
    assert_eq!(
        (&post["status"], &post["version"]),
        (&json!("ready"), &json!(2))
    );
    let content = text(&post["content"]);
    for heading in HEADINGS {
        assert_eq!(content.matches(heading).count(), 1, "{content}");
    }
    // The tokens of the lost call can't be known; those of all others count.
    assert_eq!(job["usage"]["output_tokens"], 5 * 20);
    heir.stop().await;
    service.assert_at_rest().await;
}

#[tokio::test]
async fn a_job_that_is_canceled_after_its_worker_was_killed_ends() {
    let writer = ScriptedAgent::scripted(|_, _| Some(vec![Act::Hold])).await;
    let service = Service::of(&writer);
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    writer.wait_for_request(OUTLINE).await;
    worker.kill().await;

    let cancel = format!("/jobs/{}/cancel", text(&post["job"]["id"]));
    let canceled = ann.post(&cancel, json!({})).await;
    assert_eq!(canceled.body["status"], "canceling", "{canceled:?}");
    let heir = service.worker().await;
    let job = ann.wait_for_status(&post, "canceled").await;
    assert_eq!(outcomes(&job), ["lost"]);
    assert_eq!(writer.asked(), [OUTLINE]);
    heir.stop().await;
    service.assert_at_rest().await;
}

#[tokio::test]
async fn a_job_that_kills_its_workers_is_given_up() {
    let writer = ScriptedAgent::scripted(|_, _| Some(vec![Act::Hold])).await;
    let service = Service::of(&writer).set("JOB_MAX_ATTEMPTS", "1");
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    writer.wait_for_request(OUTLINE).await;
    worker.kill().await;

    let heir = service.worker().await;
    let job = ann.wait_for_status(&post, "failed").await;
    assert_eq!(outcomes(&job), ["lost"]);
    assert_eq!(job["error"]["code"], "worker_lost");
    heir.stop().await;
    service.assert_at_rest().await;
}

#[tokio::test]
async fn a_job_accepted_by_a_killed_api_is_done() {
    let writer = ScriptedAgent::new().await;
    let service = Service::of(&writer);
    let api = service.api().await;
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    api.kill().await;

    let worker = service.worker().await;
    let api = service.api().await;
    let ann = ann.at(&api.url);
    let job = ann.wait_for_status(&post, "succeeded").await;
    assert_eq!(outcomes(&job), ["succeeded"]);
    assert_eq!(ann.get_post(&post).await["status"], "ready");
    worker.stop().await.assert_no_warnings();
    service.assert_at_rest().await;
}

#[tokio::test]
async fn an_api_killed_amid_requests_has_executed_each_wholly_or_not_at_all() {
    let writer = ScriptedAgent::new().await;
    let service = Service::of(&writer);
    let api = service.api().await;
    let ann = api.user("ann").await;
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let enough = Arc::new(Semaphore::new(0));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (ann, accepted, enough) =
                (ann.with_new_connection(), accepted.clone(), enough.clone());
            tokio::spawn(async move {
                let body = json!({ "topic": "Growing tomatoes" });
                let ask = || ann.request(Method::POST, "/blogs").json(&body);
                while let Ok(answer) = ann.try_send(ask()).await {
                    assert_eq!(answer.status, 202, "{answer:?}");
                    accepted.lock().await.push(answer.body);
                    enough.add_permits(1);
                }
            })
        })
        .collect();
    let _ = enough.acquire_many(20).await.unwrap();
    api.kill().await;
    for client in clients {
        client.await.unwrap();
    }

    let db = service.database().await;
    let whole = async {
        loop {
            let posts = post::Entity::find().count(db.read()).await.unwrap();
            let jobs = job::Entity::find().count(db.read()).await.unwrap();
            let deliveries = shared::queue::count_deliveries(db.read()).await.unwrap();
            if (posts, posts) == (jobs, u64::try_from(deliveries).unwrap()) {
                return;
            }
            // A server that was told to commit does so even though its client is dead.
            sleep(Duration::from_millis(5)).await;
        }
    };
    let whole = timeout(TIMEOUT, whole).await;
    whole.expect("a post has no job, or a job has no delivery");
    db.close().await;

    let (worker, api) = (service.worker().await, service.api().await);
    let ann = ann.at(&api.url);
    for post in accepted.lock().await.iter() {
        ann.wait_for_status(post, "succeeded").await;
    }
    // Those that were stored, but whose answer was lost.
    for post in ann.get("/blogs?limit=100").await.body["items"]
        .as_array()
        .unwrap()
    {
        ann.wait_for_status(post, "succeeded").await;
    }
    worker.stop().await.assert_no_warnings();
    service.assert_at_rest().await;
}
