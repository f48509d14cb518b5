//! Who is an admin, and what only admins get at.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{PASSWORD, TestApp, TestClient, TestResponse, text};

/// Every operation for admins, whichever there are, with a body if it takes one.
async fn operations(app: &TestApp) -> Vec<(Method, String, Option<Value>)> {
    let document = app.anonymous().get("/openapi.json").await.body;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(path) = path.strip_prefix("/api/v1/admin/") else {
            continue;
        };
        for (method, operation) in item.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let path = path.replace("{id}", &Uuid::now_v7().to_string());
            let body = operation.get("requestBody").map(|_| json!({}));
            operations.push((method, format!("/admin/{path}"), body));
        }
    }
    assert!(operations.len() >= 3, "{operations:?}");
    operations
}

async fn sent(
    client: &TestClient,
    method: &Method,
    path: &str,
    body: &Option<Value>,
) -> TestResponse {
    let request = client.request(method.clone(), path);
    client
        .send(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
}

#[tokio::test]
async fn every_route_for_admins_is_closed_to_everyone_else() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.admin("ann").await, app.user("bob").await);
    let demoted = app.admin("eve").await;
    app.update_user(&ann, "eve", json!({ "role": "user" }))
        .await;
    for (method, path, body) in operations(&app).await {
        for client in [&bob, &demoted] {
            let answer = sent(client, &method, &path, &body).await;
            let told = (answer.status, answer.code());
            assert_eq!(told, (403, "forbidden"), "{method} {path}");
            // Nothing is read of what they send.
            let request = client.request(method.clone(), &path).body("{");
            let answer = client.send(request).await;
            assert_eq!(answer.status, 403, "{method} {path}");
        }
        let answer = sent(&app.anonymous(), &method, &path, &body).await;
        let told = (answer.status, answer.code());
        assert_eq!(told, (401, "unauthenticated"), "{method} {path}");
        let answer = sent(&ann, &method, &path, &body).await;
        assert!(![401, 403].contains(&answer.status), "{method} {path}");
    }
}

#[tokio::test]
async fn nobody_is_an_admin_until_the_command_line_makes_them_one() {
    let app = TestApp::new().await;
    let ann = app.user("Ann").await;
    assert_eq!(ann.get("/users/me").await.body["role"], "user");
    assert_eq!(ann.get("/admin/users").await.status, 403);

    let make_admin = async |name: &str| api::cli::make_admin(&app.db, name.to_owned()).await;
    assert_eq!(make_admin("ann").await.unwrap(), "Ann is an admin now.");
    // It acts at once.
    assert_eq!(ann.get("/users/me").await.body["role"], "admin");
    assert_eq!(ann.get("/admin/users").await.status, 200);
    assert_eq!(app.login("Ann").await.get("/admin/users").await.status, 200);
    let again = make_admin("ann").await.unwrap();
    assert_eq!(again, "Ann is an admin already.");

    let unknown = make_admin("bob").await.unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "there is no user \"bob\"; sign up first"
    );
    app.user("bob").await;
    app.update_user(&ann, "bob", json!({ "disabled": true }))
        .await;
    let disabled = make_admin("bob").await.unwrap_err();
    assert!(disabled.to_string().contains("disabled"), "{disabled}");

    // Once, it was done, and by nobody who was signed in.
    let trail = ann.get("/admin/audit").await.body;
    let of_ann = trail["items"].as_array().unwrap().last().unwrap();
    assert_eq!(of_ann["action"], "role_changed");
    assert_eq!(of_ann["actor"], Value::Null);
    assert_eq!(of_ann["subject"]["username"], "Ann");
    assert_eq!(of_ann["details"]["by"], "command line");
    assert_eq!(trail["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_a_user_may_do_is_theirs_neither_to_choose_nor_to_change() {
    let app = TestApp::new().await;
    let body = json!({ "username": "eve", "password": PASSWORD, "role": "admin" });
    let answer = app.anonymous().post("/users/register", body).await;
    assert_eq!(answer.field_errors(), ["role: unknown_field"]);
    let eve = app.user("eve").await;
    let id = text(&eve.get("/users/me").await.body["id"]);
    let path = format!("/admin/users/{id}");
    let answer = eve.patch(&path, json!({ "role": "admin" })).await;
    assert_eq!((answer.status, answer.code()), (403, "forbidden"));
    assert_eq!(eve.get("/users/me").await.body["role"], "user");
}
