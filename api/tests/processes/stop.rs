//! Processes that are asked to end.

use std::fs::File;
use std::time::Duration;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use testing::stub::Act;
use testing::{AT_ONCE, HEADINGS, TIMEOUT, outcomes, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::{OUTLINE, Process, ScriptedAgent, Service};

const STOPPING: &str = "stopping: starting no new work, finishing what runs";

#[tokio::test]
async fn a_stopped_worker_finishes_its_job_and_claims_no_other() {
    let second = HEADINGS[1];
    let (writer, gate) = ScriptedAgent::gated(second).await;
    let service = Service::of(&writer).set("WORKER_CONCURRENCY", "2");
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let begun = ann.create_post("Growing tomatoes").await;
    writer.wait_for_request(second).await;

    worker.signal(Signal::TERM);
    worker.wait_for_message(STOPPING).await;
    // It has room for one more, and is not to take it.
    let waiting = ann.create_post("Growing potatoes").await;
    let later = ann.create_post("Growing carrots").await;
    gate.notify_one();
    let exit = worker.wait_for_exit().await;
    assert_eq!(exit.code, Some(0));
    exit.assert_no_warnings();

    let job = ann.get_job(&begun).await;
    assert_eq!(job["status"], "succeeded");
    assert_eq!(outcomes(&job), ["succeeded"]);
    for post in [&waiting, &later] {
        let job = ann.get_job(post).await;
        assert_eq!(job["status"], "queued");
        assert_eq!(outcomes(&job), [""; 0]);
    }
    assert_eq!(writer.asked().len(), 1 + HEADINGS.len());

    let heir = service.worker().await;
    ann.wait_for_status(&waiting, "succeeded").await;
    ann.wait_for_status(&later, "succeeded").await;
    heir.stop().await.assert_no_warnings();
    service.assert_at_rest().await;
}

#[tokio::test]
async fn a_worker_without_grace_releases_its_job_at_once() {
    gives_its_job_back_after("0").await;
}

#[tokio::test]
async fn a_worker_whose_grace_is_over_releases_its_job() {
    gives_its_job_back_after("1").await;
}

async fn gives_its_job_back_after(grace: &str) {
    let third = HEADINGS[2];
    let writer = ScriptedAgent::scripted(move |asked, before| {
        let first_time = asked == third && before == 0;
        first_time.then(|| vec![Act::Hold])
    })
    .await;
    let service = Service::of(&writer).set("SHUTDOWN_GRACE_SECS", grace);
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    writer.wait_for_request(third).await;

    let exit = worker.stop().await;
    let grace = Duration::from_secs(grace.parse().unwrap());
    assert!(exit.took < grace + AT_ONCE, "{:?}", exit.took);
    assert!(exit.took >= grace, "{:?}", exit.took);
    exit.assert_no_warnings();
    writer.client_gone().await;
    let job = ann.get_job(&post).await;
    assert_eq!(job["status"], "queued", "{job:#}");
    assert_eq!(job["attempt"], 0);
    assert_eq!(outcomes(&job), ["released"]);
    assert!(job["error"].is_null());

    let heir = service.worker().await;
    let job = ann.wait_for_status(&post, "succeeded").await;
    assert_eq!(outcomes(&job), ["released", "succeeded"]);
    assert_eq!(job["attempt"], 1);
    let [first, second, _, fourth] = HEADINGS;
    let expected = [OUTLINE, first, second, third, third, fourth];
    assert_eq!(writer.asked(), expected);
    heir.stop().await.assert_no_warnings();
    service.assert_at_rest().await;
}

#[tokio::test]
async fn an_idle_worker_stops_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let service = Service::new();
        let worker = service.worker().await;
        worker.signal(signal);
        stopped_at_once(worker).await;
    }
}

#[tokio::test]
async fn a_stopping_api_answers_all_long_polls() {
    for signal in [Signal::TERM, Signal::INT] {
        let service = Service::new();
        let api = service.api().await;
        let ann = api.user("ann").await;
        let post = ann.create_post("Growing tomatoes").await;
        let watch = format!("/jobs/{}?wait=60", text(&post["job"]["id"]));
        let watchers: Vec<_> = (0..5)
            .map(|_| {
                let (ann, watch) = (ann.with_new_connection(), watch.clone());
                tokio::spawn(async move { ann.get(&watch).await })
            })
            .collect();
        let askers: Vec<_> = (0..5)
            .map(|_| {
                let ann = ann.with_new_connection();
                let ask = ann.request(Method::POST, "/blogs");
                let ask = ask.header("prefer", "wait=60");
                let ask = ask.json(&json!({ "topic": "Growing potatoes" }));
                tokio::spawn(async move { ann.send(ask).await })
            })
            .collect();
        // Once all of theirs are stored, those who came before them wait too.
        let stored = |list: &serde_json::Value| list["items"].as_array().unwrap().len();
        while stored(&ann.get("/blogs").await.body) < 6 {}

        api.signal(signal);
        let exit = api.wait_for_exit().await;
        assert_eq!(exit.code, Some(0), "{}", exit.text());
        assert!(exit.took < AT_ONCE, "{:?}", exit.took);
        for watcher in watchers {
            let answer = watcher.await.unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.body["status"], "queued");
        }
        for asker in askers {
            let answer = asker.await.unwrap();
            assert_eq!(answer.status, 202, "{answer:?}");
            assert_eq!(answer.headers["preference-applied"], "wait=60");
            assert_eq!(answer.body["job"]["status"], "queued");
        }
        exit.assert_no_warnings();
    }
}

/// A request whose head the API has read, and whose body never comes.
async fn unfinished_upload(url: &str) -> TcpStream {
    let address = url.strip_prefix("http://").unwrap();
    let mut upload = TcpStream::connect(address).await.unwrap();
    let head = "POST /api/v1/users/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 100\r\nexpect: 100-continue\r\n\r\n";
    upload.write_all(head.as_bytes()).await.unwrap();
    // The API wants the body.
    let mut go_on = [0; 12];
    upload.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100");
    upload
}

#[tokio::test]
async fn an_unfinished_request_does_not_delay_the_stop() {
    let service = Service::new().set("SHUTDOWN_GRACE_SECS", "1");
    let api = service.api().await;
    let _upload = unfinished_upload(&api.url).await;
    let exit = api.stop().await;
    assert!(
        exit.took < AT_ONCE + Duration::from_secs(1),
        "{:?}",
        exit.took
    );
    let overdue = exit.text().contains("some requests did not end in time");
    assert!(overdue, "{}", exit.text());
}

async fn stopped_at_once(process: Process) {
    let exit = process.wait_for_exit().await;
    assert_eq!(exit.code, Some(0), "{}", exit.text());
    assert!(exit.took < AT_ONCE, "{:?}", exit.took);
    exit.assert_no_warnings();
}

/// As one does that is frozen in the middle of a write on SQLite.
#[tokio::test]
async fn a_stopping_process_does_not_wait_for_the_write_lock() {
    let writer = ScriptedAgent::scripted(|_, _| Some(vec![Act::Hold])).await;
    let service = Service::of(&writer).set("SHUTDOWN_GRACE_SECS", "1");
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    ann.create_post("Growing tomatoes").await;
    writer.wait_for_request(OUTLINE).await;
    // On Postgres nobody else looks for it.
    let lock = File::options()
        .create(true)
        .append(true)
        .open(service.data().join("blog.write-lock"))
        .unwrap();
    lock.lock().unwrap();
    // Renewals of the lease wait by now, and soon the end of the attempt will.
    let (worker, api) = tokio::join!(worker.stop(), api.stop());
    assert!(!worker.text().contains("panicked"), "{}", worker.text());
    assert!(!api.text().contains("panicked"), "{}", api.text());
}

/// Holds up whoever starts, as a migration that takes long does.
struct MigrationLock {
    _file: Option<File>,
    connection: Option<PgConnection>,
}

impl MigrationLock {
    async fn of(service: &Service) -> MigrationLock {
        if service.is_on_sqlite() {
            std::fs::create_dir_all(service.data()).unwrap();
            let file = File::create(service.data().join("blog.migration-lock")).unwrap();
            file.lock().unwrap();
            return MigrationLock {
                _file: Some(file),
                connection: None,
            };
        }
        let url = service.setting("DATABASE_URL");
        let mut connection = PgConnection::connect(url).await.unwrap();
        sqlx::query("SELECT pg_advisory_lock(1651273575)")
            .execute(&mut connection)
            .await
            .unwrap();
        MigrationLock {
            _file: None,
            connection: Some(connection),
        }
    }

    /// Waits until a process waits for it, and so listens to signals; it is the nth that does.
    async fn holds_up(&mut self, process: &Process, nth: i64) {
        let waits = async {
            loop {
                let waits = match &mut self.connection {
                    // The server goes on waiting for those that have ended.
                    Some(connection) => count_waiting(connection).await >= nth,
                    None => has_open(process, "blog.migration-lock"),
                };
                if waits {
                    return;
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(TIMEOUT, waits).await.expect("it does not wait");
    }
}

async fn count_waiting(connection: &mut PgConnection) -> i64 {
    let waiting = "SELECT count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let waiting = sqlx::query_scalar(waiting).fetch_one(connection).await;
    waiting.unwrap()
}

fn has_open(process: &Process, name: &str) -> bool {
    let files = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
    let mut paths = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    paths.any(|path| path.ends_with(name))
}

#[tokio::test]
async fn a_process_that_waits_to_start_ends_when_it_is_asked_to() {
    let service = Service::new();
    let mut lock = MigrationLock::of(&service).await;
    let mut nth = 0;
    for name in ["api", "worker"] {
        for signal in [Signal::TERM, Signal::INT] {
            let process = service.start(name);
            nth += 1;
            lock.holds_up(&process, nth).await;
            process.signal(signal);
            let exit = process.wait_for_exit().await;
            assert_eq!(exit.code, Some(0), "{name} {signal:?}: {}", exit.text());
            assert!(exit.text().contains("stopped before it was ready"));
            assert!(exit.took < AT_ONCE, "{name}: {:?}", exit.took);
        }
    }
}

#[tokio::test]
async fn a_second_signal_ends_a_process_at_once() {
    let (writer, _gate) = ScriptedAgent::gated(OUTLINE).await;
    let service = Service::of(&writer);
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    writer.wait_for_request(OUTLINE).await;
    // It holds up the API.
    let _upload = unfinished_upload(&api.url).await;
    for (process, signal) in [(&*api, Signal::TERM), (&worker, Signal::INT)] {
        process.signal(signal);
        process.wait_for_message(STOPPING).await;
        process.signal(signal);
    }
    assert_eq!(api.wait_for_exit().await.code, Some(143));
    assert_eq!(worker.wait_for_exit().await.code, Some(130));
    // As of any worker that died, its job is taken up by another.
    let (api, heir) = (service.api().await, service.worker().await);
    let job = ann.at(&api.url).wait_for_status(&post, "succeeded").await;
    assert_eq!(outcomes(&job), ["lost", "succeeded"]);
    heir.stop().await;
}
