//! Jobs: what clients see of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use entity::clock::new_id;
use entity::job;
use reqwest::Method;
use serde_json::{Value, json};
use testing::stub_openai::StubBehavior;
use testing::{
    SOON, assert_fields, assert_soon, at_first, job_path, post_path, requested_part, text, time,
};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::support::TestApp;

#[tokio::test]
async fn a_queued_job_shows_every_field() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Waiting rooms").await;
    let answer = ann.get(&job_path(&asked)).await;
    answer.assert_status(200);
    assert_eq!(answer.header("retry-after"), "1");
    let job = answer.body;
    assert_eq!(job, asked["job"]);
    let itself = format!("/api/v1/jobs/{}", text(&job["id"]));
    let expected = json!({
        "id": job["id"],
        "blog_id": asked["id"],
        "section": null,
        "status": "queued",
        "phase": null,
        "progress": { "percent": 0, "words": 0 },
        "attempt": 0,
        "max_attempts": 5,
        "next_attempt_at": null,
        "queue_position": 1,
        "model": "stub-large",
        "warnings": [],
        "superseded": false,
        "usage": { "input_tokens": 0, "output_tokens": 0 },
        "error": null,
        "attempts": [],
        "created_at": job["created_at"],
        "started_at": null,
        "finished_at": null,
        "links": {
            "self": itself,
            "blog": format!("/api/v1/blogs/{}", text(&asked["id"])),
            "cancel": format!("{itself}/cancel"),
            "events": format!("{itself}/events"),
        },
    });
    assert_eq!(job, expected);
    time(&job["created_at"]);
    ann.cancel(&asked).await;
}

#[tokio::test]
async fn a_running_job_shows_its_progress() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Halfway houses").await;
    let gate = Arc::new(Notify::new());
    app.agent
        .set(at_first(1, 3, StubBehavior::Gate(gate.clone())));
    let worker = app.worker().await;
    app.agent.called(4).await;

    let answer = ann.get(&job_path(&asked)).await;
    assert_eq!(answer.header("retry-after"), "1");
    let job = answer.body;
    assert_fields(&job, json!({ "status": "running", "phase": "writing" }));
    let (percent, words) = (&job["progress"]["percent"], &job["progress"]["words"]);
    assert!((40..60).contains(&percent.as_i64().unwrap()), "{job}");
    assert_eq!(words, 52, "two sections have 26 words each");
    assert_fields(&job, json!({ "attempt": 1, "queue_position": null }));
    let attempt = &job["attempts"][0];
    assert!(!text(&attempt["worker"]).is_empty());
    assert_fields(attempt, json!({ "outcome": null, "error": null }));
    assert_eq!(attempt["finished_at"], Value::Null);
    assert!(time(&job["started_at"]) >= time(&job["created_at"]));
    assert_eq!(job["finished_at"], Value::Null);

    gate.notify_one();
    app.wait_until_jobs_finished().await;
    worker.stop().await;
    let answer = ann.get(&job_path(&asked)).await;
    assert_eq!(answer.header("retry-after"), "");
    let job = answer.body;
    assert_fields(&job, json!({ "status": "succeeded", "phase": null }));
    assert_eq!(job["progress"]["percent"], 100);
    let post = ann.get_post(&asked).await;
    assert_eq!(post["job"], job);
    assert!(time(&job["finished_at"]) >= time(&job["started_at"]));
    assert!(!job["attempts"][0]["finished_at"].is_null());
}

#[tokio::test]
async fn a_wait_ends_when_a_worker_takes_the_job() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Bus stops").await;
    app.agent.set(StubBehavior::Hang);
    let path = format!("{}?wait=20", job_path(&asked));
    let since = Instant::now();
    let start = async {
        // The question must come first, and nobody tells when it has.
        tokio::time::sleep(Duration::from_millis(300)).await;
        app.worker().await
    };
    let (answer, worker) = tokio::join!(ann.get(&path), start);
    assert_eq!(answer.body["status"], "running");
    assert_soon(since);
    ann.cancel(&asked).await;
    app.wait_until_jobs_finished().await;
    worker.stop().await;
}

#[tokio::test]
async fn a_wait_ends_with_the_next_phase() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Phases of the moon").await;
    let gate = Arc::new(Notify::new());
    let outline = gate.clone();
    app.agent.set(StubBehavior::per_request(
        move |call| match requested_part(call) {
            0 => StubBehavior::Gate(outline.clone()),
            _ => StubBehavior::Hang,
        },
    ));
    let worker = app.worker().await;
    app.agent.called(1).await;
    assert_eq!(ann.get_job(&asked).await["phase"], "outline");
    let path = format!("{}?wait=20", job_path(&asked));
    let since = Instant::now();
    let open = async {
        // The question must come first, and nobody tells when it has.
        tokio::time::sleep(Duration::from_millis(300)).await;
        gate.notify_one();
    };
    let (answer, ()) = tokio::join!(ann.get(&path), open);
    assert_eq!(answer.body["phase"], "writing");
    assert_soon(since);
    ann.cancel(&asked).await;
    app.wait_until_jobs_finished().await;
    worker.stop().await;
}

#[tokio::test]
async fn a_wait_ends_at_its_deadline() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Godot").await;
    for (wait, least) in [(0, 0), (1, 1)] {
        let since = Instant::now();
        let answer = ann.get(&format!("{}?wait={wait}", job_path(&asked))).await;
        answer.assert_fields(200, json!({ "status": "queued" }));
        let (least, took) = (Duration::from_secs(least), since.elapsed());
        assert!((least..least + SOON).contains(&took), "{took:?}");
    }
    ann.cancel(&asked).await;
    let since = Instant::now();
    let answer = ann.get(&format!("{}?wait=20", job_path(&asked))).await;
    assert_eq!(answer.body["status"], "canceled");
    // It was over already.
    assert_soon(since);
}

#[tokio::test]
async fn a_wait_ends_when_the_post_is_deleted() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Vapour").await;
    let path = format!("{}?wait=20", job_path(&asked));
    let blog = post_path(&asked);
    let since = Instant::now();
    let (answer, _) = tokio::join!(ann.get(&path), ann.delete(&blog));
    answer.assert_status(404);
    assert_soon(since);
}

#[tokio::test]
async fn an_unchanged_job_is_not_sent_again() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Statues").await;
    let first = ann.get(&job_path(&asked)).await;
    let tag = first.header("etag").to_owned();
    assert!(!tag.is_empty());
    let again = || {
        ann.request(Method::GET, &job_path(&asked))
            .header("if-none-match", &tag)
    };

    let unchanged = ann.send(again()).await;
    unchanged.assert_status(304);
    assert_eq!(unchanged.header("etag"), tag);
    // Nor is it over, so it is worth asking again.
    assert_eq!(unchanged.header("retry-after"), "1");
    let status = format!("{}/status", post_path(&asked));
    let status = ann.request(Method::GET, &status);
    let status = status.header("if-none-match", &tag);
    ann.send(status).await.expect(304);

    ann.cancel(&asked).await;
    let changed = ann.send(again()).await;
    changed.assert_fields(200, json!({ "status": "canceled" }));
    assert_ne!(changed.header("etag"), tag);
}

#[tokio::test]
async fn a_queue_position_counts_all_who_wait_before() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let mut asked = Vec::new();
    for (n, user) in [&ann, &bob, &ann].into_iter().enumerate() {
        // Deliveries of the same millisecond are in no order.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let post = user.create_post("Queues").await;
        assert_eq!(post["job"]["queue_position"], n + 1);
        asked.push((user, post));
    }
    let (user, last) = &asked[2];
    for (done, (first_user, first)) in asked[..2].iter().enumerate() {
        first_user.cancel(first).await;
        assert_eq!(user.get_job(last).await["queue_position"], 2 - done);
    }
    user.cancel(last).await;
    assert_eq!(user.get_job(last).await["queue_position"], Value::Null);
}

#[tokio::test]
async fn the_jobs_of_others_cannot_be_read_or_changed() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let asked = ann.create_post("Privacy").await;
    let status = format!("{}/status", post_path(&asked));
    let answers = [
        bob.get(&job_path(&asked)).await,
        bob.get(&format!("{}?wait=20", job_path(&asked))).await,
        bob.get(&status).await,
        bob.cancel(&asked).await,
        bob.retry(&asked).await,
    ];
    for answer in answers {
        answer.assert_error(404, "not_found");
    }
    assert_eq!(bob.get("/jobs").await.expect(200)["items"], json!([]));
    ann.cancel(&asked).await.expect(202);
}

/// As if the API that asked for the first had a clock far ahead.
#[tokio::test]
async fn the_latest_job_is_the_last_enqueued_whatever_clocks_say() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = ann.create_post("Clocks").await;
    ann.cancel(&post).await;
    // They refer to the job.
    app.execute("DELETE FROM job_events").await;
    let (day, millis) = (24 * 3600 * 1000, 80);
    let ahead = Uuid::from_u128(new_id().as_u128() + (day << millis));
    app.set_all(job::Column::Id, ahead).await;

    let mut last = ahead;
    for _ in 0..3 {
        let path = post_path(&post);
        let again = ann.regenerate(&post).await;
        let id: Uuid = text(&again.body["job"]["id"]).parse().unwrap();
        assert!(id > last);
        let shown = ann.get(&format!("{path}/status")).await;
        assert_eq!(text(&shown.body["id"]), id.to_string());
        ann.cancel(&again.body).await;
        last = id;
    }
}

/// Those of many jobs are found in another way than that of one.
#[tokio::test]
async fn a_list_of_jobs_has_the_positions_that_each_job_has() {
    let mut app = TestApp::new().await;
    app.allow_unfinished_jobs();
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    for _ in 0..8 {
        ann.create_post("Straws").await;
        bob.create_post("Straws").await;
    }
    let listed = ann.get("/jobs").await.items();
    let mut positions = Vec::new();
    for job in &listed {
        let alone = ann.get(&format!("/jobs/{}", text(&job["id"]))).await;
        let position = alone.expect(200)["queue_position"].clone();
        assert_eq!(job["queue_position"], position);
        positions.push(position);
    }
    // Every second one, the newest first.
    assert_eq!(positions, [15, 13, 11, 9, 7, 5, 3, 1]);
}
