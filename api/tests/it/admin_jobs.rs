//! All users' jobs, as admins see and steer them.

use std::time::{Duration, Instant};

use entity::audit;
use sea_orm::{ActiveEnum, EntityTrait, QueryOrder};
use serde_json::{Value, json};
use shared::queue;
use testing::stub_openai::StubBehavior;
use testing::{TestClient, TestResponse, assert_fields, outcomes, text};

use crate::support::TestApp;

/// The topics on a page.
fn topics(page: &TestResponse) -> Vec<String> {
    page.assert_status(200);
    let items = page.body["items"].as_array().unwrap();
    items.iter().map(|job| text(&job["topic"])).collect()
}

async fn list(admin: &TestClient, query: &str) -> Vec<String> {
    topics(&admin.get(&format!("/admin/jobs?{query}")).await)
}

async fn bulk(admin: &TestClient, action: &str, filter: Value) -> Value {
    let body = json!({ "action": action, "filter": filter });
    admin.post("/admin/jobs/bulk", body).await.expect(200)
}

/// What the trail has, the latest first.
async fn trail(app: &TestApp) -> Vec<(String, Option<String>, Option<String>)> {
    let events = audit::Entity::find().order_by_desc(audit::Column::Id);
    let events = events.all(app.db.read()).await.unwrap();
    let told = |event: audit::Model| (event.action.to_value(), event.actor, event.subject);
    events.into_iter().map(told).collect()
}

fn some(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[tokio::test]
async fn an_admin_sees_all_jobs_with_whose_they_are() {
    let app = TestApp::new().await;
    let (root, ann, bob) = (
        app.admin("root").await,
        app.user("ann").await,
        app.user("bob").await,
    );
    let of_ann = ann.create_post("Tomatoes").await;
    bob.create_post("Onions").await;
    app.run_jobs().await;
    let page = root.get("/admin/jobs").await;
    assert_eq!(topics(&page), ["Onions", "Tomatoes"]);
    assert_eq!(page.body["next_cursor"], Value::Null);
    let id = text(&of_ann["job"]["id"]);
    let job = root.get(&format!("/admin/jobs/{id}")).await.expect(200);
    assert_eq!(job, page.body["items"][1]);
    assert_eq!(
        job["user"],
        json!({ "id": app.id_of("ann").await, "username": "ann" })
    );
    assert_eq!(job["worker"], Value::Null);
    assert_eq!(outcomes(&job), ["succeeded"]);
    assert!(text(&job["request_id"]).len() > 10);
    // All else is as its owner sees it.
    let own = ann.get(&format!("/jobs/{id}")).await.expect(200);
    for (name, value) in own.as_object().unwrap() {
        assert_eq!(&job[name], value, "{name}");
    }
    // And an admin is no owner.
    root.get(&format!("/jobs/{id}")).await.expect(404);
}

#[tokio::test]
async fn jobs_are_found_by_each_filter_and_by_all_together() {
    let app = TestApp::new().await;
    let (root, ann, bob) = (
        app.admin("root").await,
        app.user("ann").await,
        app.user("Bob").await,
    );
    ann.create_post("Red tomatoes").await;
    let body = json!({ "topic": "Green Tomatoes", "options": { "model": "stub-small" } });
    ann.post("/blogs", body).await.expect(202);
    app.run_jobs().await;
    app.agent.set(StubBehavior::Fail(401, "invalid_api_key"));
    bob.create_post("Red onions").await;
    app.run_jobs().await;
    let canceled = ann.create_post("Leeks").await;
    ann.cancel(&canceled).await;

    let (ann, bob) = (app.id_of("ann").await, app.id_of("Bob").await);
    let all = ["Leeks", "Red onions", "Green Tomatoes", "Red tomatoes"];
    let time = |page: &TestResponse, n: usize| text(&page.body["items"][n]["created_at"]);
    let page = root.get("/admin/jobs").await;
    let (newest, oldest) = (time(&page, 0), time(&page, 3));
    for (query, expected) in [
        (String::new(), all.as_slice()),
        (
            format!("user_id={ann}"),
            &["Leeks", "Green Tomatoes", "Red tomatoes"],
        ),
        (
            "status=succeeded".to_owned(),
            &["Green Tomatoes", "Red tomatoes"],
        ),
        ("status=running".to_owned(), &[]),
        ("error_code=agent_rejected".to_owned(), &["Red onions"]),
        ("model=stub-small".to_owned(), &["Green Tomatoes"]),
        ("q=TOMATO".to_owned(), &["Green Tomatoes", "Red tomatoes"]),
        ("q=bob".to_owned(), &["Red onions"]),
        ("q=100%25".to_owned(), &[]),
        (format!("created_after={oldest}"), &all),
        (format!("created_before={oldest}"), &[]),
        (format!("created_after={newest}"), &["Leeks"]),
        (format!("created_before={newest}"), &all[1..]),
        (
            format!("user_id={ann}&status=succeeded&model=stub-large&q=red&created_after={oldest}"),
            &["Red tomatoes"],
        ),
        (
            format!("user_id={bob}&status=failed&error_code=agent_rejected"),
            &["Red onions"],
        ),
        (format!("user_id={bob}&status=succeeded"), &[]),
    ] {
        assert_eq!(list(&root, &query).await, expected, "{query}");
    }
    for bad in [
        "status=lost",
        "user_id=7",
        "created_after=today",
        "color=red",
        "limit=x",
    ] {
        let answer = root.get(&format!("/admin/jobs?{bad}")).await;
        answer.assert_error(400, "malformed_query");
    }
}

#[tokio::test]
async fn a_filter_that_nothing_can_match_is_refused_or_matches_nothing() {
    let app = TestApp::new().await;
    let (root, ann) = (app.admin("root").await, app.user("ann").await);
    ann.create_post("Onions").await;
    let long = "x".repeat(201);
    for query in [
        "model=a%00b".to_owned(),
        "error_code=a%00b".to_owned(),
        format!("model={long}"),
        format!("error_code={long}"),
    ] {
        let answer = root.get(&format!("/admin/jobs?{query}")).await;
        answer.assert_error(422, "validation_failed");
    }
    for (time, found) in [
        ("created_after=-262143-01-01T00:00:00Z", 1),
        ("created_before=-262143-01-01T00:00:00Z", 0),
        ("created_after=%2B262142-12-31T23:59:59Z", 0),
        ("created_before=%2B262142-12-31T23:59:59Z", 1),
    ] {
        assert_eq!(list(&root, time).await.len(), found, "{time}");
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn a_filtered_list_is_paged_too() {
    let mut app = TestApp::new().await;
    app.allow_unfinished_jobs();
    let (root, ann) = (app.admin("root").await, app.user("ann").await);
    for topic in ["One apple", "Two pears", "Three apples", "Four apples"] {
        ann.create_post(topic).await;
    }
    let query = "status=queued&q=apple&limit=2";
    let first = root.get(&format!("/admin/jobs?{query}")).await;
    assert_eq!(topics(&first), ["Four apples", "Three apples"]);
    let next = text(&first.body["next_cursor"]);
    let second = root
        .get(&format!("/admin/jobs?{query}&cursor={next}"))
        .await;
    assert_eq!(topics(&second), ["One apple"]);
    assert_eq!(second.body["next_cursor"], Value::Null);
}

#[tokio::test]
async fn an_admin_cancels_and_retries_jobs_of_others_and_that_is_audited() {
    let app = TestApp::new().await;
    let (root, ann) = (app.admin("root").await, app.user("ann").await);
    let asked = ann.create_post("Tomatoes").await;
    let path = format!("/admin/jobs/{}", text(&asked["job"]["id"]));
    let canceled = root.post(&format!("{path}/cancel"), json!({})).await;
    canceled.assert_fields(202, json!({ "status": "canceled" }));
    let again = root.post(&format!("{path}/cancel"), json!({})).await;
    again.assert_error(409, "job_finished");
    let retried = root.post(&format!("{path}/retry"), json!({})).await;
    retried.assert_fields(202, json!({ "status": "queued" }));
    let again = root.post(&format!("{path}/retry"), json!({})).await;
    again.assert_error(409, "generation_in_progress");
    app.run_jobs().await;
    assert_eq!(root.get(&path).await.expect(200)["status"], "succeeded");
    let again = root.post(&format!("{path}/retry"), json!({})).await;
    again.assert_error(409, "job_finished");
    for step in ["cancel", "retry"] {
        let path = format!("/admin/jobs/{}/{step}", uuid::Uuid::now_v7());
        root.post(&path, json!({})).await.expect(404);
    }
    let [retried, canceled] = trail(&app)
        .await
        .try_into()
        .map(|[retried, canceled, _]: [_; 3]| [retried, canceled])
        .unwrap();
    assert_eq!(
        canceled,
        ("job_canceled".to_owned(), some("root"), some("ann"))
    );
    assert_eq!(
        retried,
        ("job_retried".to_owned(), some("root"), some("ann"))
    );
}

#[tokio::test]
async fn a_job_that_runs_is_canceled_by_an_admin_within_moments() {
    let app = TestApp::new().await;
    let (root, ann) = (app.admin("root").await, app.user("ann").await);
    app.agent.set(StubBehavior::Hang);
    let asked = ann.create_post("Tomatoes").await;
    let worker = app.worker().await;
    ann.wait_for_status(&asked, "running").await;
    let path = format!("/admin/jobs/{}", text(&asked["job"]["id"]));
    let running = root.get(&path).await.expect(200);
    assert_eq!(running["worker"], running["attempts"][0]["worker"]);
    let canceling = root.post(&format!("{path}/cancel"), json!({})).await;
    canceling.assert_fields(202, json!({ "status": "canceling" }));
    ann.wait_for_status(&asked, "canceled").await;
    worker.stop().await;
}

#[tokio::test]
async fn a_job_of_a_disabled_user_is_not_retried() {
    let app = TestApp::new().await;
    let (root, ann) = (app.admin("root").await, app.user("ann").await);
    let asked = ann.create_post("Tomatoes").await;
    app.update_user(&root, "ann", json!({ "disabled": true }))
        .await;
    let path = format!("/admin/jobs/{}/retry", text(&asked["job"]["id"]));
    let refused = root.post(&path, json!({})).await;
    refused.assert_error(409, "job_finished");
    let detail = text(&refused.body["detail"]);
    assert!(detail.contains("Enable that user"), "{detail}");
    let outcome = bulk(&root, "retry", json!({ "status": "canceled" })).await;
    assert_fields(
        &outcome,
        json!({ "matched": 1, "changed": 0, "more": false }),
    );
}

#[tokio::test]
async fn all_jobs_that_a_filter_matches_are_canceled_and_no_others() {
    let app = TestApp::new().await;
    let (root, ann, bob) = (
        app.admin("root").await,
        app.user("ann").await,
        app.user("bob").await,
    );
    for number in 0..60 {
        ann.create_post(&format!("Tomatoes {number}")).await;
    }
    ann.create_post("Onions").await;
    bob.create_post("Tomatoes, too").await;
    let filter = json!({ "user_id": app.id_of("ann").await, "q": "tomatoes" });
    let events = trail(&app).await.len();
    for (action, changed) in [("cancel", 60), ("retry", 0)] {
        let body = json!({ "action": action, "filter": filter, "dry_run": true });
        let outcome = root.post("/admin/jobs/bulk", body).await.expect(200);
        let would = json!({ "matched": 60, "changed": changed, "more": false });
        assert_fields(&outcome, would);
    }
    assert_eq!(list(&root, "status=queued").await.len(), 20);
    assert_eq!(trail(&app).await.len(), events);
    let outcome = bulk(&root, "cancel", filter.clone()).await;
    assert_fields(
        &outcome,
        json!({ "matched": 60, "changed": 60, "more": false }),
    );
    let outcome = bulk(&root, "cancel", filter.clone()).await;
    assert_fields(
        &outcome,
        json!({ "matched": 60, "changed": 0, "more": false }),
    );
    assert_eq!(
        list(&root, "status=queued").await,
        ["Tomatoes, too", "Onions"]
    );
    let (action, actor, subject) = trail(&app).await.swap_remove(0);
    assert_eq!(
        (action.as_str(), actor, subject),
        ("jobs_bulk_changed", some("root"), None)
    );

    // What was canceled is tried again.
    let outcome = bulk(&root, "retry", filter).await;
    assert_fields(
        &outcome,
        json!({ "matched": 60, "changed": 60, "more": false }),
    );
    let queued = queue::status_counts(app.db.read(), 100)
        .await
        .unwrap()
        .queued;
    assert_eq!(queued, 62);
    bulk(&root, "cancel", json!({})).await;
}

#[tokio::test]
async fn a_bulk_retry_of_a_thousand_jobs_goes_beyond_their_owners_quota() {
    let mut app = TestApp::new().await;
    app.allow_unfinished_jobs();
    let (root, ann) = (app.admin("root").await, app.user("ann").await);
    let asked = ann.create_post("Tomatoes").await;
    ann.cancel(&asked).await;
    for sql in [
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 999) INSERT INTO blog_posts (id, user_id, topic, title, content, excerpt, word_count, status, version, created_at, updated_at) SELECT ID, user_id, topic, title, content, excerpt, word_count, 'failed', version, created_at, updated_at FROM blog_posts, n",
        "INSERT INTO generation_jobs (id, post_id, user_id, status, percent, words, options, model, attempt, max_attempts, turn, input_tokens, output_tokens, created_at, finished_at, error_code, error_message, error_retryable) SELECT post.id, post.id, job.user_id, 'failed', 0, 0, job.options, job.model, 5, 5, 0, 0, 0, job.created_at, job.finished_at, 'agent_unavailable', 'It is away.', true FROM blog_posts post JOIN generation_jobs job ON job.post_id <> post.id",
    ] {
        let id = match app.db.backend() {
            sea_orm::DbBackend::Postgres => "gen_random_uuid()",
            _ => "randomblob(16)",
        };
        let sql = sql.replace("ID", id);
        app.execute(&sql).await;
    }
    let begun = Instant::now();
    let outcome = bulk(&root, "retry", json!({ "status": "failed" })).await;
    assert_fields(
        &outcome,
        json!({ "matched": 999, "changed": 999, "more": false }),
    );
    assert!(begun.elapsed() < Duration::from_secs(60));
    let depth = queue::depth(app.db.read(), 2000).await.unwrap();
    assert_eq!(depth.queued, 999);
    assert_eq!(app.count_deliveries().await, 999);
}

#[tokio::test]
async fn an_invalid_bulk_request_changes_nothing() {
    let app = TestApp::new().await;
    let (root, ann) = (app.admin("root").await, app.user("ann").await);
    ann.create_post("Tomatoes").await;
    let before = app.count(audit::Entity).await;
    for (body, field) in [
        (json!({ "filter": {} }), "action"),
        (json!({ "action": "delete", "filter": {} }), "action"),
        (json!({ "action": "cancel" }), "filter"),
        (json!({ "action": "cancel", "filter": null }), "filter"),
        (
            json!({ "action": "cancel", "filter": { "color": "red" } }),
            "filter.color",
        ),
        (
            json!({ "action": "cancel", "filter": { "status": "lost" } }),
            "filter.status",
        ),
        (
            json!({ "action": "cancel", "filter": { "q": "x".repeat(201) } }),
            "filter.q",
        ),
    ] {
        let answer = root.post("/admin/jobs/bulk", body).await;
        answer.assert_error(422, "validation_failed");
        assert_eq!(answer.body["errors"][0]["field"], field);
    }
    assert_eq!(list(&root, "status=queued").await, ["Tomatoes"]);
    let events = app.count(audit::Entity).await;
    assert_eq!(events, before);
    app.run_jobs().await;
}
