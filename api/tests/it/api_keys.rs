//! API keys: what they are good for, and what not.

use entity::api_key;
use sea_orm::EntityTrait;
use serde_json::{Value, json};
use testing::{EventReader, TestClient, post_path, text};

use crate::support::TestApp;

/// A new key with these scopes, and a client that uses it.
async fn key(owner: &TestClient, scopes: &[&str]) -> (Value, TestClient) {
    let body = json!({ "name": "deploy", "scopes": scopes });
    let created = owner.post("/users/me/keys", body).await.expect(201);
    let client = owner.with_token(&text(&created["key"]));
    (created, client)
}

#[tokio::test]
async fn a_key_is_shown_once_and_stored_as_a_hash() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let (created, _) = key(&ann, &["write", "read"]).await;
    let secret = text(&created["key"]);
    assert!(secret.starts_with("bpk_") && secret.len() == 68, "{secret}");
    let listed = ann.get("/users/me/keys").await.expect(200);
    let expected = json!({
        "id": created["id"],
        "name": "deploy",
        "prefix": secret[..12],
        "scopes": ["read", "write"],
        "created_at": created["created_at"],
        "last_used_at": null,
        "expires_at": null,
    });
    assert_eq!(listed, json!({ "items": [expected] }));
    let rows = api_key::Entity::find().all(app.db.read()).await.unwrap();
    assert!(!format!("{rows:?}").contains(&secret[12..]));
    let bob = app.user("bob").await;
    assert_eq!(
        bob.get("/users/me/keys").await.expect(200),
        json!({ "items": [] })
    );
}

#[tokio::test]
async fn a_key_is_good_for_what_its_scopes_cover() {
    let mut app = TestApp::new().await;
    app.allow_unfinished_jobs();
    let ann = app.admin("ann").await;
    let post = ann.create_post("Tomatoes").await;
    let topic = json!({ "topic": "Onions" });
    for (scopes, reads, writes, administers) in [
        (&["read"][..], 200, 403, 403),
        (&["write"][..], 403, 202, 403),
        (&["read", "write"][..], 200, 202, 403),
        (&["admin"][..], 403, 403, 200),
    ] {
        let (_, program) = key(&ann, scopes).await;
        let read = program.get(&post_path(&post)).await;
        let write = program.post("/blogs", topic.clone()).await;
        let admin = program.get("/admin/queue").await;
        for (answer, status) in [(read, reads), (write, writes), (admin, administers)] {
            match status {
                403 => answer.assert_error(403, "insufficient_scope"),
                status => answer.assert_status(status),
            }
        }
    }
}

#[tokio::test]
async fn no_key_is_good_for_accounts_sessions_and_keys() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let (created, program) = key(&ann, &["read", "write", "admin"]).await;
    let body = json!({ "name": "another", "scopes": ["read"] });
    let password = json!({ "password": testing::PASSWORD });
    let delete_me = program
        .request(reqwest::Method::DELETE, "/users/me")
        .json(&password);
    let own = format!("/users/me/keys/{}", text(&created["id"]));
    for refused in [
        program.get("/users/me").await,
        program.send(delete_me).await,
        program.get("/users/me/sessions").await,
        program.delete("/users/me/sessions").await,
        program.get("/users/me/keys").await,
        program.post("/users/me/keys", body).await,
        program.delete(&own).await,
        program.post("/users/logout", json!({})).await,
        program
            .change_password(testing::PASSWORD, "another horse battery")
            .await,
    ] {
        refused.assert_error(403, "insufficient_scope");
    }
    // An admin's scope makes nobody an admin.
    program
        .get("/admin/queue")
        .await
        .assert_error(403, "forbidden");
}

#[tokio::test]
async fn a_key_ends_when_it_is_revoked_when_it_expires_and_with_its_user() {
    let mut app = TestApp::new().await;
    app.allow_unfinished_jobs();
    let (root, ann, bob) = (
        app.admin("root").await,
        app.user("ann").await,
        app.user("bob").await,
    );
    let post = ann.create_post("Tomatoes").await;
    let (created, program) = key(&ann, &["read"]).await;
    program.get(&post_path(&post)).await.assert_status(200);
    let mut reader = EventReader::of(&program, &post);
    assert_eq!(reader.connect().await, 200);
    let path = format!("/users/me/keys/{}", text(&created["id"]));
    bob.delete(&path).await.assert_status(404);
    ann.delete(&path).await.assert_status(204);
    ann.delete(&path).await.assert_status(404);
    program.get(&post_path(&post)).await.assert_status(401);
    while reader.next().await.is_some() {}

    let body = json!({ "name": "brief", "scopes": ["read"], "expires_at": "2100-01-01T00:00:00Z" });
    let created = ann.post("/users/me/keys", body).await.expect(201);
    assert_eq!(created["expires_at"], "2100-01-01T00:00:00.000Z");
    let brief = ann.with_token(&text(&created["key"]));
    brief.get("/blogs").await.assert_status(200);
    app.execute("UPDATE api_keys SET expires_at = '2020-01-01T00:00:00+00:00'")
        .await;
    brief.get("/blogs").await.assert_status(401);

    let (_, program) = key(&ann, &["read"]).await;
    app.update_user(&root, "ann", json!({ "disabled": true }))
        .await;
    program.get("/blogs").await.assert_status(403);
}

#[tokio::test]
async fn the_last_use_of_a_key_is_known() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let (_, program) = key(&ann, &["read"]).await;
    let mut changes = shared::change_watcher::ChangeWatcher::watch(&app.db);
    program.get("/blogs").await.assert_status(200);
    let used = async {
        loop {
            let keys = ann.get("/users/me/keys").await.items();
            if keys[0]["last_used_at"].is_string() {
                return;
            }
            changes.changed().await;
        }
    };
    tokio::time::timeout(testing::TIMEOUT, used).await.unwrap();
}

#[tokio::test]
async fn making_and_revoking_a_key_is_in_the_audit_trail() {
    let app = TestApp::new().await;
    let (root, ann) = (app.admin("root").await, app.user("ann").await);
    let (created, _) = key(&ann, &["read"]).await;
    ann.delete(&format!("/users/me/keys/{}", text(&created["id"])))
        .await
        .assert_status(204);
    let events = root.get("/admin/audit").await.items();
    let told: Vec<_> = events
        .iter()
        .filter(|event| event["details"]["key_id"] == created["id"])
        .map(|event| text(&event["action"]))
        .collect();
    assert_eq!(told, ["api_key_revoked", "api_key_created"]);
}

#[tokio::test]
async fn invented_keys_are_refused_and_bad_requests_for_keys_make_none() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    for invented in ["bpk_", "bpk_x", &format!("bpk_{}", "A".repeat(64))] {
        app.client_with_token(invented)
            .get("/blogs")
            .await
            .assert_status(401);
    }
    for (body, faults) in [
        (json!({}), vec!["name: required", "scopes: required"]),
        (
            json!({ "name": " ", "scopes": [] }),
            vec!["name: too_short", "scopes: too_short"],
        ),
        (
            json!({ "name": "x", "scopes": ["read", "read", "read", "read"] }),
            vec!["scopes: too_long"],
        ),
        (
            json!({ "name": "x", "scopes": ["all"] }),
            vec!["scopes: invalid_type"],
        ),
        (
            json!({ "name": "x", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z" }),
            vec!["expires_at: out_of_range"],
        ),
    ] {
        ann.post("/users/me/keys", body)
            .await
            .assert_field_errors(&faults);
    }
    for _ in 0..100 {
        key(&ann, &["read"]).await;
    }
    let one_more = json!({ "name": "x", "scopes": ["read"] });
    ann.post("/users/me/keys", one_more)
        .await
        .assert_error(409, "too_many_keys");
}

#[tokio::test]
async fn requests_with_keys_count_for_their_user() {
    let app = TestApp::with(&["--rate-limit-per-minute=20"]).await;
    let ann = app.user("ann").await;
    let (_, program) = key(&ann, &["read"]).await;
    let (_, other) = key(&ann, &["read"]).await;
    let mut refused = 0;
    for client in [&program, &other].into_iter().cycle().take(24) {
        refused += usize::from(client.get("/blogs").await.status == 429);
    }
    assert!(refused >= 4, "{refused}");
    app.user("bob").await.get("/blogs").await.assert_status(200);
}

#[tokio::test]
async fn a_revoked_key_uses_up_nothing_of_its_owners_limit() {
    let app = TestApp::with(&["--rate-limit-per-minute=20"]).await;
    let ann = app.user("ann").await;
    let (created, program) = key(&ann, &["read"]).await;
    let path = format!("/users/me/keys/{}", text(&created["id"]));
    ann.delete(&path).await.assert_status(204);
    let thief = program.from_ip(9);
    for _ in 0..24 {
        let refused = thief.get("/blogs").await.status;
        assert!([401, 429].contains(&refused), "{refused}");
    }
    ann.get("/blogs").await.assert_status(200);
}
