//! Whose turn it is when many wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use entity::{attempt, job, post};
use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel, QueryOrder, Set};
use serde_json::Value;
use testing::stub_openai::StubBehavior;
use testing::{TestClient, outcomes, requested_part, text};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::support::TestApp;

/// Every attempt ends with its first call.
const BRIEFLY: StubBehavior = StubBehavior::Fail(401, "invalid_api_key");

/// One job at a time.
const ALONE: &str = "--worker-concurrency=1";

/// Asks for so many posts, one after the other.
async fn ask(user: &TestClient, count: usize) -> Vec<Value> {
    let mut asked = Vec::new();
    for n in 0..count {
        asked.push(user.create_post(&format!("Chapter {n}")).await);
    }
    asked
}

async fn run_one_by_one(app: &TestApp) {
    let worker = app.worker_with(&[ALONE]).await;
    app.wait_until_jobs_finished().await;
    worker.stop().await;
}

/// The jobs in the order in which they were taken, each as often as it was.
async fn taken(app: &TestApp) -> Vec<String> {
    let attempts = attempt::Entity::find().order_by_asc(attempt::Column::Id);
    let attempts = attempts.all(app.db.read()).await.unwrap();
    let jobs = attempts.iter().map(|attempt| attempt.job_id.to_string());
    jobs.collect()
}

fn job_id(post: &Value) -> String {
    text(&post["job"]["id"])
}

fn job_ids<'a>(posts: impl IntoIterator<Item = &'a Value>) -> Vec<String> {
    posts.into_iter().map(job_id).collect()
}

#[tokio::test]
async fn a_user_with_many_jobs_does_not_delay_one_with_few() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let of_ann = ask(&ann, 60).await;
    let of_bob = ask(&bob, 3).await;
    app.agent.set(BRIEFLY);
    run_one_by_one(&app).await;

    let by_turns = of_ann.iter().zip(&of_bob).flat_map(|(a, b)| [a, b]);
    let expected = job_ids(by_turns.chain(&of_ann[3..]));
    assert_eq!(taken(&app).await, expected);
}

#[tokio::test]
async fn a_user_who_enqueues_a_job_at_each_claim_overtakes_nobody() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let of_bob = ask(&bob, 3).await;
    let mut of_ann = ask(&ann, 1).await;
    let gate = Arc::new(Notify::new());
    let outlines = gate.clone();
    app.agent.set(StubBehavior::per_request(
        move |call| match requested_part(call) {
            0 => StubBehavior::Gate(outlines.clone()),
            _ => StubBehavior::Write,
        },
    ));
    let worker = app.worker_with(&[ALONE]).await;
    for number in 0..6 {
        // The others have five parts each.
        app.agent.called(number * 5 + 1).await;
        // One of hers is being written.
        if number == 1 || number == 3 {
            of_ann.extend(ask(&ann, 1).await);
        }
        gate.notify_one();
    }
    app.wait_until_jobs_finished().await;
    worker.stop().await;
    let by_turns = of_bob.iter().zip(&of_ann).flat_map(|(b, a)| [b, a]);
    assert_eq!(taken(&app).await, job_ids(by_turns));
}

#[tokio::test]
async fn a_released_job_keeps_its_queue_position() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let (of_ann, of_bob) = (ask(&ann, 2).await, ask(&bob, 2).await);
    app.agent.set(StubBehavior::Hang);
    let worker = app.worker_with(&[ALONE, "--shutdown-grace-secs=0"]).await;
    app.agent.called(1).await;
    worker.stop().await;
    app.agent.set(BRIEFLY);
    run_one_by_one(&app).await;

    let [a, b] = [&of_ann, &of_bob];
    let expected = [&a[0], &a[0], &b[0], &a[1], &b[1]];
    assert_eq!(taken(&app).await, job_ids(expected));
    let job = ann.get_job(&of_ann[0]).await;
    assert_eq!(outcomes(&job), ["released", "failed"]);
}

#[tokio::test]
async fn a_rescued_job_keeps_its_queue_position() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let (of_ann, of_bob) = (ask(&ann, 2).await, ask(&bob, 2).await);
    let short = [ALONE, "--job-lease-secs=3"];
    app.agent.set(StubBehavior::Hang);
    let lost = app.worker_with(&short).await;
    app.agent.called(1).await;
    lost.abort();
    let gate = Arc::new(Notify::new());
    app.agent.set(StubBehavior::Gate(gate.clone()));
    let worker = app.worker_with(&short).await;
    app.agent.called(2).await;
    app.wait_for_job(&ann, &of_ann[0], |job| job["status"] == "queued")
        .await;
    app.agent.set(BRIEFLY);
    gate.notify_one();
    app.wait_until_jobs_finished().await;
    worker.stop().await;

    let [a, b] = [&of_ann, &of_bob];
    let expected = [&a[0], &b[0], &a[0], &a[1], &b[1]];
    assert_eq!(taken(&app).await, job_ids(expected));
    assert_eq!(outcomes(&ann.get_job(&of_ann[0]).await), ["lost", "failed"]);
}

#[tokio::test]
async fn a_job_retried_after_an_error_queues_behind_its_owners_others() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let (of_ann, of_bob) = (ask(&ann, 3).await, ask(&bob, 3).await);
    let failed = AtomicBool::new(false);
    app.agent.set(StubBehavior::per_request(move |_| {
        match failed.swap(true, Ordering::Relaxed) {
            false => StubBehavior::Fail(503, "server_error"),
            true => BRIEFLY,
        }
    }));
    run_one_by_one(&app).await;

    let by_turns = of_ann.iter().zip(&of_bob).flat_map(|(a, b)| [a, b]);
    let expected = job_ids(by_turns.chain(&of_ann[..1]));
    assert_eq!(taken(&app).await, expected);
}

#[tokio::test]
async fn queue_positions_are_the_order_of_claims() {
    let app = TestApp::new().await;
    let (ann, bob, cyd) = tokio::join!(app.user("ann"), app.user("bob"), app.user("cyd"));
    let mut asked = Vec::new();
    for (user, count) in [(&ann, 4), (&bob, 1), (&cyd, 3), (&bob, 2), (&ann, 2)] {
        asked.extend(ask(user, count).await.into_iter().map(|post| (user, post)));
    }
    // One who leaves makes all behind them move up.
    let (user, left) = asked.remove(5);
    user.cancel(&left).await;
    let mut line = Vec::new();
    for (user, post) in &asked {
        let job = user.get_job(post).await;
        let listed = user.get("/jobs?limit=100").await.expect(200);
        let mut listed = listed["items"].as_array().unwrap().iter();
        let listed = listed.find(|listed| listed["id"] == job["id"]).unwrap();
        assert_eq!(listed["queue_position"], job["queue_position"]);
        line.push((job["queue_position"].as_u64().unwrap(), job_id(post)));
    }
    line.sort();
    let (positions, line): (Vec<u64>, Vec<String>) = line.into_iter().unzip();
    assert!(positions.into_iter().eq(1..=11));
    app.agent.set(BRIEFLY);
    run_one_by_one(&app).await;
    assert_eq!(taken(&app).await, line);
}

/// Puts so many jobs in front of all others, each like that of `asked`.
async fn in_front(app: &TestApp, asked: &Value, count: usize) {
    let db = app.db.raw_connection();
    let job = job::Entity::find_by_id(job_id(asked).parse::<Uuid>().unwrap());
    let job = job.one(db).await.unwrap().unwrap();
    let post = post::Entity::find_by_id(job.post_id).one(db).await;
    let post = post.unwrap().unwrap().into_active_model().reset_all();
    let ids: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
    let job = job.into_active_model().reset_all();
    // Databases limit the parameters of a statement.
    for ids in ids.chunks(500) {
        let posts = ids.iter().map(|id| post::ActiveModel {
            id: Set(*id),
            ..post.clone()
        });
        post::Entity::insert_many(posts).exec(db).await.unwrap();
        let jobs = ids.iter().map(|id| job::ActiveModel {
            id: Set(*id),
            post_id: Set(*id),
            turn: Set(-1),
            ..job.clone()
        });
        job::Entity::insert_many(jobs).exec(db).await.unwrap();
    }
}

#[tokio::test]
async fn a_job_behind_a_thousand_others_has_no_queue_position() {
    let mut app = TestApp::new().await;
    app.allow_unfinished_jobs();
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let of_ann = ann.create_post("The first of both").await;
    let of_bob = bob.create_post("The last of both").await;
    in_front(&app, &of_ann, 998).await;
    let position =
        async |user: &TestClient, post| user.get_job(post).await["queue_position"].clone();
    assert_eq!(position(&ann, &of_ann).await, 999);
    assert_eq!(position(&bob, &of_bob).await, 1000);
    in_front(&app, &of_ann, 1).await;
    assert_eq!(position(&ann, &of_ann).await, 1000);
    assert_eq!(position(&bob, &of_bob).await, Value::Null);
}
