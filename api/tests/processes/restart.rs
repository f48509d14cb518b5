//! A database that goes away for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testing::{HEADINGS, TIMEOUT, TestClient, TestResponse, outcomes};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, CuttableProxy, LEASE, Quality, ScriptedAgent, Service, Stop};

#[tokio::test]
async fn a_restart_of_the_database_loses_nothing_and_stops_no_one() {
    lives_through(Stop::Fast).await;
}

#[tokio::test]
async fn a_crash_of_the_database_loses_nothing_and_stops_no_one() {
    lives_through(Stop::Immediate).await;
}

async fn lives_through(how: Stop) {
    let Some(mut cluster) = Cluster::start_new().await else {
        return;
    };
    let second = HEADINGS[1];
    let (writer, gate) = ScriptedAgent::gated(second).await;
    let service = Service::of(&writer).set("DATABASE_URL", cluster.url());
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let begun = ann.create_post("Growing tomatoes").await;
    writer.wait_for_request(second).await;
    let asker = Asker::start(&ann);
    asker.is_answered(202).await;

    cluster.stop(how).await;
    let ready = ann.get("//ready").await;
    assert_eq!(ready.status, 503, "{ready:?}");
    assert_eq!(ready.body["missing"], json!(["the database"]));
    assert!(ready.headers.contains_key("retry-after"));
    for path in ["/users/me", "/blogs", "/jobs"] {
        is_unavailable(&ann.get(path).await);
    }
    // What the agent brings meanwhile must not be lost.
    gate.notify_one();
    asker.is_answered(503).await;

    cluster.start().await;
    asker.is_answered(202).await;
    let accepted = asker.stop().await;
    ann.wait_until_ready().await;
    for post in accepted.iter().chain([&begun]) {
        ann.wait_for_status(post, "succeeded").await;
        // Stored once: every change would raise the version again.
        assert_eq!(ann.get_post(post).await["version"], 2);
    }
    for process in [worker.stop().await, api.stop().await] {
        let log = process.text();
        assert!(!log.contains("panicked"), "{log}");
    }
    service.assert_at_rest().await;
}

/// Nobody can renew a lease meanwhile, and nobody was lost.
#[tokio::test]
async fn a_database_outage_longer_than_a_lease_takes_no_job_from_its_worker() {
    let Some(mut cluster) = Cluster::start_new().await else {
        return;
    };
    let second = HEADINGS[1];
    let (writer, gate) = ScriptedAgent::gated(second).await;
    let service = Service::of(&writer)
        .set("DATABASE_URL", cluster.url())
        .set("JOB_MAX_ATTEMPTS", "1");
    let (api, worker, idle) = (
        service.api().await,
        service.worker().await,
        service.worker().await,
    );
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    writer.wait_for_request(second).await;
    cluster.stop(Stop::Fast).await;
    sleep(LEASE + Duration::from_secs(1)).await;
    cluster.start().await;
    // Until all have noticed that it is back.
    sleep(LEASE).await;
    gate.notify_one();
    ann.wait_for_status(&post, "succeeded").await;
    for process in [worker.stop().await, idle.stop().await, api.stop().await] {
        let log = process.text();
        assert!(
            !log.contains("rescued a job: its worker's lease expired"),
            "{log}"
        );
    }
    service.assert_at_rest().await;
}

/// As when a machine is cut off: what is open stays so, and says nothing more.
#[tokio::test]
async fn a_database_that_vanishes_silently_is_connected_to_anew() {
    let Some(cluster) = Cluster::start_new().await else {
        return;
    };
    let writer = ScriptedAgent::new().await;
    let wire = CuttableProxy::to(&cluster, Quality::Good).await;
    let service = Service::of(&writer).set("DATABASE_URL", wire.url());
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    ann.wait_for_status(&post, "succeeded").await;

    wire.cut();
    let asker = Asker::start(&ann);
    asker.is_answered(202).await;
    for post in asker.stop().await {
        ann.wait_for_status(&post, "succeeded").await;
    }
    worker.stop().await;
    api.stop().await;
    service.assert_at_rest().await;
}

/// What was committed is found again, and is neither done nor paid for twice.
#[tokio::test]
async fn a_worker_whose_commits_are_not_acknowledged_repeats_no_attempt_and_no_call() {
    let Some(cluster) = Cluster::start_new().await else {
        return;
    };
    let writer = ScriptedAgent::new().await;
    let service = Service::of(&writer)
        .set("DATABASE_URL", cluster.url())
        .set("JOB_MAX_ATTEMPTS", "1");
    let commits = Arc::<AtomicUsize>::default();
    let wire = CuttableProxy::to(&cluster, Quality::LosesAnswers(commits.clone())).await;
    let api = service.api().await;
    let service = service.set("DATABASE_URL", wire.url());
    let worker = service.worker().await;
    let service = service.set("DATABASE_URL", cluster.url());
    let ann = api.user("ann").await;
    let mut posts = Vec::new();
    for topic in ["Tomatoes", "Potatoes", "Carrots", "Onions"] {
        posts.push(ann.create_post(topic).await);
    }
    for post in &posts {
        let job = ann.wait_for_status(post, "succeeded").await;
        assert_eq!(outcomes(&job), ["succeeded"]);
        assert_eq!(ann.get_post(post).await["version"], 2);
    }
    let parts = HEADINGS.len() + 1;
    assert_eq!(writer.written().len(), posts.len() * parts);
    assert!(commits.load(Ordering::Relaxed) > 2 * posts.len());
    let log = worker.stop().await;
    assert!(!log.text().contains("lease lost"), "{}", log.text());
    api.stop().await;
    service.assert_at_rest().await;
}

fn is_unavailable(answer: &TestResponse) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.body["code"], "unavailable");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
}

/// Somebody who asks for one post after the other, whatever the answer is.
struct Asker {
    answers: watch::Receiver<u16>,
    stop: CancellationToken,
    asking: JoinHandle<Vec<Value>>,
}

impl Asker {
    fn start(client: &TestClient) -> Asker {
        let (client, stop) = (client.with_new_connection(), CancellationToken::new());
        let (tell, answers) = watch::channel(0);
        let until = stop.clone();
        let asking = tokio::spawn(async move {
            let mut accepted = Vec::new();
            while !until.is_cancelled() {
                let body = json!({ "topic": "Growing potatoes" });
                let answer = client.post("/blogs", body).await;
                match answer.status {
                    202 => accepted.push(answer.body),
                    _ => is_unavailable(&answer),
                }
                tell.send_replace(answer.status);
                sleep(Duration::from_millis(20)).await;
            }
            accepted
        });
        Asker {
            answers,
            stop,
            asking,
        }
    }

    /// Waits until the next time that it is answered so.
    async fn is_answered(&self, status: u16) {
        let mut answers = self.answers.clone();
        answers.mark_unchanged();
        let answered = async {
            while answers.changed().await.is_ok() {
                if *answers.borrow_and_update() == status {
                    return;
                }
            }
            panic!("it was answered otherwise");
        };
        let answered = timeout(TIMEOUT, answered).await;
        answered.unwrap_or_else(|_| panic!("it is not answered {status}"));
    }

    /// Ends it. Returns the posts that it was promised.
    async fn stop(self) -> Vec<Value> {
        self.stop.cancel();
        self.asking.await.unwrap()
    }
}
