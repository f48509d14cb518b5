//! What is forgotten when it is old, and what is not.

use std::time::Duration;

use chrono::TimeDelta;
use entity::cleanup_clock::{self, ClockTrust};
use entity::clock::{Timestamp, now};
use entity::{attempt, job, post, refresh_token, session};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, IntoActiveModel,
    QueryFilter, Statement,
};
use serde_json::json;
use shared::queue::{self, JobQuota, RequestOrigin, RetriedBy};
use testing::{assert_fields, job_path, post_path, text};
use uuid::Uuid;

use crate::support::TestApp;

const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

fn days_ago(days: i64) -> Timestamp {
    now() - TimeDelta::days(days)
}

#[tokio::test]
async fn an_old_finished_job_is_deleted_and_its_post_is_not() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Old times").await;
    app.run_jobs().await;

    app.set_all(job::Column::FinishedAt, days_ago(29)).await;
    worker::maintenance::cleanup::run_once(&app.db, MONTH).await;
    assert_eq!(ann.get_job(&asked).await["status"], "succeeded");

    app.set_all(job::Column::FinishedAt, days_ago(31)).await;
    worker::maintenance::cleanup::run_once(&app.db, MONTH).await;
    ann.get(&job_path(&asked)).await.expect(404);
    assert_eq!(app.count(attempt::Entity).await, 0);
    let post = ann.get_post(&asked).await;
    assert_fields(&post, json!({ "status": "ready", "job": null }));
    assert!(text(&post["content"]).len() > 20);

    // It can be written anew.
    ann.regenerate(&asked).await.expect(202);
    app.run_jobs().await;
    assert_eq!(ann.get_post(&asked).await["job"]["status"], "succeeded");
}

#[tokio::test]
async fn a_post_is_regenerated_with_its_options_though_its_job_was_deleted() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let options = json!({ "language": "de", "model": "stub-small" });
    let body = json!({ "topic": "Alte Zeiten", "options": options });
    let asked = ann.post("/blogs", body).await.body;
    app.run_jobs().await;
    app.set_all(job::Column::FinishedAt, days_ago(31)).await;
    worker::maintenance::cleanup::run_once(&app.db, MONTH).await;

    let status = ann.get(&format!("{}/status", post_path(&asked))).await;
    status.assert_error(404, "not_found");
    let detail = text(&status.body["detail"]);
    assert!(detail.contains("no longer kept"), "{detail}");

    let calls = app.agent.calls().len();
    let again = ann.regenerate(&asked).await.expect(202);
    assert_eq!(again["job"]["model"], "stub-small");
    app.run_jobs().await;
    for call in &app.agent.calls()[calls..] {
        let said = call.prompt();
        assert!(said.contains("Language: de"), "{said}");
    }
}

#[tokio::test]
async fn a_job_that_waits_is_kept_however_old_it_is() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Patience").await;
    app.set_all(job::Column::CreatedAt, days_ago(400)).await;
    worker::maintenance::cleanup::run_once(&app.db, MONTH).await;
    assert_eq!(ann.get_job(&asked).await["status"], "queued");
    app.run_jobs().await;
}

/// On Postgres the pruning meets the old row, and then the new one.
#[tokio::test]
async fn a_job_that_is_retried_at_this_moment_is_kept_however_old_it_is() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Patience").await;
    ann.cancel(&asked).await.expect(202);
    app.set_all(job::Column::FinishedAt, days_ago(31)).await;

    let job = job::Entity::find().one(app.db.read()).await.unwrap();
    let tx = app.begin().await;
    let origin = RequestOrigin::default();
    let retried = queue::retry(
        &tx,
        &job.unwrap(),
        RetriedBy::Owner,
        JobQuota::Left(1),
        1,
        origin,
    )
    .await;
    retried.expect("it can't be retried");
    let db = app.db.clone();
    let pruned =
        tokio::spawn(async move { worker::maintenance::cleanup::run_once(&db, MONTH).await });
    if app.db.backend() == DbBackend::Postgres {
        app.wait_for_lock_waiters(1).await;
    }
    tx.commit().await.unwrap();
    pruned.await.unwrap();
    app.run_jobs().await;
    assert_eq!(ann.get_job(&asked).await["status"], "succeeded");
}

#[tokio::test]
async fn cleanup_deletes_in_several_batches() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    ann.create_post("One of many").await;
    app.run_jobs().await;
    let model = job::Entity::find().one(app.db.read()).await.unwrap();
    let model = model.unwrap();
    let copies = (0..450).map(|_| {
        let copy = job::Model {
            id: Uuid::now_v7(),
            finished_at: Some(days_ago(40)),
            ..model.clone()
        };
        copy.into_active_model().reset_all()
    });
    let insert = job::Entity::insert_many(copies).exec(app.db.raw_connection());
    insert.await.unwrap();
    worker::maintenance::cleanup::run_once(&app.db, MONTH).await;
    assert_eq!(app.count(job::Entity).await, 1);
    assert_eq!(app.count(post::Entity).await, 1);
}

async fn sessions_left(app: &TestApp) -> u64 {
    api::cleanup::run_once(&app.db, MONTH).await;
    app.count(session::Entity).await
}

#[tokio::test]
async fn a_session_is_deleted_with_its_tokens_a_day_after_its_end() {
    let app = TestApp::new().await;
    let (ended, live) = (app.user("ann").await, app.login("ann").await);
    ended.post_empty("/users/logout").await.expect(204);
    assert_eq!(sessions_left(&app).await, 2);

    session::Entity::update_many()
        .col_expr(session::Column::RevokedAt, Expr::value(days_ago(2)))
        .filter(session::Column::RevokedAt.is_not_null())
        .exec(app.db.raw_connection())
        .await
        .unwrap();
    assert_eq!(sessions_left(&app).await, 1);
    let response = ended.get("/users/me").await;
    response.assert_error(401, "session_revoked");
    live.get("/users/me").await.expect(200);
    assert_eq!(app.count(refresh_token::Entity).await, 1);

    app.set_all(session::Column::ExpiresAt, days_ago(2)).await;
    assert_eq!(sessions_left(&app).await, 0);
}

#[tokio::test]
async fn a_spent_refresh_token_is_deleted_after_its_lifetime() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let pair = app.anonymous().refresh(&ann.refresh_token).await;
    let spent = |days| {
        let spent = refresh_token::Entity::update_many()
            .col_expr(refresh_token::Column::SpentAt, Expr::value(days_ago(days)));
        spent.filter(refresh_token::Column::SpentAt.is_not_null())
    };
    let tokens = async || {
        api::cleanup::run_once(&app.db, MONTH).await;
        app.count(refresh_token::Entity).await
    };
    spent(29).exec(app.db.raw_connection()).await.unwrap();
    assert_eq!(tokens().await, 2);
    spent(31).exec(app.db.raw_connection()).await.unwrap();
    assert_eq!(tokens().await, 1);

    // It is as good as one that never was, and harms the session no longer.
    let again = app.anonymous().refresh(&ann.refresh_token).await;
    again.assert_error(401, "unauthenticated");
    let live = app.client_with_token(&text(&pair.body["access_token"]));
    live.get("/users/me").await.expect(200);
}

#[tokio::test]
async fn a_worker_that_has_been_gone_for_a_day_is_deleted() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    for topic in ["One worker", "Another worker"] {
        ann.create_post(topic).await;
        app.run_jobs().await;
    }
    let (table, old) = match app.db.backend() {
        DbBackend::Postgres => ("apalis.workers", "now() - interval '2 days'"),
        _ => (
            "Workers",
            "CAST(strftime('%s', 'now') AS INTEGER) - 2 * 86400",
        ),
    };
    let count = async || {
        worker::maintenance::cleanup::run_once(&app.db, MONTH).await;
        let count =
            Statement::from_string(app.db.backend(), format!("SELECT COUNT(*) FROM {table}"));
        let row = app.db.read().query_one_raw(count).await.unwrap();
        row.unwrap().try_get_by_index::<i64>(0).unwrap()
    };
    assert_eq!(count().await, 2);
    let all_old = format!("UPDATE {table} SET last_seen = {old}");
    app.execute(&all_old).await;
    assert_eq!(count().await, 0);
}

/// Looks at a clock that shows `time`.
async fn trusts(app: &TestApp, time: Timestamp) -> bool {
    let check = app
        .db
        .transaction(async move |tx| cleanup_clock::Entity::check(tx, time).await);
    check.await.unwrap() == ClockTrust::Trusted
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_is_trusted_after_a_day_and_not_sooner() {
    let app = TestApp::new().await;
    let (today, month) = (now(), TimeDelta::days(30));
    assert!(trusts(&app, today).await);
    assert!(trusts(&app, today + TimeDelta::hours(23)).await);
    assert!(!trusts(&app, today + month).await);
    // Many processes that look, or one that is started again and again, are no day.
    for second in 0..40 {
        assert!(!trusts(&app, today + month + TimeDelta::seconds(second)).await);
    }
    // Nor is one that jumps once more.
    assert!(!trusts(&app, today + month * 3).await);
    let set_right = today + TimeDelta::days(1);
    assert!(trusts(&app, set_right).await);

    let later = set_right + month;
    for minute in 0..24 * 60 {
        assert!(
            !trusts(&app, later + TimeDelta::minutes(minute)).await,
            "{minute}"
        );
    }
    assert!(trusts(&app, later + TimeDelta::days(1)).await);
}

#[tokio::test]
async fn a_clock_that_was_behind_makes_no_jump_of_the_right_time() {
    let app = TestApp::new().await;
    let today = now();
    assert!(trusts(&app, today).await);
    assert!(trusts(&app, chrono::DateTime::UNIX_EPOCH).await);
    assert!(trusts(&app, today).await);
}
