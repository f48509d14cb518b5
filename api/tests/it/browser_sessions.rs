//! Sessions of browsers, whose refresh token is a cookie.

use chrono::{TimeDelta, Utc};
use entity::refresh_token;
use reqwest::Method;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde_json::{Value, json};
use testing::{PASSWORD, TestClient, TestResponse, text};

use crate::support::TestApp;

const FIREFOX: &str = "Mozilla/5.0 Firefox/140";

/// What a page sends with the cookie that it has.
async fn send(app: &TestApp, path: &str, cookie: &str, agent: &str) -> TestResponse {
    let client = app.anonymous();
    let request = client.request(Method::POST, path);
    let request = request.header("x-requested-with", "blog");
    let request = request.header("user-agent", agent);
    client.send(request.header("cookie", cookie)).await
}

async fn refresh(app: &TestApp, cookie: &str) -> TestResponse {
    send(app, "/users/refresh", cookie, FIREFOX).await
}

/// The cookie that a response sets, as it is sent back.
fn cookie(answer: &TestResponse) -> String {
    let set = answer.header("set-cookie");
    let (cookie, attributes) = set.split_once("; ").expect("no cookie is set");
    let attributes: Vec<&str> = attributes
        .split("; ")
        .filter(|attribute| !attribute.starts_with("Max-Age="))
        .collect();
    assert_eq!(
        attributes,
        ["Path=/api/v1/users", "HttpOnly", "SameSite=Strict"]
    );
    cookie.to_owned()
}

/// Signs up as a page does.
async fn sign_up(app: &TestApp, name: &str) -> (TestClient, String) {
    let body = json!({ "username": name, "password": PASSWORD, "client": "browser" });
    let answer = app.anonymous().post("/users/register", body).await;
    answer.assert_status(201);
    assert_eq!(answer.body["refresh_token"], Value::Null);
    let client = app.client_with_token(&text(&answer.body["access_token"]));
    (client, cookie(&answer))
}

#[tokio::test]
async fn a_browser_gets_its_refresh_token_as_a_cookie_and_from_nowhere_else() {
    let app = TestApp::new().await;
    let (ann, first) = sign_up(&app, "ann").await;
    ann.get("/users/me").await.assert_status(200);
    let body = json!({ "username": "ann", "password": PASSWORD, "client": "browser" });
    let login = app.anonymous().post("/users/login", body).await;
    login.assert_fields(200, json!({ "refresh_token": null }));
    assert_ne!(cookie(&login), first);

    let answer = refresh(&app, &first).await;
    answer.assert_fields(
        200,
        json!({ "refresh_token": null, "token_type": "Bearer" }),
    );
    let second = cookie(&answer);
    assert_ne!(second, first);
    let client = app.client_with_token(&text(&answer.body["access_token"]));
    client.get("/users/me").await.assert_status(200);

    // Another site can have the cookie sent, but not the header.
    let client = app.anonymous();
    let forged = client.request(Method::POST, "/users/refresh");
    let forged = client.send(forged.header("cookie", &second)).await;
    forged.assert_error(401, "unauthenticated");
    assert_eq!(forged.header("set-cookie"), "");
    refresh(&app, &second).await.assert_status(200);
    for bad in ["", "refresh_token=nonsense", "refresh_token="] {
        refresh(&app, bad)
            .await
            .assert_error(401, "unauthenticated");
    }
    let odd = json!({ "username": "ann", "password": PASSWORD, "client": "toaster" });
    let odd = app.anonymous().post("/users/login", odd).await;
    odd.assert_field_errors(&["client: invalid_type"]);
}

#[tokio::test]
async fn two_tabs_that_refresh_at_once_stay_signed_in() {
    let app = TestApp::new().await;
    let (_, first) = sign_up(&app, "ann").await;
    let (one, other) = tokio::join!(refresh(&app, &first), refresh(&app, &first));
    for answer in [&one, &other] {
        answer.assert_status(200);
        refresh(&app, &cookie(answer)).await.assert_status(200);
    }
    // A third use is one too many.
    let third = refresh(&app, &first).await;
    third.assert_error(401, "refresh_token_reused");
    let after = refresh(&app, &cookie(&one)).await;
    assert_eq!(after.status, 401);
}

#[tokio::test]
async fn a_stolen_cookie_ends_the_session() {
    let app = TestApp::new().await;
    let (ann, first) = sign_up(&app, "ann").await;
    let second = cookie(&refresh(&app, &first).await);
    let stolen = send(&app, "/users/refresh", &first, "curl/8").await;
    stolen.assert_error(401, "refresh_token_reused");
    ann.get("/users/me")
        .await
        .assert_error(401, "session_revoked");
    assert_eq!(refresh(&app, &second).await.status, 401);
}

#[tokio::test]
async fn a_cookie_is_good_again_for_a_few_seconds_only() {
    let app = TestApp::new().await;
    let (_, first) = sign_up(&app, "ann").await;
    let second = cookie(&refresh(&app, &first).await);
    let before = Utc::now() - TimeDelta::seconds(11);
    refresh_token::Entity::update_many()
        .col_expr(refresh_token::Column::SpentAt, Expr::value(before))
        .filter(refresh_token::Column::SpentAt.is_not_null())
        .exec(app.db.raw_connection())
        .await
        .unwrap();
    let late = refresh(&app, &first).await;
    late.assert_error(401, "refresh_token_reused");
    assert_eq!(refresh(&app, &second).await.status, 401);
}

#[tokio::test]
async fn a_token_of_a_program_is_good_once_even_as_a_cookie() {
    let app = TestApp::new().await;
    let bob = app.user("bob").await;
    let used = app.anonymous().refresh(&bob.refresh_token).await;
    used.assert_status(200);
    let again = refresh(&app, &format!("refresh_token={}", bob.refresh_token)).await;
    again.assert_error(401, "refresh_token_reused");
}

#[tokio::test]
async fn a_browser_signs_out_with_its_cookie_alone() {
    let app = TestApp::new().await;
    let (ann, cookie) = sign_up(&app, "ann").await;
    let client = app.anonymous();
    let forged = client.request(Method::POST, "/users/logout");
    let forged = client.send(forged.header("cookie", &cookie)).await;
    forged.assert_error(401, "unauthenticated");
    let out = send(&app, "/users/logout", &cookie, FIREFOX).await;
    out.assert_status(204);
    assert!(out.header("set-cookie").contains("refresh_token=; "));
    assert!(out.header("set-cookie").contains("Max-Age=0"));
    ann.get("/users/me")
        .await
        .assert_error(401, "session_revoked");
    assert_eq!(refresh(&app, &cookie).await.status, 401);
}
