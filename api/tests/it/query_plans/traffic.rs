//! Requests to every route, each list with each of its filters, and jobs that end in
//! all ways.

use reqwest::Method;
use serde_json::{Value, json};
use testing::stub_openai::StubBehavior;
use testing::{PASSWORD, TestClient, at_first, job_path, post_path, text};

use crate::support::{SHORT_LEASE, TestApp, documented_routes};

/// Signing up, in and out, and what goes wrong with it.
pub(super) async fn use_accounts(app: &TestApp) {
    let (ann, lost) = (app.user("ann").await, app.login("ann").await);
    let (ended, elsewhere) = (app.login("ann").await, app.login("ann").await);
    let pair = ann.refresh(&ann.refresh_token).await.expect(200);
    let ann = ann.with_session(&pair);
    lost.refresh(&lost.refresh_token).await.expect(200);
    lost.refresh(&lost.refresh_token).await.expect(401);
    ann.get("/users/me").await.expect(200);
    let key = json!({ "name": "deploy", "scopes": ["read"] });
    let key = ann.post("/users/me/keys", key).await.expect(201);
    let program = ann.with_token(&text(&key["key"]));
    program.get("/blogs").await.expect(200);
    ann.get("/users/me/keys").await.expect(200);
    let key = format!("/users/me/keys/{}", text(&key["id"]));
    ann.delete(&key).await.expect(204);
    let sessions = ended.get("/users/me/sessions").await.items();
    let own = sessions.iter().find(|session| session["current"] == true);
    let own = format!("/users/me/sessions/{}", text(&own.unwrap()["id"]));
    ann.delete(&own).await.expect(204);
    for (name, password) in [("ann", "a guess"), ("ann", PASSWORD), ("nobody", PASSWORD)] {
        app.client_from_ip(2).login(name, password).await;
    }
    ann.change_password("a guess", PASSWORD).await.expect(401);
    let changed = ann.change_password(PASSWORD, "another horse").await;
    changed.assert_status(204);
    elsewhere.get("/users/me").await.expect(401);
    ann.delete("/users/me/sessions").await.expect(204);
    ann.post_empty("/users/logout").await.expect(204);
    app.anonymous().register("ann", PASSWORD).await.expect(409);
    let bob = app.user("bob").await;
    bob.create_post("Growing tomatoes").await;
    bob.delete_account(PASSWORD).await.expect(204);
}

/// Posts, and most ways in which their jobs end.
pub(super) async fn write_posts(app: &TestApp, ann: &TestClient, bob: &TestClient) {
    // Of each user two: of the deliveries that wake the worker some are not those of
    // the jobs that are next.
    let mut posts = Vec::new();
    for user in [ann, ann, bob, bob] {
        posts.push((user, user.create_post("Growing tomatoes").await));
    }
    let settings = ["--job-lease-secs=3", "--shutdown-grace-secs=0"];
    let worker = app.worker_with(&settings).await;
    for (user, post) in &posts {
        user.wait_for_status(post, "succeeded").await;
    }
    let keyed = |path: &str, key: &str| {
        let request = ann.request(Method::POST, path);
        request.header("idempotency-key", key)
    };
    let create = |key: &str| keyed("/blogs", key).json(&json!({ "topic": "Growing basil" }));
    let post = ann.send(create("k1")).await.expect(202);
    ann.send(create("k1")).await.expect(202);
    ann.wait_for_status(&post, "succeeded").await;
    let waits = create("k2").header("prefer", "wait=30");
    ann.send(waits).await.expect(201);

    app.agent
        .set(at_first(1, 0, StubBehavior::Fail(503, "server_error")));
    let path = format!("{}/regenerate", post_path(&post));
    let again = ann.send(keyed(&path, "k3")).await.expect(202);
    ann.wait_for_status(&again, "succeeded").await;
    app.agent.set(StubBehavior::Fail(401, "invalid_api_key"));
    for topic in ["Growing onions", "Growing leeks"] {
        let failed = ann.create_post(topic).await;
        ann.wait_for_status(&failed, "failed").await;
        let path = format!("{}/retry", job_path(&failed));
        let key = topic.replace(' ', "-");
        ann.send(keyed(&path, &key)).await.expect(202);
        ann.wait_for_status(&failed, "failed").await;
    }

    app.agent.set(StubBehavior::Write);
    let body = json!({ "topic": "Growing cress", "outline": "review" });
    let reviewed = ann.post("/blogs", body).await.expect(202);
    ann.wait_for_status(&reviewed, "awaiting_review").await;
    let outline = format!("{}/outline", post_path(&reviewed));
    ann.get(&outline).await.expect(200);
    let change = json!({ "title": "Cress", "sections": [{ "heading": "First Things" }] });
    ann.put(&outline, change).await.expect(200);
    let approve = format!("{outline}/approve");
    ann.post_empty(&approve).await.expect(202);
    ann.wait_for_status(&reviewed, "succeeded").await;
    let sections = format!("{}/sections", post_path(&reviewed));
    ann.get(&sections).await.expect(200);
    app.agent.set(StubBehavior::WriteText("Once more."));
    let section = format!("{sections}/0/regenerate");
    let again = ann.post(&section, json!({})).await.expect(202);
    ann.wait_for_status(&again, "succeeded").await;

    app.agent.set(StubBehavior::Write);
    let source = json!({ "title": "Cress", "text": "Cress wants water each day." });
    let body = json!({ "topic": "Growing cress", "sources": [source] });
    let sourced = ann.post("/blogs", body).await.expect(202);
    ann.wait_for_status(&sourced, "succeeded").await;
    ann.get_post(&sourced).await;
    let source = format!("{}/sources/1", post_path(&sourced));
    ann.get(&source).await.expect(200);

    app.agent.set(StubBehavior::Hang);
    let canceled = ann.create_post("Growing cress").await;
    ann.wait_for_status(&canceled, "running").await;
    let keep = format!("{}/cancel?keep=true", job_path(&canceled));
    ann.post_empty(&keep).await.expect(202);
    ann.wait_for_status(&canceled, "canceled").await;
    let released = ann.create_post("Growing beans").await;
    ann.wait_for_status(&released, "running").await;
    worker.stop().await;
    // It is lost by the next worker, and rescued by another.
    let lost = app.worker_with(SHORT_LEASE).await;
    ann.wait_for_status(&released, "running").await;
    lost.abort();
    app.agent.set(StubBehavior::Write);
    let heir = app.worker_with(SHORT_LEASE).await;
    ann.wait_for_status(&released, "succeeded").await;
    heir.stop().await;
}

/// A job whose delivery has been lost.
pub(super) async fn redeliver(app: &TestApp, ann: &TestClient, post: &Value) {
    let worker = app.worker_with(SHORT_LEASE).await;
    ann.wait_for_status(post, "succeeded").await;
    worker.stop().await;
}

/// The first pages of a list.
async fn two_pages(client: &TestClient, path: &str) {
    let first = client.get(path).await.expect(200);
    if let Some(cursor) = first["next_cursor"].as_str() {
        let second = format!("{path}&cursor={cursor}");
        client.get(&second).await.expect(200);
    }
}

/// Posts that are read, changed and deleted, and all lists of them.
pub(super) async fn use_posts(ann: &TestClient) {
    ann.get("/models").await.expect(200);
    for sort in ["-created_at", "created_at", "-updated_at", "updated_at"] {
        for status in ["", "&status=ready", "&status=failed", "&status=canceled"] {
            for search in ["", "&q=growing"] {
                let list = format!("/blogs?limit=1&sort={sort}{status}{search}");
                two_pages(ann, &list).await;
            }
        }
    }
    two_pages(ann, "/jobs?limit=1").await;
    for status in JOB_STATUSES {
        two_pages(ann, &format!("/jobs?limit=1&status={status}")).await;
    }
    let post = ann.get("/blogs?status=ready").await.items().remove(0);
    let events = format!("{}/events?after=0", job_path(&ann.get_post(&post).await));
    let events = ann.request(Method::GET, &events);
    let events = events.header("accept", "application/json");
    ann.send(events).await.expect(200);
    let status = format!("{}/status", post_path(&post));
    ann.get(&status).await.expect(200);
    let path = post_path(&post);
    ann.put(&path, json!({ "content": "Mine." }))
        .await
        .expect(200);
    let patch = json!({ "title": "Mine", "topic": "Growing mint" });
    ann.patch(&path, patch).await.expect(200);
    two_pages(ann, &format!("{path}/revisions?limit=1")).await;
    let revisions = ann.get(&format!("{path}/revisions")).await.items();
    let (last, first) = (&revisions[0]["version"], &revisions[1]["version"]);
    for (method, what) in [
        (Method::GET, format!("{first}")),
        (Method::GET, format!("{first}/diff/{last}")),
        (Method::POST, format!("{first}/restore")),
    ] {
        let request = ann.request(method, &format!("{path}/revisions/{what}"));
        ann.send(request).await.assert_status(200);
    }
    let queued = ann.create_post("Growing beans").await;
    let waits = format!("{}?wait=1", job_path(&queued));
    ann.get(&waits).await.expect(200);
    for post in [&post, &queued] {
        ann.delete(&post_path(post)).await.expect(200);
    }
}

const JOB_STATUSES: [&str; 7] = [
    "queued",
    "running",
    "awaiting_review",
    "canceling",
    "succeeded",
    "failed",
    "canceled",
];

/// All that admins do.
pub(super) async fn administer(app: &TestApp, ann: &TestClient) {
    let (root, cay) = (app.admin("root").await, app.user("cay").await);
    let id = app.id_of(&ann.name).await;
    let mut filters: Vec<String> = JOB_STATUSES
        .iter()
        .map(|status| format!("&status={status}"))
        .collect();
    filters.push(String::new());
    filters.push(format!("&user_id={id}"));
    filters.push("&error_code=agent_rejected".to_owned());
    filters.push("&model=stub-large".to_owned());
    let mut lists = vec!["/admin/users?limit=1".to_owned()];
    lists.push("/admin/users?limit=1&q=an".to_owned());
    lists.push("/admin/audit?limit=1".to_owned());
    lists.push("/admin/jobs?limit=1&created_before=2040-01-01T00:00:00Z".to_owned());
    for filter in &filters {
        for search in ["", "&q=growing", "&created_after=2020-01-01T00:00:00Z"] {
            lists.push(format!("/admin/jobs?limit=1{filter}{search}"));
        }
    }
    for list in &lists {
        two_pages(&root, list).await;
    }
    for path in ["/admin/queue", "/admin/queue/history", "/admin/workers"] {
        root.get(path).await.expect(200);
    }
    for switch in ["/admin/queue/pause", "/admin/queue/resume"] {
        root.post_empty(switch).await.expect(200);
    }
    let queued = cay.create_post("Growing tomatoes").await;
    let job = format!("/admin{}", job_path(&queued));
    root.get(&job).await.expect(200);
    root.post_empty(&format!("{job}/cancel")).await.expect(202);
    root.post_empty(&format!("{job}/retry")).await.expect(202);
    ann.create_post("Growing tomatoes").await;
    for action in ["cancel", "retry", "cancel", "cancel"] {
        let body = json!({ "action": action, "filter": { "user_id": id } });
        root.post("/admin/jobs/bulk", body).await.expect(200);
    }
    // And one who has nothing that could be canceled.
    app.user("dan").await;
    for name in ["cay", "dan"] {
        let change = json!({ "role": "admin", "disabled": false });
        app.update_user(&root, name, change).await;
        let change = json!({ "disabled": true });
        app.update_user(&root, name, change).await;
    }
    for path in ["//health", "//ready", "//metrics"] {
        root.get(path).await.assert_status(200);
    }
}

/// Asserts that every route of the document has been used with success.
pub(super) async fn assert_all_routes_used(app: &TestApp) {
    let scrape = app.anonymous().get("//metrics").await.text;
    for route in documented_routes(app).await {
        let (method, path) = (&route.method, &route.path);
        let used = format!("{{method=\"{method}\",route=\"{path}\",status=\"2");
        assert!(scrape.contains(&used), "nobody has used {method} {path}");
    }
}
