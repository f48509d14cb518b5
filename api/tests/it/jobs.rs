//! Jobs: what clients see of them, and how they steer them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::job_life::{at_first, outcomes, time};
use crate::stub_openai::Mood;
use crate::test_app::{Answer, TestApp, TestClient, text};

fn job_path(post: &Value) -> String {
    format!("/jobs/{}", text(&post["job"]["id"]))
}

async fn cancel(owner: &TestClient, post: &Value) -> Answer {
    let path = format!("{}/cancel", job_path(post));
    owner.send(owner.request(Method::POST, &path)).await
}

async fn retry(owner: &TestClient, post: &Value) -> Answer {
    let path = format!("{}/retry", job_path(post));
    owner.send(owner.request(Method::POST, &path)).await
}

/// A post whose job has failed at the second section.
async fn failed(app: &TestApp, owner: &TestClient, topic: &str) -> Value {
    let asked = owner.ask(topic).await;
    app.agent
        .set(at_first(1, 2, Mood::Fail(401, "invalid_api_key")));
    app.run_jobs().await;
    assert_eq!(owner.job_now(&asked).await["status"], "failed");
    asked
}

#[tokio::test]
async fn a_queued_job_shows_every_field() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.ask("Waiting rooms").await;
    let answer = ann.get(&job_path(&asked)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("retry-after"), "1");
    let job = answer.body;
    assert_eq!(job, asked["job"]);
    let itself = format!("/api/v1/jobs/{}", text(&job["id"]));
    let expected = json!({
        "id": job["id"],
        "blog_id": asked["id"],
        "status": "queued",
        "phase": null,
        "progress": { "percent": 0, "words": 0 },
        "attempt": 0,
        "max_attempts": 5,
        "next_attempt_at": null,
        "queue_position": 1,
        "model": "stub-large",
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
            "events": null,
        },
    });
    assert_eq!(job, expected);
    let created = text(&job["created_at"]);
    assert!(created.ends_with('Z') && created.len() == 24, "{created}");
    cancel(&ann, &asked).await;
}

#[tokio::test]
async fn a_running_job_tells_how_far_it_is() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.ask("Halfway houses").await;
    let gate = Arc::new(Notify::new());
    app.agent.set(at_first(1, 3, Mood::Gate(gate.clone())));
    let worker = app.worker().await;
    app.agent.called(4).await;

    let answer = ann.get(&job_path(&asked)).await;
    assert_eq!(answer.header("retry-after"), "1");
    let job = answer.body;
    assert_eq!(
        (&job["status"], &job["phase"]),
        (&json!("running"), &json!("writing"))
    );
    let (percent, words) = (&job["progress"]["percent"], &job["progress"]["words"]);
    assert!((40..60).contains(&percent.as_i64().unwrap()), "{job}");
    assert_eq!(words, 52, "two sections have 26 words each");
    assert_eq!(
        (&job["attempt"], &job["queue_position"]),
        (&json!(1), &Value::Null)
    );
    let attempt = &job["attempts"][0];
    assert!(!text(&attempt["worker"]).is_empty());
    assert_eq!(
        (&attempt["outcome"], &attempt["error"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(attempt["finished_at"], Value::Null);
    assert!(time(&job["started_at"]) >= time(&job["created_at"]));
    assert_eq!(job["finished_at"], Value::Null);

    gate.notify_one();
    app.jobs_over().await;
    worker.stop().await;
    let answer = ann.get(&job_path(&asked)).await;
    assert_eq!(answer.header("retry-after"), "");
    let job = answer.body;
    assert_eq!(
        (&job["status"], &job["phase"]),
        (&json!("succeeded"), &Value::Null)
    );
    assert_eq!(job["progress"]["percent"], 100);
    let post = ann.post_now(&asked).await;
    assert_eq!(post["job"], job);
    assert!(time(&job["finished_at"]) >= time(&job["started_at"]));
    assert!(!job["attempts"][0]["finished_at"].is_null());
}

#[tokio::test]
async fn a_wait_ends_when_a_worker_takes_the_job() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.ask("Bus stops").await;
    app.agent.set(Mood::Hang);
    let path = format!("{}?wait=20", job_path(&asked));
    let since = Instant::now();
    let (answer, worker) = tokio::join!(ann.get(&path), app.worker());
    assert_eq!(answer.body["status"], "running");
    assert!(
        since.elapsed() < Duration::from_secs(3),
        "{:?}",
        since.elapsed()
    );
    cancel(&ann, &asked).await;
    app.jobs_over().await;
    worker.stop().await;
}

#[tokio::test]
async fn a_wait_ends_with_the_next_phase() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.ask("Phases of the moon").await;
    let gate = Arc::new(Notify::new());
    let outline = gate.clone();
    app.agent
        .set(Mood::by(move |call| match crate::test_app::part(call) {
            0 => Mood::Gate(outline.clone()),
            _ => Mood::Hang,
        }));
    let worker = app.worker().await;
    app.agent.called(1).await;
    assert_eq!(ann.job_now(&asked).await["phase"], "outline");
    let path = format!("{}?wait=20", job_path(&asked));
    let since = Instant::now();
    let open = async {
        // The question must come first, and nobody tells when it has.
        tokio::time::sleep(Duration::from_millis(300)).await;
        gate.notify_one();
    };
    let (answer, ()) = tokio::join!(ann.get(&path), open);
    assert_eq!(answer.body["phase"], "writing");
    assert!(
        since.elapsed() < Duration::from_secs(3),
        "{:?}",
        since.elapsed()
    );
    cancel(&ann, &asked).await;
    app.jobs_over().await;
    worker.stop().await;
}

#[tokio::test]
async fn a_wait_ends_at_its_deadline() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.ask("Godot").await;
    for (wait, least) in [(0, 0), (1, 1)] {
        let since = Instant::now();
        let answer = ann.get(&format!("{}?wait={wait}", job_path(&asked))).await;
        assert_eq!(
            (answer.status, &answer.body["status"]),
            (200, &json!("queued"))
        );
        let (least, most) = (Duration::from_secs(least), Duration::from_secs(least + 1));
        assert!(
            (least..most).contains(&since.elapsed()),
            "{:?}",
            since.elapsed()
        );
    }
    cancel(&ann, &asked).await;
    let since = Instant::now();
    let answer = ann.get(&format!("{}?wait=20", job_path(&asked))).await;
    assert_eq!(answer.body["status"], "canceled");
    assert!(
        since.elapsed() < Duration::from_secs(1),
        "it was over already"
    );
}

#[tokio::test]
async fn a_wait_ends_when_the_post_is_deleted() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.ask("Vapour").await;
    let path = format!("{}?wait=20", job_path(&asked));
    let blog = format!("/blogs/{}", text(&asked["id"]));
    let since = Instant::now();
    let (answer, _) = tokio::join!(ann.get(&path), ann.delete(&blog));
    assert_eq!(answer.status, 404);
    assert!(since.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn an_unchanged_job_is_not_sent_again() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.ask("Statues").await;
    let first = ann.get(&job_path(&asked)).await;
    let tag = first.header("etag").to_owned();
    assert!(!tag.is_empty());
    let again = || {
        ann.request(Method::GET, &job_path(&asked))
            .header("if-none-match", &tag)
    };

    let unchanged = ann.send(again()).await;
    assert_eq!((unchanged.status, unchanged.text.as_str()), (304, ""));
    assert_eq!(unchanged.header("etag"), tag);
    let status = format!("/blogs/{}/status", text(&asked["id"]));
    let status = ann
        .request(Method::GET, &status)
        .header("if-none-match", &tag);
    assert_eq!(ann.send(status).await.status, 304);

    cancel(&ann, &asked).await;
    let changed = ann.send(again()).await;
    assert_eq!(
        (changed.status, &changed.body["status"]),
        (200, &json!("canceled"))
    );
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
        let post = user.ask("Queues").await;
        assert_eq!(post["job"]["queue_position"], n + 1);
        asked.push((user, post));
    }
    let (user, last) = &asked[2];
    for (done, (first_user, first)) in asked[..2].iter().enumerate() {
        cancel(first_user, first).await;
        assert_eq!(user.job_now(last).await["queue_position"], 2 - done);
    }
    cancel(user, last).await;
    assert_eq!(user.job_now(last).await["queue_position"], Value::Null);
}

#[tokio::test]
async fn a_queued_job_is_canceled_at_once() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.ask("Second thoughts").await;
    let canceled = cancel(&ann, &asked).await;
    assert_eq!(canceled.status, 202);
    assert_eq!(canceled.header("retry-after"), "");
    assert_eq!(canceled.body["status"], "canceled");
    assert!(canceled.body["finished_at"].is_string());
    assert_eq!(shared::queue::length(app.db.read()).await.unwrap(), 0);
    let post = ann.post_now(&asked).await;
    assert_eq!(
        (&post["status"], &post["content"]),
        (&json!("canceled"), &Value::Null)
    );
    assert_eq!(post["job"], canceled.body);
    app.run_jobs().await;
    assert!(app.agent.calls().is_empty());
}

#[tokio::test]
async fn a_running_job_is_canceled_when_its_worker_has_let_go_of_the_agent() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.ask("Emergency brakes").await;
    app.agent.set(at_first(1, 2, Mood::Hang));
    let worker = app.worker().await;
    app.agent.called(3).await;

    let since = Instant::now();
    let canceling = cancel(&ann, &asked).await;
    assert_eq!(
        (canceling.status, &canceling.body["status"]),
        (202, &json!("canceling"))
    );
    assert_eq!(canceling.header("retry-after"), "1");
    app.agent.client_gone().await;
    let job = app
        .job_once(&ann, &asked, |job| job["status"] != "canceling")
        .await;
    assert!(
        since.elapsed() < Duration::from_secs(3),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(
        (&job["status"], &job["phase"]),
        (&json!("canceled"), &Value::Null)
    );
    assert_eq!(outcomes(&job), ["canceled"]);
    let post = ann.post_now(&asked).await;
    assert_eq!(post["status"], "canceled");
    assert_eq!(
        (&post["title"], &post["content"]),
        (&Value::Null, &Value::Null)
    );
    worker.stop().await;
}

#[tokio::test]
async fn a_job_that_waits_after_an_error_is_canceled_at_once() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.ask("Impatience").await;
    app.agent.set(Mood::Busy(60));
    let worker = app.worker().await;
    app.job_once(&ann, &asked, |job| !job["next_attempt_at"].is_null())
        .await;
    let canceled = cancel(&ann, &asked).await;
    assert_eq!(canceled.body["status"], "canceled");
    assert_eq!(canceled.body["next_attempt_at"], Value::Null);
    worker.stop().await;
}

#[tokio::test]
async fn a_job_that_is_over_cannot_be_canceled() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let mut over = vec![failed(&app, &ann, "Failure").await];
    over.push(ann.ask("Success").await);
    app.run_jobs().await;
    over.push(ann.ask("Cancellation").await);
    cancel(&ann, &over[2]).await;
    for (post, status) in over.iter().zip(["failed", "succeeded", "canceled"]) {
        let before = ann.job_now(post).await;
        assert_eq!(before["status"], status);
        let answer = cancel(&ann, post).await;
        assert_eq!((answer.status, answer.code()), (409, "job_finished"));
        assert_eq!(ann.job_now(post).await, before);
    }
}

#[tokio::test]
async fn a_failed_job_goes_on_where_it_was() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = failed(&app, &ann, "Second winds").await;

    let again = retry(&ann, &asked).await;
    assert_eq!(again.status, 202);
    assert_eq!(again.header("retry-after"), "1");
    let job = &again.body;
    assert_eq!(
        (&job["id"], &job["status"]),
        (&asked["job"]["id"], &json!("queued"))
    );
    assert_eq!(
        (&job["error"], &job["finished_at"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        (&job["queue_position"], &job["max_attempts"]),
        (&json!(1), &json!(6))
    );
    assert_eq!(ann.post_now(&asked).await["status"], "generating");
    app.run_jobs().await;

    let job = ann.job_now(&asked).await;
    assert_eq!(
        (&job["status"], &job["attempt"]),
        (&json!("succeeded"), &json!(2))
    );
    assert_eq!(outcomes(&job), ["failed", "succeeded"]);
    assert_eq!(app.parts(), [0, 1, 2, 2, 3, 4]);
    assert_eq!(ann.post_now(&asked).await["status"], "ready");
}

#[tokio::test]
async fn a_canceled_job_goes_on_where_it_was() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.ask("Changes of mind").await;
    app.agent.set(at_first(1, 3, Mood::Hang));
    let worker = app.worker().await;
    app.agent.called(4).await;
    cancel(&ann, &asked).await;
    app.jobs_over().await;
    assert_eq!(retry(&ann, &asked).await.status, 202);
    app.jobs_over().await;
    worker.stop().await;
    assert_eq!(
        outcomes(&ann.job_now(&asked).await),
        ["canceled", "succeeded"]
    );
    assert_eq!(app.parts(), [0, 1, 2, 3, 3, 4]);
}

#[tokio::test]
async fn a_job_can_be_retried_only_when_it_failed_or_was_canceled() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.ask("Bad timing").await;
    let queued = retry(&ann, &asked).await;
    assert_eq!(
        (queued.status, queued.code()),
        (409, "generation_in_progress")
    );
    app.run_jobs().await;
    let succeeded = retry(&ann, &asked).await;
    assert_eq!((succeeded.status, succeeded.code()), (409, "job_finished"));
    assert_eq!(ann.post_now(&asked).await["status"], "ready");
}

#[tokio::test]
async fn only_the_latest_job_of_a_post_can_be_retried() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let old = failed(&app, &ann, "Old flames").await;
    let path = format!("/blogs/{}/regenerate", text(&old["id"]));
    let new = ann.send(ann.request(Method::POST, &path)).await;
    assert_eq!(new.status, 202);
    let refused = retry(&ann, &old).await;
    assert_eq!(
        (refused.status, refused.code()),
        (409, "generation_in_progress")
    );

    app.run_jobs().await;
    let refused = retry(&ann, &old).await;
    assert_eq!((refused.status, refused.code()), (409, "job_finished"));
    let post = ann.post_now(&old).await;
    assert_eq!(
        (&post["status"], &post["job"]["id"]),
        (&json!("ready"), &new.body["job"]["id"])
    );
}

#[tokio::test]
async fn the_jobs_of_others_cannot_be_seen_or_steered() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let asked = ann.ask("Privacy").await;
    let status = format!("/blogs/{}/status", text(&asked["id"]));
    let answers = [
        bob.get(&job_path(&asked)).await,
        bob.get(&format!("{}?wait=20", job_path(&asked))).await,
        bob.get(&status).await,
        cancel(&bob, &asked).await,
        retry(&bob, &asked).await,
    ];
    for answer in answers {
        assert_eq!((answer.status, answer.code()), (404, "not_found"));
    }
    assert_eq!(bob.get("/jobs").await.body["items"], json!([]));
    assert_eq!(cancel(&ann, &asked).await.status, 202);
}

#[tokio::test]
async fn whenever_a_cancel_comes_job_and_post_agree() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let workers = (app.worker().await, app.worker().await);
    let race = async |n: u64| {
        let asked = ann.ask("Photo finish").await;
        // A job takes some tens of milliseconds.
        tokio::time::sleep(Duration::from_millis(n * 9)).await;
        (asked.clone(), cancel(&ann, &asked).await)
    };
    let races = futures_util::future::join_all((0..24).map(race)).await;
    app.jobs_over().await;
    workers.0.stop().await;
    workers.1.stop().await;
    for (asked, answer) in races {
        let job = ann.job_now(&asked).await;
        let post = ann.post_now(&asked).await;
        let ended = (
            text(&job["status"]),
            text(&post["status"]),
            post["content"].is_string(),
        );
        let expected = match answer.status {
            202 => ("canceled".to_owned(), "canceled".to_owned(), false),
            _ => ("succeeded".to_owned(), "ready".to_owned(), true),
        };
        assert_eq!(ended, expected, "{}", answer.text);
        assert!(outcomes(&job).len() <= 1);
    }
}
