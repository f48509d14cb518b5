//! A user's sign-ins.

use chrono::TimeDelta;
use entity::clock::now;
use entity::{session, user};
use reqwest::Method;
use sea_orm::sea_query::Expr;
use sea_orm::{ActiveModelTrait, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, Set};
use serde_json::{Value, json};
use testing::{PASSWORD, TestClient, text, time};
use uuid::Uuid;

use crate::support::TestApp;

async fn sessions(client: &TestClient) -> Vec<Value> {
    client.get("/users/me/sessions").await.items()
}

/// The id of the session that a client is in.
async fn own(client: &TestClient) -> String {
    let sessions = sessions(client).await;
    let current = sessions.iter().find(|session| session["current"] == true);
    text(&current.unwrap()["id"])
}

#[tokio::test]
async fn a_user_sees_the_address_and_the_times_of_their_sessions() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    app.user("bob").await;
    let client = app.anonymous();
    let body = json!({ "username": "ann", "password": PASSWORD });
    let login = client.request(Method::POST, "/users/login").json(&body);
    let second = client.send(login.header("user-agent", "Netscape/4.0 (a kiosk)"));
    second.await.expect(200);

    let listed = sessions(&ann).await;
    assert_eq!(listed.len(), 2);
    for session in &listed {
        let mut names: Vec<_> = session.as_object().unwrap().keys().collect();
        names.sort_unstable();
        let expected = [
            "created_at",
            "current",
            "expires_at",
            "id",
            "ip",
            "last_used_at",
            "user_agent",
        ];
        assert_eq!(names, expected);
        let id = Uuid::parse_str(&text(&session["id"])).unwrap();
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(session["ip"], "127.0.0.1");
        let created = time(&session["created_at"]);
        assert!(now() - created < TimeDelta::minutes(1));
        assert_eq!(session["last_used_at"], session["created_at"]);
        let length = time(&session["expires_at"]) - created;
        assert!((length - TimeDelta::days(30)).abs() < TimeDelta::minutes(1));
    }
    // The latest first.
    assert_eq!(listed[0]["user_agent"], "Netscape/4.0 (a kiosk)");
    assert_eq!(listed[0]["current"], false);
    // The tests' clients don't name themselves.
    assert_eq!(listed[1]["user_agent"], Value::Null);
    assert_eq!(listed[1]["current"], true);
}

#[tokio::test]
async fn a_long_user_agent_is_truncated() {
    let app = TestApp::new().await;
    let client = app.anonymous();
    let body = json!({ "username": "ann", "password": PASSWORD });
    let register = client.request(Method::POST, "/users/register").json(&body);
    let answer = client.send(register.header("user-agent", "x".repeat(4000)));
    let ann = app.client_with_token(&text(&answer.await.body["access_token"]));
    let name = text(&sessions(&ann).await[0]["user_agent"]);
    assert_eq!(name, "x".repeat(256));
}

#[tokio::test]
async fn a_refresh_updates_last_used_at_and_extends_the_session() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let earlier = now() - TimeDelta::days(3);
    session::Entity::update_many()
        .col_expr(session::Column::CreatedAt, Expr::value(earlier))
        .col_expr(session::Column::LastUsedAt, Expr::value(earlier))
        .col_expr(
            session::Column::ExpiresAt,
            Expr::value(now() + TimeDelta::days(27)),
        )
        .exec(app.db.raw_connection())
        .await
        .unwrap();
    let answer = app.anonymous().refresh(&ann.refresh_token).await;
    answer.assert_status(200);

    let listed = &sessions(&ann).await[0];
    assert_eq!(time(&listed["created_at"]), earlier);
    assert!(now() - time(&listed["last_used_at"]) < TimeDelta::minutes(1));
    assert!(time(&listed["expires_at"]) - now() > TimeDelta::days(29));
}

#[tokio::test]
async fn a_session_ends_after_90_days_however_often_it_is_refreshed() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let begun = async |ago: TimeDelta| {
        app.set_all(session::Column::CreatedAt, now() - ago).await;
    };
    // Less is left than a refresh gives otherwise.
    begun(TimeDelta::days(80)).await;
    let client = app.anonymous();
    let pair = client.refresh(&ann.refresh_token).await.expect(200);
    let left = TimeDelta::seconds(pair["refresh_expires_in"].as_i64().unwrap());
    assert!((left - TimeDelta::days(10)).abs() < TimeDelta::minutes(1));
    let end = time(&sessions(&ann).await[0]["expires_at"]) - now();
    assert!((end - TimeDelta::days(10)).abs() < TimeDelta::minutes(1));

    begun(TimeDelta::days(90)).await;
    let answer = client.refresh(&text(&pair["refresh_token"])).await;
    answer.assert_error(401, "token_expired");
    // Whoever signs in again has as much as before.
    let login = app.login("ann").await;
    let end = time(&sessions(&login).await[0]["expires_at"]) - now();
    assert!((end - TimeDelta::days(30)).abs() < TimeDelta::minutes(1));
}

#[tokio::test]
async fn a_deleted_session_is_revoked_at_once_and_not_listed() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let lost = app.login("ann").await;
    let third = app.login("ann").await;
    let path = format!("/users/me/sessions/{}", own(&lost).await);
    ann.delete(&path).await.expect(204);

    let response = lost.get("/users/me").await;
    response.assert_error(401, "session_revoked");
    let answer = app.anonymous().refresh(&lost.refresh_token).await;
    answer.assert_error(401, "session_revoked");
    assert_eq!(sessions(&ann).await.len(), 2);
    third.get("/users/me").await.expect(200);
    ann.delete(&path).await.assert_error(404, "not_found");
}

#[tokio::test]
async fn deleting_the_current_session_is_a_logout() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let path = format!("/users/me/sessions/{}", own(&ann).await);
    ann.delete(&path).await.expect(204);
    let response = ann.get("/users/me").await;
    response.assert_error(401, "session_revoked");
}

#[tokio::test]
async fn all_sessions_but_the_current_one_can_be_deleted_at_once() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let others = [app.login("ann").await, app.login("ann").await];
    let bob = app.user("bob").await;
    ann.delete("/users/me/sessions").await.expect(204);

    for other in others {
        let response = other.get("/users/me").await;
        response.assert_error(401, "session_revoked");
    }
    assert_eq!(sessions(&ann).await.len(), 1);
    bob.get("/users/me").await.expect(200);
    // There may be none.
    ann.delete("/users/me/sessions").await.expect(204);
    ann.get("/users/me").await.expect(200);
}

#[tokio::test]
async fn the_sessions_of_others_cannot_be_read_or_deleted() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let path = format!("/users/me/sessions/{}", own(&ann).await);
    bob.delete(&path).await.assert_error(404, "not_found");
    ann.get("/users/me").await.expect(200);
    let (of_ann, of_bob) = (sessions(&ann).await, sessions(&bob).await);
    assert_eq!((of_ann.len(), of_bob.len()), (1, 1));
    assert_ne!(of_ann[0]["id"], of_bob[0]["id"]);
}

#[tokio::test]
async fn an_expired_session_is_not_listed_and_cannot_be_deleted() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let old = app.login("ann").await;
    let id = own(&old).await;
    session::Entity::update_many()
        .col_expr(session::Column::ExpiresAt, Expr::value(now()))
        .filter(session::Column::Id.eq(Uuid::parse_str(&id).unwrap()))
        .exec(app.db.raw_connection())
        .await
        .unwrap();
    assert_eq!(sessions(&ann).await.len(), 1);
    let answer = ann.delete(&format!("/users/me/sessions/{id}")).await;
    answer.assert_error(404, "not_found");
}

#[tokio::test]
async fn beyond_the_session_limit_the_least_recently_used_session_ends() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let first = session::Entity::find().one(app.db.read()).await;
    let first = first.unwrap().unwrap();
    let others = (1..100).map(|n| session::ActiveModel {
        id: Set(Uuid::now_v7()),
        last_used_at: Set(first.last_used_at - TimeDelta::hours(n)),
        ..first.clone().into_active_model().reset_all()
    });
    session::Entity::insert_many(others)
        .exec(app.db.raw_connection())
        .await
        .unwrap();
    assert_eq!(sessions(&ann).await.len(), 100);

    let another = app.login("ann").await;
    let left = sessions(&ann).await;
    assert_eq!(left.len(), 100);
    let used = left.iter().map(|session| time(&session["last_used_at"]));
    let longest = first.last_used_at - TimeDelta::hours(98);
    assert_eq!(used.min(), Some(longest));
    another.get("/users/me").await.expect(200);
}

/// On SQLite the session of the last request is kept until something is committed.
#[tokio::test]
async fn what_another_process_commits_counts_for_the_very_next_request() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let other = app.open_database().await;
    for _ in 0..20 {
        for (disabled_at, status) in [(Some(now()), 403), (None, 200)] {
            // Twice: the first may look it up, the second may know it.
            let change = user::Entity::update_many()
                .col_expr(user::Column::DisabledAt, Expr::value(disabled_at));
            other
                .transaction(async move |tx| change.exec(tx).await)
                .await
                .unwrap();
            ann.get("/users/me").await.assert_status(status);
            ann.get("/users/me").await.assert_status(status);
        }
    }
    other.close().await;
}
