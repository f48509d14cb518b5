//! Jobs: how they are canceled and tried again.

use std::time::{Duration, Instant};

use entity::{job, post};
use futures_util::FutureExt;
use futures_util::future::{join, join_all};
use reqwest::Method;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, IntoActiveModel,
    QueryFilter, QueryOrder, Set,
};
use serde_json::{Value, json};
use shared::queue;
use testing::stub_openai::StubBehavior;
use testing::{
    AT_ONCE, PASSWORD, TestClient, TestResponse, assert_fields, at_first, outcomes, post_path, text,
};
use uuid::Uuid;

use crate::support::{TestApp, deliveries};

/// A post whose job has failed at the second section.
async fn failed(app: &TestApp, owner: &TestClient, topic: &str) -> Value {
    let asked = owner.create_post(topic).await;
    app.agent
        .set(at_first(1, 2, StubBehavior::Fail(401, "invalid_api_key")));
    app.run_jobs().await;
    assert_eq!(owner.get_job(&asked).await["status"], "failed");
    asked
}

#[tokio::test]
async fn a_queued_job_is_canceled_at_once() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Second thoughts").await;
    let canceled = ann.cancel(&asked).await;
    canceled.assert_status(202);
    assert_eq!(canceled.header("retry-after"), "");
    assert_eq!(canceled.body["status"], "canceled");
    assert!(canceled.body["finished_at"].is_string());
    assert_eq!(app.count_deliveries().await, 0);
    let post = ann.get_post(&asked).await;
    assert_fields(&post, json!({ "status": "canceled", "content": null }));
    assert_eq!(post["job"], canceled.body);
    app.run_jobs().await;
    assert!(app.agent.calls().is_empty());
}

#[tokio::test]
async fn a_running_job_is_canceled_when_its_worker_has_let_go_of_the_agent() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Emergency brakes").await;
    app.agent.set(at_first(1, 2, StubBehavior::Hang));
    let worker = app.worker().await;
    app.agent.called(3).await;

    let since = Instant::now();
    let canceling = ann.cancel(&asked).await;
    canceling.assert_fields(202, json!({ "status": "canceling" }));
    assert_eq!(canceling.header("retry-after"), "1");
    app.agent.client_gone().await;
    let job = app
        .wait_for_job(&ann, &asked, |job| job["status"] != "canceling")
        .await;
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
    assert_fields(&job, json!({ "status": "canceled", "phase": null }));
    assert_eq!(outcomes(&job), ["canceled"]);
    let post = ann.get_post(&asked).await;
    assert_eq!(post["status"], "canceled");
    assert_fields(&post, json!({ "title": null, "content": null }));
    worker.stop().await;
}

#[tokio::test]
async fn a_job_that_waits_after_an_error_is_canceled_at_once() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Impatience").await;
    app.agent.set(StubBehavior::RateLimit(600));
    let worker = app.worker().await;
    app.wait_for_job(&ann, &asked, |job| !job["next_attempt_at"].is_null())
        .await;
    let canceled = ann.cancel(&asked).await;
    let expected = json!({ "status": "canceled", "next_attempt_at": null });
    assert_fields(&canceled.body, expected);
    worker.stop().await;
}

#[tokio::test]
async fn a_job_that_is_over_cannot_be_canceled() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let mut over = vec![failed(&app, &ann, "Failure").await];
    over.push(ann.create_post("Success").await);
    app.run_jobs().await;
    over.push(ann.create_post("Cancellation").await);
    ann.cancel(&over[2]).await;
    for (post, status) in over.iter().zip(["failed", "succeeded", "canceled"]) {
        let before = ann.get_job(post).await;
        assert_eq!(before["status"], status);
        ann.cancel(post).await.assert_error(409, "job_finished");
        assert_eq!(ann.get_job(post).await, before);
    }
}

#[tokio::test]
async fn a_failed_job_is_retried_from_its_checkpoint() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = failed(&app, &ann, "Second winds").await;

    let again = ann.retry(&asked).await;
    again.assert_status(202);
    assert_eq!(again.header("retry-after"), "1");
    let job = &again.body;
    let expected = json!({ "id": asked["job"]["id"], "status": "queued" });
    assert_fields(job, expected);
    assert_fields(job, json!({ "error": null, "finished_at": null }));
    assert_fields(job, json!({ "queue_position": 1, "max_attempts": 6 }));
    assert_eq!(ann.get_post(&asked).await["status"], "generating");
    app.run_jobs().await;

    let job = ann.get_job(&asked).await;
    assert_fields(&job, json!({ "status": "succeeded", "attempt": 2 }));
    assert_eq!(outcomes(&job), ["failed", "succeeded"]);
    assert_eq!(app.requested_sections(), [0, 1, 2, 2, 3, 4]);
    assert_eq!(ann.get_post(&asked).await["status"], "ready");
}

#[tokio::test]
async fn a_canceled_job_is_retried_from_its_checkpoint() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Changes of mind").await;
    app.agent.set(at_first(1, 3, StubBehavior::Hang));
    let worker = app.worker().await;
    app.agent.called(4).await;
    ann.cancel(&asked).await;
    app.wait_until_jobs_finished().await;
    ann.retry(&asked).await.expect(202);
    app.wait_until_jobs_finished().await;
    worker.stop().await;
    assert_eq!(
        outcomes(&ann.get_job(&asked).await),
        ["canceled", "succeeded"]
    );
    assert_eq!(app.requested_sections(), [0, 1, 2, 3, 3, 4]);
}

#[tokio::test]
async fn a_job_can_be_retried_only_when_it_failed_or_was_canceled() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Bad timing").await;
    let queued = ann.retry(&asked).await;
    queued.assert_error(409, "generation_in_progress");
    app.run_jobs().await;
    ann.retry(&asked).await.assert_error(409, "job_finished");
    assert_eq!(ann.get_post(&asked).await["status"], "ready");
}

#[tokio::test]
async fn only_the_latest_job_of_a_post_can_be_retried() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let old = failed(&app, &ann, "Old flames").await;
    let new = ann.regenerate(&old).await.expect(202);
    let refused = ann.retry(&old).await;
    refused.assert_error(409, "generation_in_progress");

    app.run_jobs().await;
    ann.retry(&old).await.assert_error(409, "job_finished");
    let post = ann.get_post(&old).await;
    let expected = json!({ "status": "ready", "job": { "id": new["job"]["id"] } });
    assert_fields(&post, expected);
}

#[tokio::test]
async fn whenever_a_cancel_comes_job_and_post_agree() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let workers = (app.worker().await, app.worker().await);
    let race = async |n: u64| {
        let asked = ann.create_post("Photo finish").await;
        // A job takes some tens of milliseconds.
        tokio::time::sleep(Duration::from_millis(n * 9)).await;
        (asked.clone(), ann.cancel(&asked).await)
    };
    let races = join_all((0..24).map(race)).await;
    app.wait_until_jobs_finished().await;
    workers.0.stop().await;
    workers.1.stop().await;
    for (asked, answer) in races {
        let job = ann.get_job(&asked).await;
        let post = ann.get_post(&asked).await;
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

#[tokio::test]
async fn concurrent_requests_leave_job_and_post_consistent() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let workers = (app.worker().await, app.worker().await);
    let life = async |n: u64| {
        let asked = ann.create_post("Rush hour").await;
        let path = post_path(&asked);
        let pause = |part: u64| tokio::time::sleep(Duration::from_millis(n * part % 37));
        let method = if n.is_multiple_of(2) {
            Method::DELETE
        } else {
            Method::GET
        };
        let responses = tokio::join!(
            pause(3).then(|()| ann.cancel(&asked)),
            pause(5).then(|()| ann.regenerate(&asked)),
            pause(7).then(|()| ann.put(&path, json!({ "content": "Mine." }))),
            pause(11).then(|()| ann.retry(&asked)),
            pause(13).then(|()| ann.send(ann.request(method, &path))),
        );
        for response in <[TestResponse; 5]>::from(responses) {
            let expected = [200, 202, 404, 409].contains(&response.status);
            assert!(expected, "{response}");
        }
        asked
    };
    let asked = join_all((1..24).map(life)).await;
    app.wait_until_jobs_finished().await;
    workers.0.stop().await;
    workers.1.stop().await;
    for asked in asked {
        let post = ann.get(&post_path(&asked)).await.body;
        let (status, job) = (post["status"].as_str(), post["job"]["status"].as_str());
        // A failed or canceled post may have been made ready by the edit.
        let agree = match status {
            Some("ready") => post["content"].is_string(),
            Some(status) => Some(status) == job,
            None => post["code"] == "not_found",
        };
        assert!(agree, "{post}");
    }
}

/// Two deliveries, in the order of their ids. The user's two jobs have them in the
/// other order, as when the first has been tried before.
async fn crossed_deliveries(app: &TestApp, owner: &TestClient) -> [String; 2] {
    let earlier = text(&owner.create_post("The first").await["job"]["id"]);
    let later = text(&owner.create_post("The second").await["job"]["id"]);
    let ids = [earlier, later].map(|id| Uuid::parse_str(&id).unwrap());
    let jobs = job::Entity::find()
        .filter(job::Column::Id.is_in(ids))
        .order_by_asc(job::Column::Id);
    let jobs = jobs.all(app.db.read()).await.unwrap();
    let mut deliveries = [0, 1].map(|n: usize| jobs[n].delivery_id.clone().unwrap());
    deliveries.sort();
    for (job, delivery) in jobs.into_iter().zip(deliveries.iter().rev()) {
        let mut job = job.into_active_model();
        job.delivery_id = Set(Some(delivery.clone()));
        job.update(app.db.raw_connection()).await.unwrap();
    }
    deliveries
}

/// On Postgres. A worker that was woken by the deliveries of one's jobs locks them
/// in the order of their ids, though it has taken others' jobs.
#[tokio::test]
async fn canceling_many_jobs_does_not_deadlock_with_a_worker() {
    let app = TestApp::new().await;
    let ann = app.admin("ann").await;
    for way in ["deleted", "disabled", "canceled"] {
        let bob = app.user(way).await;
        let id = app.id_of(way).await;
        let [first, second] = crossed_deliveries(&app, &bob).await;
        let request = match way {
            "deleted" => bob
                .request(Method::DELETE, "/users/me")
                .json(&json!({ "password": PASSWORD })),
            "disabled" => ann
                .request(Method::PATCH, &format!("/admin/users/{id}"))
                .json(&json!({ "disabled": true })),
            _ => ann
                .request(Method::POST, "/admin/jobs/bulk")
                .json(&json!({ "action": "cancel", "filter": { "user_id": id } })),
        };
        let worker = app.begin().await;
        deliveries::lock(&worker, &first).await;
        let goes_on = async {
            if app.db.backend() == DbBackend::Postgres {
                app.wait_for_lock_waiters(1).await;
            }
            deliveries::lock(&worker, &second).await;
            worker.commit().await.unwrap();
        };
        let (answer, ()) = join(ann.send(request), goes_on).await;
        assert!(matches!(answer.status, 200 | 204), "{way}: {answer:?}");
        assert_eq!(app.count_deliveries().await, 0, "{way}");
    }
}

/// A user's queued jobs, as many as one statement can't name, made of one.
async fn many_jobs(app: &TestApp, ann: &TestClient) {
    let post = ann.create_post("Growing tomatoes").await;
    let job: Uuid = text(&post["job"]["id"]).parse().unwrap();
    let job = job::Entity::find_by_id(job).one(app.db.read()).await;
    let job = job.unwrap().unwrap();
    let post = post::Entity::find_by_id(job.post_id).one(app.db.read());
    let post = post.await.unwrap().unwrap();
    let tx = app.begin().await;
    for _ in 0..1001 {
        let (insert, delivery) = deliveries::insert(app.db.backend(), "{}");
        tx.execute_unprepared(&insert).await.unwrap();
        let post = post::Model {
            id: Uuid::now_v7(),
            ..post.clone()
        };
        let job = job::Model {
            id: Uuid::now_v7(),
            post_id: post.id,
            delivery_id: Some(delivery),
            ..job.clone()
        };
        let insert = post::Entity::insert(post.into_active_model().reset_all());
        insert.exec_without_returning(&tx).await.unwrap();
        let insert = job::Entity::insert(job.into_active_model().reset_all());
        insert.exec_without_returning(&tx).await.unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_deleted_account_takes_a_thousand_deliveries_along_and_no_other() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let kept = ann.create_post("Growing tomatoes").await;
    many_jobs(&app, &bob).await;
    let before = queue::count_deliveries(app.db.read()).await;
    assert_eq!(before.unwrap(), 1003);
    let request = bob
        .request(Method::DELETE, "/users/me")
        .json(&json!({ "password": PASSWORD }));
    bob.send(request).await.expect(204);
    let left = queue::count_deliveries(app.db.read()).await;
    assert_eq!(left.unwrap(), 1);
    app.run_jobs().await;
    assert_eq!(ann.get_job(&kept).await["status"], "succeeded");
}
