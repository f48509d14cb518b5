//! Clocks that are wrong, and clocks that are set while somebody works.

use entity::session;
use sea_orm::{EntityTrait, PaginatorTrait};
use serde_json::json;
use testing::stub::Act;
use testing::{PASSWORD, TestClient, outcomes, time};
use tokio::time::sleep;

use crate::support::{Api, Cluster, LEASE, OUTLINE, ScriptedAgent, Service, SkewedClock, Stop};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A job that hangs, until its worker is killed.
async fn hanging() -> ScriptedAgent {
    let hold = |asked: &str, before| (asked == OUTLINE && before == 0).then(|| vec![Act::Hold]);
    ScriptedAgent::scripted(hold).await
}

/// All processes of a machine have `clock`, and on Postgres the server has it.
async fn keeps_jobs_when_set(service: Service, writer: &ScriptedAgent, clock: &SkewedClock) {
    let (api, first) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    writer.wait_for_request(OUTLINE).await;
    let heir = service.worker().await;
    // Every heir has looked at the clock twice by then.
    sleep(LEASE).await;
    // Within the life of a token, but many leases; and back.
    for step in [5 * MINUTE, 10 * MINUTE, 0] {
        clock.set(step);
        sleep(LEASE).await;
        assert_eq!(
            outcomes(&ann.get_job(&post).await),
            ["none"],
            "after {step} s"
        );
    }
    // One that is really lost is found all the same.
    first.kill().await;
    let job = ann.wait_for_status(&post, "succeeded").await;
    assert_eq!(outcomes(&job), ["lost", "succeeded"], "{job:#}");
    let log = heir.stop().await.text();
    assert!(log.contains("the clock was set"), "{log}");
    api.stop().await;
}

#[tokio::test]
async fn a_worker_whose_clock_is_set_rescues_no_live_job() {
    let writer = hanging().await;
    let mut service = Service::of(&writer);
    if !service.is_on_sqlite() {
        return;
    }
    let clock = SkewedClock::new(service.path(), "machine", 0);
    service.settings.extend(clock.environment());
    keeps_jobs_when_set(service, &writer, &clock).await;
}

#[tokio::test]
async fn a_worker_rescues_no_live_job_when_the_servers_clock_is_set() {
    let Some(mut cluster) = Cluster::start_new().await else {
        return;
    };
    cluster.stop(Stop::Fast).await;
    let clock = SkewedClock::new(cluster.folder(), "server", 0);
    cluster.settings.extend(clock.environment());
    cluster.start().await;
    let writer = hanging().await;
    let service = Service::of(&writer).set("DATABASE_URL", cluster.url());
    keeps_jobs_when_set(service, &writer, &clock).await;
}

/// A job whose lease ends in hours, for the clock was set back, is not waited for
/// so long.
#[tokio::test]
async fn the_job_of_a_lost_worker_is_rescued_though_the_clock_was_set_back() {
    let writer = hanging().await;
    let mut service = Service::of(&writer);
    if !service.is_on_sqlite() {
        return;
    }
    let clock = SkewedClock::new(service.path(), "machine", 12 * HOUR);
    service.settings.extend(clock.environment());
    let (api, first) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    writer.wait_for_request(OUTLINE).await;
    first.kill().await;
    clock.set(0);
    let heir = service.worker().await;
    // Her token is not good yet.
    let account = json!({ "username": "ann", "password": PASSWORD });
    let pair = TestClient::anonymous(&api.url)
        .post("/users/login", account)
        .await;
    let ann = ann.with_session(&pair.body);
    let job = ann.wait_for_status(&post, "succeeded").await;
    assert_eq!(outcomes(&job), ["lost", "succeeded"], "{job:#}");
    heir.stop().await;
    api.stop().await;
}

/// The database's clock is everyone's, so nobody notices.
#[tokio::test]
async fn apis_whose_clocks_differ_agree_on_the_latest_job_and_on_expiry() {
    let writer = ScriptedAgent::new().await;
    let service = Service::of(&writer);
    if service.is_on_sqlite() {
        return;
    }
    let ordinary = service.api().await;
    let ann = ordinary.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    let worker = service.worker().await;
    ann.wait_for_status(&post, "succeeded").await;
    for (name, skew) in [("bob", -30), ("cid", 30), ("dan", 40 * DAY)] {
        let clock = SkewedClock::new(service.path(), name, skew);
        let mut settings = service.settings.clone();
        settings.extend(clock.environment());
        let other = service.start_with("api", &settings);
        let other = Api::ready(other).await;
        let there = ann.at(&other.url);
        assert_eq!(there.get("/users/me").await.status, 200, "{skew}");
        let new = TestClient::anonymous(&other.url).sign_up(name).await;
        assert_eq!(new.at(&ordinary.url).get("/users/me").await.status, 200);
        // By turns, and each sees what was asked for last.
        for asked_at in [&there, &ann] {
            let again = asked_at.regenerate(&post).await.expect(202);
            for seen_by in [&there, &ann] {
                let seen = seen_by.get_post(&post).await;
                assert_eq!(seen["job"]["id"], again["job"]["id"], "{skew}");
            }
            let made = ann.get_job(&again).await;
            let age = chrono::Utc::now() - time(&made["created_at"]);
            assert!(age.num_seconds().abs() < 10, "{skew}: {age}");
            ann.wait_for_status(&again, "succeeded").await;
        }
        other.stop().await.assert_no_warnings();
    }
    // One that thought itself a month ahead has removed nothing.
    assert_eq!(ann.get("/users/me").await.status, 200);
    assert_eq!(ann.get_job(&post).await["status"], "succeeded");
    worker.stop().await.assert_no_warnings();
    ordinary.stop().await.assert_no_warnings();
    service.assert_at_rest().await;
}

#[tokio::test]
async fn a_machine_whose_clock_is_a_month_ahead_deletes_nothing_for_a_day() {
    let writer = ScriptedAgent::new().await;
    let mut service = Service::of(&writer);
    if !service.is_on_sqlite() {
        return;
    }
    let clock = SkewedClock::new(service.path(), "machine", 0);
    service.settings.extend(clock.environment());
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    ann.wait_for_status(&post, "succeeded").await;
    api.stop().await;
    worker.stop().await;

    clock.set(40 * DAY);
    let (api, worker) = (service.api().await, service.worker().await);
    for process in [&*api, &worker] {
        process
            .line("the clock has gone on by more than a day")
            .await;
    }
    let db = service.database().await;
    assert_eq!(session::Entity::find().count(db.read()).await.unwrap(), 1);
    let jobs = entity::job::Entity::find().count(db.read()).await;
    assert_eq!(jobs.unwrap(), 1);
    // Set right, it is believed again.
    clock.set(0);
    db.close().await;
    assert_eq!(ann.at(&api.url).get("/users/me").await.status, 200);
    api.stop().await;
    worker.stop().await;
}
