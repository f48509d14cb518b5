//! Workers on machines whose clocks are wrong. On Postgres only: on SQLite all
//! share one machine.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use testing::stub::{Act, whole};
use testing::{SOON, outcomes, text};
use tokio::time::sleep;

use super::load::Load;
use super::worker_pool::WorkerPool;
use super::{invariants, length, service};
use crate::support::{LEASE, OUTLINE, Process, ScriptedAgent, Service, SkewedClock};

const BEHIND: i64 = -6 * 3600;
const AHEAD: i64 = 6 * 3600;

#[tokio::test]
async fn workers_whose_clocks_differ_share_the_work() {
    let writer = ScriptedAgent::new().await;
    let service = service(&writer);
    if service.is_on_sqlite() {
        return;
    }
    let api = service.api().await;
    let mut fleet = WorkerPool::of(1, &service).await;
    for skew in [BEHIND, AHEAD] {
        fleet.add(worker(&service, skew).await);
    }
    let crowd = Load::at(&api).await;
    sleep(length()).await;
    let asked = crowd.content().await;
    assert_eq!(asked.refused, 0);
    for exit in fleet.stop().await {
        // Nobody takes a job from another.
        assert!(!exit.text().contains("was lost"), "{}", exit.text());
    }
    api.stop().await.assert_no_warnings();
    invariants::balance(&service, &writer, &asked).await;
}

#[tokio::test]
async fn a_worker_whose_clock_is_wrong_keeps_its_job_as_long_as_it_lives() {
    tokio::join!(
        keeps_its_job(BEHIND, AHEAD), //
        keeps_its_job(AHEAD, BEHIND),
    );
}

async fn keeps_its_job(skew: i64, skew_of_heir: i64) {
    let hold = |asked: &str, before| (asked == OUTLINE && before == 0).then(|| vec![Act::Hold]);
    let writer = ScriptedAgent::scripted(hold).await;
    let service = service(&writer);
    if service.is_on_sqlite() {
        return;
    }
    let (api, first) = (service.api().await, worker(&service, skew).await);
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    writer.wait_for_request(OUTLINE).await;
    let heir = worker(&service, skew_of_heir).await;
    // All the while the heir looks for jobs whose worker is silent.
    sleep(LEASE + LEASE / 3).await;
    assert_eq!(outcomes(&ann.get_job(&post).await), ["none"]);

    first.kill().await;
    // Nobody waits for hours.
    let job = ann.wait_for_status(&post, "succeeded").await;
    assert_eq!(outcomes(&job), ["lost", "succeeded"], "{job:#}");
    // In their order, whatever the clocks say of it.
    let [lost, succeeded] = [&job["attempts"][0], &job["attempts"][1]];
    let moments = [
        &job["created_at"],
        &lost["started_at"],
        &lost["finished_at"],
        &succeeded["started_at"],
        &succeeded["finished_at"],
    ];
    assert!(moments.map(text).is_sorted(), "{job:#}");
    heir.stop().await;
    service.assert_at_rest().await;
}

#[tokio::test]
async fn a_retry_is_in_time_whatever_the_clocks_say() {
    tokio::join!(
        is_retried_in_time(BEHIND, AHEAD), //
        is_retried_in_time(AHEAD, BEHIND),
    );
}

async fn is_retried_in_time(skew: i64, skew_of_next: i64) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let times = asked.clone();
    let writer = ScriptedAgent::scripted(move |asked, before| {
        times.lock().unwrap().push(Instant::now());
        let refused = asked == OUTLINE && before == 0;
        refused.then(|| whole(503, &[("retry-after", "2")], ""))
    })
    .await;
    let service = service(&writer);
    if service.is_on_sqlite() {
        return;
    }
    let (api, first) = (service.api().await, worker(&service, skew).await);
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    first.line("attempt failed; the job will be retried").await;
    first.stop().await;
    let next = worker(&service, skew_of_next).await;
    let job = ann.wait_for_status(&post, "succeeded").await;
    assert_eq!(outcomes(&job), ["failed", "succeeded"]);
    let asked = asked.lock().unwrap().clone();
    let pause = asked[1] - asked[0];
    let wanted = Duration::from_secs(2);
    assert!((wanted..wanted + SOON).contains(&pause), "{pause:?}");
    next.stop().await.assert_no_warnings();
    service.assert_at_rest().await;
}

/// A worker whose clock is off by so many seconds.
async fn worker(service: &Service, skew: i64) -> Process {
    let clock = SkewedClock::new(service.path(), &skew.to_string(), skew);
    let mut settings = service.settings.clone();
    settings.extend(clock.environment());
    let worker = service.start_with("worker", &settings);
    let ready = worker.wait_for_message("the worker is ready").await;
    let its_time = text(&ready["timestamp"]).parse::<chrono::DateTime<chrono::Utc>>();
    let off = its_time.unwrap() - chrono::Utc::now();
    assert!((off.num_seconds() - skew).abs() < 60, "{ready}");
    worker
}
