//! Processes that die at any moment.

use std::sync::Mutex;
use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend};
use shared::database::Database;
use testing::stub::Act;
use testing::{HEADINGS, outcomes};

use super::load::Load;
use super::worker_pool::{WorkerPool, is_faultless};
use super::{again_and_again, invariants, service};
use crate::support::{OUTLINE, ScriptedAgent};

#[tokio::test]
async fn workers_killed_at_random_lose_nothing() {
    let writer = ScriptedAgent::new().await;
    let service = service(&writer);
    let api = service.api().await;
    let mut fleet = WorkerPool::of(3, &service).await;
    let crowd = Load::at(&api).await;
    again_and_again(Duration::from_millis(500), async || fleet.lose_one().await).await;
    let asked = crowd.content().await;
    // That is none of the clients' business.
    assert_eq!(asked.refused, 0);
    fleet.stop().await;
    api.stop().await.assert_no_warnings();
    invariants::balance(&service, &writer, &asked).await;
}

#[tokio::test]
async fn a_worker_may_be_killed_in_any_phase_of_an_attempt() {
    let second = HEADINGS[1];
    let writer = held_once(vec![
        ("held at the outline", OUTLINE),
        ("held at a section", second),
    ])
    .await;
    // What waits to be stored renews no lease.
    let service = service(&writer).set("JOB_LEASE_SECS", "6");
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let db = service.database().await;
    lock_posts(&db).await;
    let finishing = ann.create_post("Tea, ready to be stored").await;
    worker.line("the database failed; trying again").await;
    let at_outline = ann.create_post("Tea, held at the outline").await;
    let at_section = ann.create_post("Tea, held at a section").await;
    writer.wait_for_requests(OUTLINE, 3).await;
    writer.wait_for_requests(second, 2).await;
    assert_eq!(ann.get_job(&finishing).await["phase"], "assembling");
    assert_eq!(ann.get_job(&at_outline).await["phase"], "outline");
    assert_eq!(ann.get_job(&at_section).await["phase"], "writing");

    worker.kill().await;
    unlock_posts(&db).await;
    db.close().await;
    let heir = service.worker().await;
    for post in [&finishing, &at_outline, &at_section] {
        let job = ann.wait_for_status(post, "succeeded").await;
        assert_eq!(outcomes(&job), ["lost", "succeeded"]);
        assert_eq!(ann.get_post(post).await["version"], 2);
    }
    // Only what was under way was asked for again.
    let asked = writer.asked();
    let often = |what: &str| asked.iter().filter(|asked| *asked == what).count();
    assert_eq!((often(OUTLINE), often(second)), (3 + 1, 3 + 1));
    assert_eq!(asked.len(), 3 * (1 + HEADINGS.len()) + 2);
    heir.stop().await;
    service.assert_at_rest().await;
}

/// Whoever wants to store a post fails, and tries again.
async fn lock_posts(db: &Database) {
    let lock = match db.backend() {
        DbBackend::Postgres => {
            "ALTER TABLE blog_posts ADD CONSTRAINT locked CHECK (content IS NULL) NOT VALID"
        }
        _ => {
            "CREATE TRIGGER locked BEFORE UPDATE OF content ON blog_posts \
             BEGIN SELECT RAISE(ABORT, 'locked'); END"
        }
    };
    db.raw_connection().execute_unprepared(lock).await.unwrap();
}

async fn unlock_posts(db: &Database) {
    let unlock = match db.backend() {
        DbBackend::Postgres => "ALTER TABLE blog_posts DROP CONSTRAINT locked",
        _ => "DROP TRIGGER locked",
    };
    db.raw_connection()
        .execute_unprepared(unlock)
        .await
        .unwrap();
}

/// Says nothing the first time that it is asked for this in a prompt that
/// holds that.
async fn held_once(when: Vec<(&'static str, &'static str)>) -> ScriptedAgent {
    let when = Mutex::new(when);
    ScriptedAgent::told(move |prompt, asked| {
        let mut when = when.lock().unwrap();
        let is_this = |&(part, what): &(&str, &str)| prompt.contains(part) && asked == what;
        let held = when.iter().position(is_this)?;
        when.swap_remove(held);
        Some(vec![Act::Hold])
    })
    .await
}

#[tokio::test]
async fn an_api_killed_at_random_executes_nothing_twice() {
    let writer = ScriptedAgent::new().await;
    let service = service(&writer);
    let fleet = WorkerPool::of(2, &service).await;
    let mut api = Some(service.api().await);
    let crowd = Load::at(api.as_ref().unwrap()).await;
    again_and_again(Duration::from_millis(1000), async || {
        is_faultless(&api.take().unwrap().kill().await);
        crowd.turn_to(api.insert(service.api().await));
    })
    .await;
    let asked = crowd.content().await;
    assert_eq!(asked.refused, 0);
    fleet.stop().await;
    api.unwrap().stop().await.assert_no_warnings();
    invariants::balance(&service, &writer, &asked).await;
}
