//! How many unfinished jobs, and how much text, a user may have.

use entity::{job, post};
use futures_util::future::join_all;
use reqwest::Method;
use sea_orm::sea_query::Expr;
use sea_orm::{DbBackend, EntityTrait, PaginatorTrait};
use serde_json::{Value, json};
use testing::stub_openai::StubBehavior;

use crate::agent_failures::outcomes;
use crate::jobs::{cancel, job_path};
use crate::support::{PASSWORD, Settings, TestApp, TestClient, TestResponse, text};

async fn with(arguments: Vec<&'static str>) -> TestApp {
    TestApp::with(Settings { api: arguments }).await
}

fn blog_path(post: &Value) -> String {
    format!("/blogs/{}", text(&post["id"]))
}

async fn ask(user: &TestClient) -> TestResponse {
    user.post("/blogs", json!({ "topic": "Straws" })).await
}

async fn regenerate(user: &TestClient, post: &Value) -> TestResponse {
    let path = format!("{}/regenerate", blog_path(post));
    user.post(&path, json!({})).await
}

async fn retry(user: &TestClient, post: &Value) -> TestResponse {
    let path = format!("{}/retry", job_path(post));
    user.send(user.request(Method::POST, &path)).await
}

fn is_refused(answer: &TestResponse) {
    assert_eq!((answer.status, answer.code()), (429, "quota_exceeded"));
    assert_eq!(answer.header("retry-after"), "5");
}

/// Posts, jobs and deliveries that there are.
async fn rows(app: &TestApp) -> (u64, u64, i64) {
    let db = app.db.read();
    let posts = post::Entity::find().count(db).await.unwrap();
    let jobs = job::Entity::find().count(db).await.unwrap();
    (
        posts,
        jobs,
        shared::queue::count_deliveries(db).await.unwrap(),
    )
}

#[tokio::test]
async fn whoever_has_as_many_jobs_as_they_may_gets_no_other_and_nothing_changes() {
    let app = with(vec!["--user-max-active-jobs=2"]).await;
    let ann = app.user("ann").await;
    let written = ann.create_post("The first straw").await;
    app.run_jobs().await;
    let canceled = ann.create_post("The second straw").await;
    cancel(&ann, &canceled).await;

    let waiting = [
        ann.create_post("The third").await,
        ann.create_post("The fourth").await,
    ];
    let before = rows(&app).await;
    is_refused(&ask(&ann).await);
    is_refused(&regenerate(&ann, &written).await);
    is_refused(&retry(&ann, &canceled).await);
    assert_eq!(rows(&app).await, before);
    assert_eq!(ann.get_post(&written).await["status"], "ready");
    assert_eq!(ann.get_post(&canceled).await["status"], "canceled");
    for post in &waiting {
        cancel(&ann, post).await;
    }
    // Now there is room for all that was refused, but one.
    assert_eq!(regenerate(&ann, &written).await.status, 202);
    assert_eq!(retry(&ann, &canceled).await.status, 202);
    is_refused(&ask(&ann).await);
    app.run_jobs().await;
    assert_eq!(outcomes(&ann.get_job(&canceled).await), ["succeeded"]);
}

#[tokio::test]
async fn a_job_that_ends_in_any_way_makes_room_at_once() {
    let app = with(vec!["--user-max-active-jobs=1", "--job-max-attempts=1"]).await;
    let ann = app.user("ann").await;
    // It is written.
    ann.create_post("Doors").await;
    is_refused(&ask(&ann).await);
    app.run_jobs().await;
    // It fails.
    ann.create_post("Doors").await;
    app.agent.set(StubBehavior::Fail(401, "invalid_api_key"));
    app.run_jobs().await;
    // It is canceled before anyone has taken it.
    let queued = ann.create_post("Doors").await;
    is_refused(&ask(&ann).await);
    cancel(&ann, &queued).await;
    // Its post is deleted.
    let deleted = ann.create_post("Doors").await;
    assert_eq!(ann.delete(&blog_path(&deleted)).await.status, 200);
    // It is canceled while it runs, and takes its room until it has stopped.
    let running = ann.create_post("Doors").await;
    app.agent.set(StubBehavior::Hang);
    let worker = app.worker().await;
    app.job_once(&ann, &running, |job| job["status"] == "running")
        .await;
    is_refused(&ask(&ann).await);
    cancel(&ann, &running).await;
    app.wait_until_jobs_finished().await;
    let last = ann.create_post("Doors").await;
    cancel(&ann, &last).await;
    app.wait_until_jobs_finished().await;
    worker.stop().await;
}

#[tokio::test]
async fn a_job_that_waits_for_its_next_attempt_takes_room() {
    let app = with(vec!["--user-max-active-jobs=1"]).await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Patience").await;
    // Longer than the attempt waits itself.
    app.agent.set(StubBehavior::RateLimit(600));
    let worker = app.worker().await;
    let waits = |job: &Value| !job["next_attempt_at"].is_null();
    app.job_once(&ann, &asked, waits).await;
    is_refused(&ask(&ann).await);
    cancel(&ann, &asked).await;
    worker.stop().await;
}

#[tokio::test]
async fn of_many_requests_at_once_just_as_many_are_accepted_as_there_is_room_for() {
    let app = with(vec!["--user-max-active-jobs=9"]).await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let asked = [
        ann.create_post("Reeds").await,
        ann.create_post("Rushes").await,
    ];
    for post in &asked {
        cancel(&ann, post).await;
    }
    let again = join_all(asked.iter().map(|post| retry(&ann, post)));
    let anew = join_all((0..62).map(|_| ask(&ann)));
    let others = join_all((0..9).map(|_| ask(&bob)));
    let (again, anew, others) = tokio::join!(again, anew, others);
    let (accepted, refused): (Vec<_>, Vec<_>) = again
        .into_iter()
        .chain(anew)
        .partition(|answer| answer.status == 202);
    assert_eq!((accepted.len(), refused.len()), (9, 55));
    refused.iter().for_each(is_refused);
    // The room of one is not that of another.
    assert!(others.iter().all(|answer| answer.status == 202));
    is_refused(&ask(&bob).await);
    app.run_jobs().await;
    assert_eq!(ask(&ann).await.status, 202);
    app.run_jobs().await;
}

/// On Postgres, where the two lock rows against each other.
#[tokio::test]
async fn an_account_can_be_deleted_while_it_asks_for_posts() {
    let app = TestApp::new().await;
    for round in 0..5 {
        let ann = app.user(&format!("ann{round}")).await;
        let asked = join_all((0..4).map(|_| ann.create_post("Leaving"))).await;
        for post in &asked {
            cancel(&ann, post).await;
        }
        let body = json!({ "password": PASSWORD });
        let leave = ann.request(Method::DELETE, "/users/me").json(&body);
        let anew = join_all((0..16).map(|_| ask(&ann)));
        let again = join_all(asked.iter().map(|post| retry(&ann, post)));
        let (left, anew, again) = tokio::join!(ann.send(leave), anew, again);
        assert_eq!(left.status, 204, "{left:?}");
        for answer in anew.iter().chain(&again) {
            assert!([202, 401, 404].contains(&answer.status), "{answer:?}");
        }
        assert_eq!(rows(&app).await, (0, 0, 0));
    }
}

#[tokio::test]
async fn of_many_posts_at_once_no_more_are_made_than_a_user_may_have() {
    let app = with(vec!["--user-max-posts=3"]).await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let answers = join_all((0..10).map(|_| ask(&ann))).await;
    let made = answers.iter().filter(|answer| answer.status == 202);
    assert_eq!(made.count(), 3);
    answers
        .iter()
        .filter(|answer| answer.status != 202)
        .for_each(is_refused);
    assert_eq!(rows(&app).await, (3, 3, 3));
    assert_eq!(ask(&bob).await.status, 202);

    let post = ann.get("/blogs").await.body["items"][0].clone();
    ann.delete(&blog_path(&post)).await;
    assert_eq!(ask(&ann).await.status, 202);
    is_refused(&ask(&ann).await);
    app.run_jobs().await;
}

#[tokio::test]
async fn text_may_grow_up_to_what_a_user_may_have_and_shrink_beyond() {
    let app = with(vec!["--user-max-bytes=10000"]).await;
    let ann = app.user("ann").await;
    let (first, second) = (ann.create_post("One").await, ann.create_post("Other").await);
    app.run_jobs().await;
    let put = async |post: &Value, bytes: usize| {
        // Of two bytes each.
        let content = "é".repeat(bytes / 2);
        ann.put(&blog_path(post), json!({ "content": content }))
            .await
    };
    assert_eq!(put(&first, 4000).await.status, 200);
    assert_eq!(put(&second, 6000).await.status, 200);
    is_refused(&put(&first, 4002).await);
    assert_eq!(ann.get_post(&first).await["version"], 3);
    is_refused(&ask(&ann).await);

    assert_eq!(put(&second, 2000).await.status, 200);
    assert_eq!(put(&first, 8000).await.status, 200);
    // More than one may have, for the setting was another, may become less.
    let grown = post::Entity::update_many()
        .col_expr(post::Column::Content, Expr::value("a".repeat(50_000)))
        .exec(app.db.raw_connection());
    grown.await.unwrap();
    assert_eq!(put(&first, 40_000).await.status, 200);
}

#[tokio::test]
async fn who_has_as_much_text_as_they_may_has_none_written_anew() {
    let app = with(vec!["--user-max-bytes=10000"]).await;
    let ann = app.user("ann").await;
    let post = ann.create_post("One").await;
    app.run_jobs().await;
    let put = async |bytes: usize| {
        let content = "a".repeat(bytes);
        ann.put(&blog_path(&post), json!({ "content": content }))
            .await
    };
    assert_eq!(put(10_000).await.status, 200);
    is_refused(&regenerate(&ann, &post).await);
    assert_eq!(put(3000).await.status, 200);
    // Each of these keeps a copy of the text with its answer; Postgres makes it small.
    for key in ["k1", "k2", "k3"] {
        let path = format!("{}/regenerate", blog_path(&post));
        let again = ann
            .request(Method::POST, &path)
            .header("idempotency-key", key);
        let again = ann.send(again.json(&json!({}))).await;
        if key == "k3" && app.db.backend() == DbBackend::Sqlite {
            is_refused(&again);
            continue;
        }
        assert_eq!(again.status, 202, "{key}: {}", again.body);
        cancel(&ann, &again.body).await;
    }
}
