//! Who is an admin, and what only admins get at.

use serde_json::{Value, json};
use testing::{PASSWORD, TestClient, TestResponse, text};
use uuid::Uuid;

use crate::support::{Route, TestApp, documented_routes};

/// Sends what a route takes: an empty object if it takes a body.
async fn sent(client: &TestClient, route: &Route, path: &str) -> TestResponse {
    let request = client.request(route.method.clone(), path);
    let request = match route.fields {
        Some(_) => request.json(&json!({})),
        None => request,
    };
    client.send(request).await
}

#[tokio::test]
async fn every_route_for_admins_is_closed_to_everyone_else() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.admin("ann").await, app.user("bob").await);
    let demoted = app.admin("eve").await;
    app.update_user(&ann, "eve", json!({ "role": "user" }))
        .await;
    let mut routes = documented_routes(&app).await;
    routes.retain(Route::is_for_admins);
    assert!(routes.len() >= 3, "{routes:?}");
    for route in routes {
        let path = route.path(&Uuid::now_v7().to_string());
        for client in [&bob, &demoted] {
            let answer = sent(client, &route, &path).await;
            answer.assert_error(403, "forbidden");
            // Nothing is read of what they send.
            let request = client.request(route.method.clone(), &path).body("{");
            client.send(request).await.expect(403);
        }
        let answer = sent(&app.anonymous(), &route, &path).await;
        answer.assert_error(401, "unauthenticated");
        let answer = sent(&ann, &route, &path).await;
        assert!(![401, 403].contains(&answer.status), "{route:?}");
    }
}

#[tokio::test]
async fn nobody_is_an_admin_until_the_command_line_makes_them_one() {
    let app = TestApp::new().await;
    let ann = app.user("Ann").await;
    assert_eq!(ann.get("/users/me").await.expect(200)["role"], "user");
    ann.get("/admin/users").await.expect(403);

    let make_admin = async |name: &str| api::cli::make_admin(&app.db, name.to_owned()).await;
    assert_eq!(make_admin("ann").await.unwrap(), "Ann is an admin now.");
    // It acts at once.
    assert_eq!(ann.get("/users/me").await.expect(200)["role"], "admin");
    ann.get("/admin/users").await.expect(200);
    app.login("Ann").await.get("/admin/users").await.expect(200);
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
    let trail = ann.get("/admin/audit").await.expect(200);
    let of_ann = trail["items"].as_array().unwrap().last().unwrap();
    assert_eq!(of_ann["action"], "role_changed");
    assert_eq!(of_ann["actor"], Value::Null);
    assert_eq!(of_ann["subject"]["username"], "Ann");
    assert_eq!(of_ann["details"]["by"], "command line");
    assert_eq!(trail["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_user_can_neither_register_as_admin_nor_change_their_role() {
    let app = TestApp::new().await;
    let body = json!({ "username": "eve", "password": PASSWORD, "role": "admin" });
    let answer = app.anonymous().post("/users/register", body).await;
    answer.assert_field_errors(&["role: unknown_field"]);
    let eve = app.user("eve").await;
    let id = text(&eve.get("/users/me").await.expect(200)["id"]);
    let path = format!("/admin/users/{id}");
    let answer = eve.patch(&path, json!({ "role": "admin" })).await;
    answer.assert_error(403, "forbidden");
    assert_eq!(eve.get("/users/me").await.expect(200)["role"], "user");
}
