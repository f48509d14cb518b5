//! The audit trail.

use chrono::TimeDelta;
use entity::audit;
use entity::clock::now;
use reqwest::Method;
use serde_json::{Value, json};
use testing::{PASSWORD, TestClient, text};

use crate::support::TestApp;

const WRONG: &str = "not the password";

/// The trail, the latest first.
async fn trail(admin: &TestClient) -> Vec<Value> {
    admin.get("/admin/audit?limit=100").await.items()
}

/// What was done, by whom and to whom, the latest first.
fn told(events: &[Value]) -> Vec<String> {
    let name = |who: &Value| match who {
        Value::Null => "-".to_owned(),
        who => text(&who["username"]),
    };
    let told = |event: &Value| {
        let [actor, subject] = ["actor", "subject"].map(|role| name(&event[role]));
        format!("{} {actor} {subject}", text(&event["action"]))
    };
    events.iter().map(told).collect()
}

#[tokio::test]
async fn changes_of_accounts_and_roles_are_audited() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.admin("ann").await, app.user("bob").await);
    app.anonymous().login("bob", WRONG).await;
    app.anonymous().login("nobody", WRONG).await;
    bob.change_password(WRONG, "another horse").await;
    let changed = bob.change_password(PASSWORD, "another horse").await;
    changed.assert_status(204);
    app.update_user(&ann, "bob", json!({ "role": "admin" }))
        .await;
    app.update_user(&ann, "bob", json!({ "disabled": true }))
        .await;
    app.anonymous().login("bob", "another horse").await;
    app.update_user(&ann, "bob", json!({ "disabled": false, "role": "user" }))
        .await;
    let cay = app.user("cay").await;
    cay.delete_account(PASSWORD).await.expect(204);

    let events = trail(&ann).await;
    let expected = [
        "account_deleted cay cay",
        "user_enabled ann bob",
        "role_changed ann bob",
        "login_failed - bob",
        "user_disabled ann bob",
        "role_changed ann bob",
        "password_changed bob bob",
        "login_failed bob bob",
        "login_failed - -",
        "login_failed - bob",
        "role_changed - ann",
    ];
    assert_eq!(told(&events), expected);
    assert_eq!(
        events[5]["details"],
        json!({ "from": "user", "to": "admin" })
    );
    for event in &events[..10] {
        assert_eq!(event["address"], "127.0.0.1");
        assert!(text(&event["request_id"]).len() > 20);
        assert!(text(&event["at"]).ends_with('Z'));
    }
    // Nobody reads a password or a token there.
    let all = json!(events).to_string();
    for secret in [PASSWORD, WRONG, "another horse", &ann.token, &bob.token] {
        assert!(!all.contains(secret), "{all}");
    }
}

#[tokio::test]
async fn an_audit_event_has_the_id_of_its_request() {
    let app = TestApp::new().await;
    let ann = app.admin("ann").await;
    app.user("bob").await;
    let path = format!("/admin/users/{}", app.id_of("bob").await);
    let change = ann.request(Method::PATCH, &path);
    let change = change.header("x-request-id", "a-ticket-of-ours");
    let answer = ann.send(change.json(&json!({ "disabled": true }))).await;
    answer.assert_status(200);
    assert_eq!(trail(&ann).await[0]["request_id"], "a-ticket-of-ours");
}

#[tokio::test]
async fn a_refused_change_is_not_audited() {
    let app = TestApp::new().await;
    let ann = app.admin("ann").await;
    let path = format!("/admin/users/{}", app.id_of("ann").await);
    let answer = ann.patch(&path, json!({ "role": "user" })).await;
    answer.assert_error(409, "last_admin");
    assert_eq!(told(&trail(&ann).await), ["role_changed - ann"]);
}

#[tokio::test]
async fn a_reused_refresh_token_is_audited_once() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.admin("ann").await, app.user("bob").await);
    for status in [200, 401, 401] {
        let answer = app.anonymous().refresh(&bob.refresh_token).await;
        answer.assert_status(status);
    }
    let events = trail(&ann).await;
    let expected = ["refresh_token_reused - bob", "role_changed - ann"];
    assert_eq!(told(&events), expected);
}

#[tokio::test]
async fn audit_events_outlive_their_users() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.admin("ann").await, app.admin("bob").await);
    app.update_user(&bob, "ann", json!({ "role": "user" }))
        .await;
    app.update_user(&bob, "ann", json!({ "role": "admin" }))
        .await;
    bob.delete_account(PASSWORD).await.expect(204);
    let expected = [
        "account_deleted bob bob",
        "role_changed bob ann",
        "role_changed bob ann",
        "role_changed - bob",
        "role_changed - ann",
    ];
    assert_eq!(told(&trail(&ann).await), expected);
}

#[tokio::test]
async fn the_audit_trail_is_paged_and_read_only() {
    let app = TestApp::new().await;
    let ann = app.admin("ann").await;
    app.user("bob").await;
    for disabled in [true, false, true, false] {
        app.update_user(&ann, "bob", json!({ "disabled": disabled }))
            .await;
    }
    let all = trail(&ann).await;
    assert_eq!(ann.list_all("/admin/audit?limit=2").await, all);
    assert_eq!(all.len(), 5);

    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let answer = ann.send(ann.request(method, "/admin/audit")).await;
        answer.assert_status(405);
    }
    let path = format!("/admin/audit/{}", text(&all[0]["id"]));
    ann.delete(&path).await.expect(404);
    assert_eq!(trail(&ann).await, all);
}

#[tokio::test]
async fn audit_events_are_deleted_after_400_days() {
    let app = TestApp::new().await;
    let ann = app.admin("ann").await;
    let aged = async |days| {
        let at = now() - TimeDelta::days(days);
        app.set_all(audit::Column::At, at).await;
        api::cleanup::run_once(&app.db, std::time::Duration::from_secs(3600)).await;
        app.count(audit::Entity).await
    };
    assert_eq!(aged(399).await, 1);
    assert_eq!(trail(&ann).await.len(), 1);
    assert_eq!(aged(401).await, 0);
}
