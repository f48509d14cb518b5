//! How many unfinished jobs, and how much text, a user may have.

use entity::{job, post};
use futures_util::future::join_all;
use futures_util::join;
use reqwest::Method;
use sea_orm::{DbBackend, EntityTrait};
use serde_json::{Value, json};
use testing::stub_openai::StubBehavior;
use testing::{PASSWORD, TestClient, TestResponse, outcomes, post_path};

use crate::support::TestApp;

async fn ask(user: &TestClient) -> TestResponse {
    user.post("/blogs", json!({ "topic": "Straws" })).await
}

fn is_refused(answer: &TestResponse) {
    answer.assert_error(429, "quota_exceeded");
    assert_eq!(answer.header("retry-after"), "5");
}

/// Posts, jobs and deliveries that there are.
async fn rows(app: &TestApp) -> (u64, u64, i64) {
    let posts = app.count(post::Entity).await;
    let jobs = app.count(job::Entity).await;
    (posts, jobs, app.count_deliveries().await)
}

/// Requests that come at once share a transaction, and may be refused in it by themselves.
#[tokio::test]
async fn of_posts_that_many_ask_for_at_once_each_is_accepted_or_refused_by_itself() {
    let app = TestApp::with(&["--user-max-active-jobs=3", "--user-max-bytes=1000"]).await;
    let users = join_all(["ann", "bob", "cid", "dan"].map(|name| app.user(name))).await;
    let full = app.user("eve").await;
    let source = json!({ "title": "Straw", "text": "x".repeat(1000) });
    let too_large = json!({ "topic": "Straws", "sources": [source] });
    let small = json!({ "topic": "Straws" });

    let asked = (0..6).flat_map(|_| users.iter().map(|user| user.post("/blogs", small.clone())));
    let (answers, refused) = join!(join_all(asked), full.post("/blogs", too_large));
    is_refused(&refused);
    let (accepted, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 202);
    refused.iter().for_each(is_refused);
    assert_eq!((accepted.len(), refused.len()), (12, 12));
    assert_eq!(rows(&app).await, (12, 12, 12));
    for user in &users {
        let posts = user.get("/blogs").await.expect(200);
        assert_eq!(posts["items"].as_array().unwrap().len(), 3);
    }
    // One of each owner in each round.
    let jobs = job::Entity::find().all(app.db.read()).await.unwrap();
    let mut turns: Vec<_> = jobs.iter().map(|job| (job.turn, job.user_id)).collect();
    turns.sort_unstable();
    turns.dedup();
    assert_eq!(turns.len(), 12);
    assert!(turns.iter().all(|(turn, _)| *turn < 3));
    app.run_jobs().await;
}

/// As if the database refused one of many in a transaction, for whatever reason.
#[tokio::test]
async fn a_post_that_cannot_be_stored_harms_none_that_is_asked_for_with_it() {
    let app = TestApp::new().await;
    let once = "CREATE UNIQUE INDEX once ON blog_posts (topic) WHERE topic = 'Once'";
    app.execute(once).await;
    let users = join_all(["ann", "bob", "cid"].map(|name| app.user(name))).await;
    let topics = ["One", "Once", "Two", "Once", "Three"];
    let asked = topics.into_iter().flat_map(|topic| {
        let body = json!({ "topic": topic });
        let ask = move |user: &TestClient| {
            let (user, body) = (user.clone(), body.clone());
            async move { user.post("/blogs", body).await }
        };
        users.iter().map(ask)
    });
    let answers = join_all(asked).await;
    let accepted: Vec<_> = answers.iter().filter(|it| it.status == 202).collect();
    assert_eq!(accepted.len(), 3 * 3 + 1);
    assert_eq!(rows(&app).await, (10, 10, 10));
    for failed in answers.iter().filter(|it| it.status != 202) {
        failed.assert_error(500, "internal");
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn a_user_at_the_job_quota_gets_no_other_job_and_nothing_changes() {
    let app = TestApp::with(&["--user-max-active-jobs=2"]).await;
    let ann = app.user("ann").await;
    let written = ann.create_post("The first straw").await;
    app.run_jobs().await;
    let canceled = ann.create_post("The second straw").await;
    ann.cancel(&canceled).await;

    let waiting = [
        ann.create_post("The third").await,
        ann.create_post("The fourth").await,
    ];
    let before = rows(&app).await;
    is_refused(&ask(&ann).await);
    is_refused(&ann.regenerate(&written).await);
    is_refused(&ann.retry(&canceled).await);
    assert_eq!(rows(&app).await, before);
    assert_eq!(ann.get_post(&written).await["status"], "ready");
    assert_eq!(ann.get_post(&canceled).await["status"], "canceled");
    for post in &waiting {
        ann.cancel(post).await;
    }
    // Now there is room for all that was refused, but one.
    ann.regenerate(&written).await.expect(202);
    ann.retry(&canceled).await.expect(202);
    is_refused(&ask(&ann).await);
    app.run_jobs().await;
    assert_eq!(outcomes(&ann.get_job(&canceled).await), ["succeeded"]);
}

#[tokio::test]
async fn a_job_that_ends_in_any_way_frees_quota_at_once() {
    let app = TestApp::with(&["--user-max-active-jobs=1", "--job-max-attempts=1"]).await;
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
    ann.cancel(&queued).await;
    // Its post is deleted.
    let deleted = ann.create_post("Doors").await;
    ann.delete(&post_path(&deleted)).await.expect(200);
    // It is canceled while it runs, and takes its room until it has stopped.
    let running = ann.create_post("Doors").await;
    app.agent.set(StubBehavior::Hang);
    let worker = app.worker().await;
    ann.wait_for_status(&running, "running").await;
    is_refused(&ask(&ann).await);
    ann.cancel(&running).await;
    app.wait_until_jobs_finished().await;
    let last = ann.create_post("Doors").await;
    ann.cancel(&last).await;
    app.wait_until_jobs_finished().await;
    worker.stop().await;
}

#[tokio::test]
async fn a_job_that_waits_for_its_next_attempt_counts_towards_the_quota() {
    let app = TestApp::with(&["--user-max-active-jobs=1"]).await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Patience").await;
    // Longer than the attempt waits itself.
    app.agent.set(StubBehavior::RateLimit(600));
    let worker = app.worker().await;
    let waits = |job: &Value| !job["next_attempt_at"].is_null();
    app.wait_for_job(&ann, &asked, waits).await;
    is_refused(&ask(&ann).await);
    ann.cancel(&asked).await;
    worker.stop().await;
}

#[tokio::test]
async fn concurrent_requests_fill_the_job_quota_and_never_exceed_it() {
    let app = TestApp::with(&["--user-max-active-jobs=9"]).await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let asked = [
        ann.create_post("Reeds").await,
        ann.create_post("Rushes").await,
    ];
    for post in &asked {
        ann.cancel(post).await;
    }
    let again = join_all(asked.iter().map(|post| ann.retry(post)));
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
    ask(&ann).await.expect(202);
    app.run_jobs().await;
}

/// On Postgres, where the two lock rows against each other.
#[tokio::test]
async fn an_account_can_be_deleted_while_it_creates_posts() {
    let app = TestApp::new().await;
    for round in 0..5 {
        let ann = app.user(&format!("ann{round}")).await;
        let asked = join_all((0..4).map(|_| ann.create_post("Leaving"))).await;
        for post in &asked {
            ann.cancel(post).await;
        }
        let anew = join_all((0..16).map(|_| ask(&ann)));
        let again = join_all(asked.iter().map(|post| ann.retry(post)));
        let (left, anew, again) = tokio::join!(ann.delete_account(PASSWORD), anew, again);
        left.assert_status(204);
        for answer in anew.iter().chain(&again) {
            assert!([202, 401, 404].contains(&answer.status), "{answer:?}");
        }
        assert_eq!(rows(&app).await, (0, 0, 0));
    }
}

#[tokio::test]
async fn concurrent_requests_fill_the_post_quota_and_never_exceed_it() {
    let app = TestApp::with(&["--user-max-posts=3"]).await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let answers = join_all((0..10).map(|_| ask(&ann))).await;
    let made = answers.iter().filter(|answer| answer.status == 202);
    assert_eq!(made.count(), 3);
    answers
        .iter()
        .filter(|answer| answer.status != 202)
        .for_each(is_refused);
    assert_eq!(rows(&app).await, (3, 3, 3));
    ask(&bob).await.expect(202);

    let post = ann.get("/blogs").await.items().remove(0);
    ann.delete(&post_path(&post)).await;
    ask(&ann).await.expect(202);
    is_refused(&ask(&ann).await);
    app.run_jobs().await;
}

#[tokio::test]
async fn text_may_grow_up_to_the_byte_quota_and_shrink_beyond_it() {
    let app = TestApp::with(&["--user-max-bytes=10000"]).await;
    let ann = app.user("ann").await;
    let (first, second) = (ann.create_post("One").await, ann.create_post("Other").await);
    app.run_jobs().await;
    let put = async |post: &Value, bytes: usize| {
        // Of two bytes each.
        let content = "é".repeat(bytes / 2);
        ann.put(&post_path(post), json!({ "content": content }))
            .await
    };
    put(&first, 4000).await.expect(200);
    put(&second, 6000).await.expect(200);
    is_refused(&put(&first, 4002).await);
    assert_eq!(ann.get_post(&first).await["version"], 3);
    is_refused(&ask(&ann).await);

    put(&second, 2000).await.expect(200);
    put(&first, 8000).await.expect(200);
    // More than one may have, for the setting was another, may become less.
    app.set_all(post::Column::Content, "a".repeat(50_000)).await;
    put(&first, 40_000).await.expect(200);
}

#[tokio::test]
async fn a_user_at_the_byte_quota_cannot_regenerate_posts() {
    let app = TestApp::with(&["--user-max-bytes=10000"]).await;
    let ann = app.user("ann").await;
    let post = ann.create_post("One").await;
    app.run_jobs().await;
    let put = async |bytes: usize| {
        let content = "a".repeat(bytes);
        ann.put(&post_path(&post), json!({ "content": content }))
            .await
    };
    put(10_000).await.expect(200);
    is_refused(&ann.regenerate(&post).await);
    put(3000).await.expect(200);
    // Each of these keeps a copy of the text with its answer; Postgres makes it small.
    for key in ["k1", "k2", "k3"] {
        let path = format!("{}/regenerate", post_path(&post));
        let again = ann
            .request(Method::POST, &path)
            .header("idempotency-key", key);
        let again = ann.send(again.json(&json!({}))).await;
        if key == "k3" && app.db.backend() == DbBackend::Sqlite {
            is_refused(&again);
            continue;
        }
        again.assert_status(202);
        ann.cancel(&again.body).await;
    }
}
