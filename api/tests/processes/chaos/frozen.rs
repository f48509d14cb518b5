//! A worker that stands still, and goes on when nobody expects it any more.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use sea_orm::ConnectionTrait;
use testing::stub::Act;
use testing::{HEADINGS, outcomes, text};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::service;
use crate::support::{OUTLINE, Process, ScriptedAgent, Service, write};

#[tokio::test]
async fn a_frozen_worker_changes_nothing_once_another_has_its_job() {
    let gate = Arc::new(Notify::new());
    let (until, third) = (gate.clone(), HEADINGS[2]);
    let writer = ScriptedAgent::scripted(move |asked, before| {
        let mut acts = write(asked);
        acts.insert(1, Act::Gate(until.clone()));
        (asked == third && before == 0).then_some(acts)
    })
    .await;
    let service = service(&writer);
    let (api, frozen) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    writer.wait_for_request(third).await;
    freeze(&frozen, &service).await;
    // This waits for it when it wakes up.
    gate.notify_one();

    let heir = service.worker().await;
    let job = ann.wait_for_status(&post, "succeeded").await;
    assert_eq!(outcomes(&job), ["lost", "succeeded"]);
    let written = ann.get_post(&post).await;
    assert_eq!(written["version"], 2);
    frozen.signal(Signal::CONT);
    frozen
        .line("lease lost: the job is another's, or deleted")
        .await;
    assert_eq!(ann.get_post(&post).await, written);
    let [first, second, _, fourth] = HEADINGS;
    let expected = [OUTLINE, first, second, third, third, fourth];
    assert_eq!(writer.asked(), expected);

    // It goes on working.
    heir.stop().await;
    let next = ann.create_post("Growing potatoes").await;
    let job = ann.wait_for_status(&next, "succeeded").await;
    assert_eq!(outcomes(&job), ["succeeded"]);
    let of_frozen = &written["job"]["attempts"][0]["worker"];
    assert_eq!(text(&job["attempts"][0]["worker"]), text(of_frozen));
    frozen.stop().await;
    service.assert_at_rest().await;
}

/// Freezes a worker at a moment when it holds no lock: on SQLite it would hold
/// up everyone, and on Postgres whoever wants its job, for some seconds.
async fn freeze(worker: &Process, service: &Service) {
    let db = service.database().await;
    loop {
        worker.signal(Signal::STOP);
        while !stands_still(worker.id()) {
            sleep(Duration::from_millis(1)).await;
        }
        let touch = db.transaction(async |tx| {
            tx.execute_unprepared("UPDATE generation_jobs SET percent = percent")
                .await
        });
        if timeout(Duration::from_secs(1), touch).await.is_ok() {
            break;
        }
        worker.signal(Signal::CONT);
    }
    db.close().await;
}

/// The signal is sent to one thread, and stops the others only when that one
/// gets to run.
fn stands_still(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let is_stopped = |thread: PathBuf| {
        let status = std::fs::read_to_string(thread.join("status"));
        status.is_ok_and(|status| status.contains("\nState:\tT"))
    };
    threads.map(|thread| thread.unwrap().path()).all(is_stopped)
}
