//! Requests that are sent again with the same `Idempotency-Key`.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use entity::clock::now;
use entity::{idempotency, job, post};
use futures_util::future::join_all;
use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder};
use sea_orm::{DbBackend, EntityTrait};
use serde_json::{Value, json};
use shared::change_watcher::ChangeWatcher;
use testing::stub_openai::StubBehavior;
use testing::{
    PASSWORD, TIMEOUT, TestClient, TestResponse, assert_fields, at_first, job_path, post_path,
};
use tokio::sync::Notify;

use crate::support::TestApp;

const BLOGS: &str = "/blogs";

fn regenerate_path(post: &Value) -> String {
    format!("{}/regenerate", post_path(post))
}

fn retry_path(post: &Value) -> String {
    format!("{}/retry", job_path(post))
}

fn about(topic: &str) -> Value {
    json!({ "topic": topic })
}

fn keyed(owner: &TestClient, key: &str, path: &str) -> RequestBuilder {
    let request = owner.request(Method::POST, path);
    request.header("idempotency-key", key)
}

/// Sends a request under a key.
async fn send(owner: &TestClient, key: &str, path: &str, body: Value) -> TestResponse {
    owner.send(keyed(owner, key, path).json(&body)).await
}

/// Asks for a post under a key, and waits for it.
async fn ask_and_wait(owner: &TestClient, key: &str, wait: u32) -> TestResponse {
    let request = keyed(owner, key, BLOGS).header("prefer", format!("wait={wait}"));
    owner.send(request.json(&about("Waiting"))).await
}

fn is_replay(answer: &TestResponse) -> bool {
    answer.headers.contains_key("idempotency-replayed")
}

#[track_caller]
fn assert_replays(replay: &TestResponse, first: &TestResponse) {
    assert!(!is_replay(first), "{first:?}");
    assert_eq!(replay.header("idempotency-replayed"), "true", "{replay:?}");
    assert_eq!(replay.status, first.status);
    assert_eq!(replay.text, first.text);
    let but_its_own = |answer: &TestResponse| {
        let mut headers = answer.headers.clone();
        for own in ["idempotency-replayed", "x-request-id", "date"] {
            headers.remove(own);
        }
        headers
    };
    assert_eq!(but_its_own(replay), but_its_own(first));
}

#[track_caller]
fn assert_fresh(answer: &TestResponse, status: u16) {
    answer.assert_status(status);
    assert!(!is_replay(answer), "{answer}");
}

#[track_caller]
fn assert_refused(answer: &TestResponse, status: u16, code: &str) {
    answer.assert_error(status, code);
    assert!(!is_replay(answer));
}

/// How many posts, jobs and keys there are.
async fn count(app: &TestApp) -> [u64; 3] {
    [
        app.count(post::Entity).await,
        app.count(job::Entity).await,
        app.count(idempotency::Entity).await,
    ]
}

/// Makes all keys as old as that.
async fn age(app: &TestApp, age: TimeDelta) {
    let created = idempotency::Column::CreatedAt;
    app.set_all(created, now() - age).await;
}

#[tokio::test]
async fn a_repeated_create_request_creates_one_post() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let first = send(&ann, "k1", BLOGS, about("Echoes")).await;
    first.assert_status(202);
    assert_ne!(
        (first.header("location"), first.header("retry-after")),
        ("", "")
    );
    assert_replays(&send(&ann, "k1", BLOGS, about("Echoes")).await, &first);
    app.run_jobs().await;
    // It is the first answer, whatever has happened since.
    assert_replays(&send(&ann, "k1", BLOGS, about("Echoes")).await, &first);
    assert_eq!(count(&app).await, [1, 1, 1]);
    assert_eq!(ann.get_post(&first.body).await["status"], "ready");
}

#[tokio::test]
async fn a_repeated_regenerate_request_regenerates_once() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let path = regenerate_path(&ann.create_post("Encores").await);
    app.run_jobs().await;
    let first = ann.send(keyed(&ann, "k1", &path)).await;
    first.assert_status(202);
    assert_replays(&ann.send(keyed(&ann, "k1", &path)).await, &first);
    app.run_jobs().await;
    assert_replays(&ann.send(keyed(&ann, "k1", &path)).await, &first);
    assert_eq!(count(&app).await, [1, 2, 1]);
}

#[tokio::test]
async fn a_repeated_retry_request_retries_once() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Second chances").await;
    ann.cancel(&asked).await;
    let path = retry_path(&asked);
    let first = ann.send(keyed(&ann, "k1", &path)).await;
    first.assert_fields(202, json!({ "status": "queued" }));
    assert_replays(&ann.send(keyed(&ann, "k1", &path)).await, &first);
    app.run_jobs().await;
    assert_replays(&ann.send(keyed(&ann, "k1", &path)).await, &first);
    let job = ann.get_job(&asked).await;
    assert_fields(&job, json!({ "status": "succeeded", "attempt": 1 }));
}

#[tokio::test]
async fn without_a_key_every_request_counts() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    for _ in 0..2 {
        let answer = ann.post(BLOGS, about("Echoes")).await;
        assert_fresh(&answer, 202);
    }
    assert_eq!(count(&app).await, [2, 2, 0]);
    app.run_jobs().await;
}

#[tokio::test]
async fn neither_json_layout_nor_prefer_makes_it_another_request() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let body = r#"{"topic":"Layouts","options":{"words":200,"tone":"friendly"}}"#;
    let request = |body: &'static str| {
        let request = keyed(&ann, "k1", BLOGS).header("content-type", "application/json");
        request.body(body)
    };
    let first = ann.send(request(body)).await;
    let other = r#" { "options": { "tone": "friendly",
        "words": 200 }, "topic": "Layouts" } "#;
    assert_replays(&ann.send(request(other)).await, &first);
    let patient = request(body).header("prefer", "wait=30");
    assert_replays(&ann.send(patient).await, &first);
    app.run_jobs().await;
}

#[tokio::test]
async fn a_key_is_good_for_one_request_only() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let first = send(&ann, "k1", BLOGS, about("Singles")).await;
    ann.cancel(&first.body).await;
    let before = count(&app).await;

    let other_topic = about("Doubles");
    let other_options = json!({ "topic": "Singles", "options": { "words": 100 } });
    let others = [
        (BLOGS.to_owned(), other_topic),
        (BLOGS.to_owned(), other_options),
        (regenerate_path(&first.body), json!({})),
        (retry_path(&first.body), json!({})),
    ];
    for (path, body) in others {
        let answer = send(&ann, "k1", &path, body).await;
        assert_refused(&answer, 422, "idempotency_key_reused");
    }
    assert_eq!(count(&app).await, before);
    // A key's case matters, and the first request may still be sent again.
    let other_key = send(&ann, "K1", BLOGS, about("Singles")).await;
    assert!(!is_replay(&other_key));
    assert_replays(&send(&ann, "k1", BLOGS, about("Singles")).await, &first);
    app.run_jobs().await;
}

#[tokio::test]
async fn the_same_key_of_another_user_is_another_key() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let anns = send(&ann, "k1", BLOGS, about("Namesakes")).await;
    let bobs = send(&bob, "k1", BLOGS, about("Namesakes")).await;
    assert_eq!((anns.status, bobs.status), (202, 202));
    assert_ne!(anns.body["id"], bobs.body["id"]);
    assert_replays(&send(&bob, "k1", BLOGS, about("Namesakes")).await, &bobs);
    // It goes with the user, not with the session.
    let ann = app.login("ann").await;
    assert_replays(&send(&ann, "k1", BLOGS, about("Namesakes")).await, &anns);
    app.run_jobs().await;
}

#[tokio::test]
async fn a_refused_request_does_not_use_up_its_key() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let bad = send(&ann, "k1", BLOGS, about("x")).await;
    assert_refused(&bad, 422, "validation_failed");
    let unknown = json!({ "topic": "Models", "options": { "model": "none-such" } });
    let bad = send(&ann, "k1", BLOGS, unknown).await;
    assert_refused(&bad, 422, "validation_failed");
    let good = send(&ann, "k1", BLOGS, about("Models")).await;
    assert_fresh(&good, 202);

    let (again, retry) = (regenerate_path(&good.body), retry_path(&good.body));
    for (key, path) in [("k2", &again), ("k3", &retry)] {
        let early = ann.send(keyed(&ann, key, path)).await;
        assert_refused(&early, 409, "generation_in_progress");
    }
    assert_eq!(count(&app).await, [1, 1, 1]);
    ann.cancel(&good.body).await;
    let retried = ann.send(keyed(&ann, "k3", &retry)).await;
    assert_fresh(&retried, 202);
    app.run_jobs().await;
    let regenerated = ann.send(keyed(&ann, "k2", &again)).await;
    assert_fresh(&regenerated, 202);
    app.run_jobs().await;
}

#[tokio::test]
async fn of_many_concurrent_requests_with_one_key_one_is_executed() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let many = (0..64).map(|_| send(&ann, "k1", BLOGS, about("Stampedes")));
    let posts = join_all(many).await;
    assert_eq!(count(&app).await, [1, 1, 1]);
    app.run_jobs().await;
    let path = regenerate_path(&posts[0].body);
    let many = (0..64).map(|_| send(&ann, "k2", &path, json!({})));
    let regenerations = join_all(many).await;
    assert_eq!(count(&app).await, [1, 2, 2]);

    for answers in [posts, regenerations] {
        let first = answers.iter().find(|a| a.status == 202 && !is_replay(a));
        let first = first.expect("nobody was the first");
        let others = answers
            .iter()
            .filter(|answer| !std::ptr::eq(*answer, first));
        for other in others {
            match other.status {
                202 => assert_replays(other, first),
                _ => assert_refused(other, 409, "idempotency_in_progress"),
            }
        }
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn a_key_is_kept_for_a_day() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let first = send(&ann, "k1", BLOGS, about("Yesterdays")).await;
    age(&app, TimeDelta::hours(24) - TimeDelta::minutes(1)).await;
    api::cleanup::run_once(&app.db, Duration::ZERO).await;
    assert_replays(&send(&ann, "k1", BLOGS, about("Yesterdays")).await, &first);
    age(&app, TimeDelta::hours(24)).await;
    // The row may be there still, but it counts no longer.
    let second = send(&ann, "k1", BLOGS, about("Tomorrows")).await;
    assert_fresh(&second, 202);
    assert_replays(&send(&ann, "k1", BLOGS, about("Tomorrows")).await, &second);
    assert_eq!(count(&app).await, [2, 2, 1]);
    age(&app, TimeDelta::hours(24)).await;
    api::cleanup::run_once(&app.db, Duration::ZERO).await;
    assert_eq!(count(&app).await, [2, 2, 0]);
    app.run_jobs().await;
}

#[tokio::test]
async fn while_the_first_request_waits_the_others_are_answered_409() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let gate = Arc::new(Notify::new());
    app.agent
        .set(at_first(1, 2, StubBehavior::Gate(gate.clone())));
    let worker = app.worker().await;
    let meanwhile = async {
        app.agent.called(3).await;
        let same = send(&ann, "k1", BLOGS, about("Waiting")).await;
        assert_refused(&same, 409, "idempotency_in_progress");
        assert_eq!(same.header("retry-after"), "1");
        let other = send(&ann, "k1", BLOGS, about("Leaving")).await;
        assert_refused(&other, 422, "idempotency_key_reused");
        gate.notify_one();
    };
    let (first, ()) = tokio::join!(ask_and_wait(&ann, "k1", 30), meanwhile);
    first.assert_status(201);
    assert_eq!(first.header("preference-applied"), "wait=30");
    assert_eq!(first.body["status"], "ready");
    for wait in [0, 30] {
        assert_replays(&ask_and_wait(&ann, "k1", wait).await, &first);
    }
    assert_eq!(count(&app).await, [1, 1, 1]);
    worker.stop().await;
}

#[tokio::test]
async fn the_response_to_a_wait_in_vain_is_replayed() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let first = ask_and_wait(&ann, "k1", 0).await;
    first.assert_status(202);
    assert_eq!(first.header("preference-applied"), "wait=0");
    assert_replays(&ask_and_wait(&ann, "k1", 30).await, &first);
    app.run_jobs().await;
    assert_replays(&ask_and_wait(&ann, "k1", 30).await, &first);
}

#[tokio::test]
async fn a_client_that_disconnects_while_waiting_gets_the_post_by_a_replay() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let gate = Arc::new(Notify::new());
    app.agent
        .set(at_first(1, 2, StubBehavior::Gate(gate.clone())));
    let worker = app.worker().await;
    tokio::select! {
        _ = ask_and_wait(&ann, "k1", 30) => panic!("it was not to be answered"),
        () = app.agent.called(3) => {}
    }
    gate.notify_one();
    app.wait_until_jobs_finished().await;
    worker.stop().await;

    let mut changes = ChangeWatcher::watch(&app.db);
    let later = async {
        loop {
            let answer = ask_and_wait(&ann, "k1", 30).await;
            if answer.code() != "idempotency_in_progress" {
                return answer;
            }
            changes.changed().await;
        }
    };
    let later = tokio::time::timeout(TIMEOUT, later);
    let answer = later.await.expect("the answer is not kept");
    answer.assert_status(201);
    assert!(is_replay(&answer));
    assert_eq!(count(&app).await, [1, 1, 1]);
}

#[tokio::test]
async fn if_the_api_dies_during_a_wait_its_first_response_is_replayed() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let gate = Arc::new(Notify::new());
    app.agent
        .set(at_first(1, 2, StubBehavior::Gate(gate.clone())));
    let worker = app.worker().await;
    let meanwhile = async {
        app.agent.called(3).await;
        // As it will be when nobody has brought a better answer in time.
        let past = now() - TimeDelta::seconds(1);
        app.set_all(idempotency::Column::PendingUntil, past).await;
        let replay = ask_and_wait(&ann, "k1", 30).await;
        gate.notify_one();
        replay
    };
    let (late, replay) = tokio::join!(ask_and_wait(&ann, "k1", 30), meanwhile);
    replay.assert_status(202);
    assert!(is_replay(&replay));
    assert_eq!(replay.body["job"]["status"], "queued");
    assert_ne!(
        (replay.header("location"), replay.header("retry-after")),
        ("", "")
    );
    // If it has not died after all, what was replayed is replayed for ever.
    late.assert_fields(201, json!({ "id": replay.body["id"] }));
    assert_eq!(ask_and_wait(&ann, "k1", 30).await.text, replay.text);
    assert_eq!(count(&app).await, [1, 1, 1]);
    worker.stop().await;
}

/// All kinds of requests that take a key, of one post.
#[tokio::test]
async fn stored_responses_are_deleted_with_their_post() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let worker = app.worker().await;
    let first = ask_and_wait(&ann, "k1", 30).await;
    first.assert_status(201);
    let path = first.header("location").replace("/api/v1", "");
    let again = format!("{path}/regenerate");
    send(&ann, "k2", &again, json!({})).await.expect(202);
    app.wait_until_jobs_finished().await;
    worker.stop().await;
    let third = ann.post(&again, json!({})).await.expect(202);
    ann.cancel(&third).await;
    let retry = retry_path(&third);
    send(&ann, "k3", &retry, json!({})).await.expect(202);

    ann.delete(&path).await.expect(200);
    let answers = idempotency::Entity::find().all(app.db.read()).await;
    let answers: Vec<_> = answers.unwrap().into_iter().map(|key| key.answer).collect();
    assert_eq!(answers, [None, None, None]);
    for replay in [
        ask_and_wait(&ann, "k1", 30).await,
        send(&ann, "k2", &again, json!({})).await,
        send(&ann, "k3", &retry, json!({})).await,
    ] {
        replay.assert_error(404, "not_found");
        assert!(!is_replay(&replay));
    }
    assert_eq!(count(&app).await, [0, 0, 3]);
}

#[tokio::test]
async fn a_response_after_its_post_was_deleted_is_not_stored() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let meanwhile = async {
        let mut changes = ChangeWatcher::watch(&app.db);
        let post = loop {
            let posts = ann.get("/blogs").await;
            match posts.body["items"][0]["id"].as_str() {
                Some(id) => break id.to_owned(),
                None => changes.changed().await,
            }
        };
        ann.delete(&format!("/blogs/{post}")).await.expect(200);
    };
    let (late, ()) = tokio::join!(ask_and_wait(&ann, "k1", 30), meanwhile);
    late.assert_status(404);
    let kept = idempotency::Entity::find().one(app.db.read()).await;
    assert_eq!(kept.unwrap().unwrap().answer, None);
}

#[tokio::test]
async fn keys_are_deleted_with_their_user() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    for owner in [&ann, &bob] {
        send(owner, "k1", BLOGS, about("Departures")).await;
    }
    ann.delete_account(PASSWORD).await.expect(204);
    assert_eq!(count(&app).await, [1, 1, 1]);
    app.run_jobs().await;
}

/// From now on no post can be committed, though all is well until then.
async fn break_commits(app: &TestApp) {
    let trigger = match app.db.backend() {
        DbBackend::Postgres => {
            "CREATE FUNCTION dangle() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN INSERT INTO dangling VALUES (1); RETURN NEW; END $$; \
             CREATE TRIGGER dangle AFTER INSERT ON blog_posts \
             FOR EACH ROW EXECUTE FUNCTION dangle()"
        }
        _ => {
            "CREATE TRIGGER dangle AFTER INSERT ON blog_posts \
             BEGIN INSERT INTO dangling VALUES (1); END"
        }
    };
    for sql in [
        "CREATE TABLE nowhere (id INTEGER PRIMARY KEY)",
        "CREATE TABLE dangling (id INTEGER REFERENCES nowhere (id) DEFERRABLE INITIALLY DEFERRED)",
        trigger,
    ] {
        app.execute(sql).await;
    }
}

#[tokio::test]
async fn a_failed_commit_stores_nothing() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    break_commits(&app).await;
    let failed = send(&ann, "k1", BLOGS, about("Failures")).await;
    assert!(failed.status >= 400, "{failed:?}");
    assert_eq!(count(&app).await, [0, 0, 0]);
    app.execute("INSERT INTO nowhere VALUES (1)").await;
    let first = send(&ann, "k1", BLOGS, about("Failures")).await;
    assert_fresh(&first, 202);
    app.run_jobs().await;
}

#[tokio::test]
async fn a_key_has_1_to_255_visible_ascii_characters() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let (longest, too_long) = ("x".repeat(255), "x".repeat(256));
    let visible: String = ('!'..='~').collect();
    for good in ["1", &longest, &visible] {
        let first = send(&ann, good, BLOGS, about("Locks")).await;
        first.assert_status(202);
        assert_replays(&send(&ann, good, BLOGS, about("Locks")).await, &first);
    }
    app.run_jobs().await;
    let before = count(&app).await;

    let post = ann.get(BLOGS).await.expect(200)["items"][0].clone();
    let paths = [BLOGS.to_owned(), regenerate_path(&post), retry_path(&post)];
    let bad: [(&[u8], &str); 5] = [
        (b"", "too_short"),
        (too_long.as_bytes(), "too_long"),
        (b"a b", "invalid"),
        (b"a\tb", "invalid"),
        (b"\xc3\xa4", "invalid"),
    ];
    for path in &paths {
        for (key, code) in bad {
            let request = ann.request(Method::POST, path).json(&about("Locks"));
            let key = HeaderValue::from_bytes(key).unwrap();
            let answer = ann.send(request.header("idempotency-key", key)).await;
            assert!(!is_replay(&answer));
            answer.assert_field_errors(&[&format!("Idempotency-Key: {code}")]);
        }
        let twice = keyed(&ann, "k1", path).header("idempotency-key", "k1");
        let answer = ann.send(twice.json(&about("Locks"))).await;
        assert!(!is_replay(&answer));
        answer.assert_field_errors(&["Idempotency-Key: invalid"]);
    }
    assert_eq!(count(&app).await, before);
}
