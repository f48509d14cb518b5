//! Accounts: signing up, signing in, staying signed in, and leaving.

use std::time::{Duration, Instant};

use argon2::{Argon2, Params, PasswordHasher};
use chrono::TimeDelta;
use entity::clock::now;
use entity::{job, post, refresh_token, session, user};
use futures_util::future::join_all;
use reqwest::Method;
use sea_orm::{ConnectionTrait, DbBackend, EntityTrait, PaginatorTrait, TransactionTrait};
use serde_json::{Value, json};
use testing::stub_openai::StubBehavior;
use testing::{PASSWORD, TestResponse, assert_fields, text, time};
use uuid::Uuid;

use crate::support::TestApp;

const NEW_PASSWORD: &str = "another horse, another staple";

fn names(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    names
}

/// What a client is told, but for what differs from request to request.
fn told(answer: &TestResponse) -> (u16, Value) {
    let mut body = answer.body.clone();
    body["request_id"] = Value::Null;
    (answer.status, body)
}

async fn users(app: &TestApp) -> u64 {
    app.count(user::Entity).await
}

async fn stored_hash(app: &TestApp, name: &str) -> String {
    let user = user::Entity::find_by_username(name)
        .one(app.db.read())
        .await;
    user.unwrap().unwrap().password_hash
}

#[tokio::test]
async fn signing_up_gives_a_user_and_a_pair_of_tokens() {
    let app = TestApp::new().await;
    let answer = app.anonymous().register("Ann.B-c_1", PASSWORD).await;
    answer.assert_status(201);
    let pair = &answer.body;
    let expected = [
        "access_token",
        "expires_in",
        "refresh_expires_in",
        "refresh_token",
        "token_type",
        "user",
    ];
    assert_eq!(names(pair), expected);
    assert_eq!(pair["token_type"], "Bearer");
    assert_eq!(pair["expires_in"], 15 * 60);
    assert_eq!(pair["refresh_expires_in"], 30 * 24 * 60 * 60);

    let user = &pair["user"];
    assert_eq!(names(user), ["created_at", "id", "role", "username"]);
    assert_fields(user, json!({ "username": "Ann.B-c_1", "role": "user" }));
    let id = Uuid::parse_str(&text(&user["id"])).unwrap();
    assert_eq!(id.get_version_num(), 7);
    let age = now() - time(&user["created_at"]);
    assert!(age >= TimeDelta::zero() && age < TimeDelta::minutes(1));

    let me = app.anonymous().with_session(pair).get("/users/me").await;
    assert_eq!(&me.expect(200), user);
}

#[tokio::test]
async fn passwords_and_refresh_tokens_are_stored_as_hashes() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    assert!(
        stored_hash(&app, "ann")
            .await
            .starts_with("$argon2id$v=19$m=19456,t=2,p=1$")
    );
    let tokens = refresh_token::Entity::find().all(app.db.read()).await;
    for token in tokens.unwrap() {
        assert!(!token.hash.contains(&ann.refresh_token));
        assert_eq!(token.hash.len(), 64);
    }
}

#[tokio::test]
async fn a_username_has_3_to_32_of_the_known_characters() {
    let app = TestApp::new().await;
    for good in ["abc", &"x".repeat(32), "0_0", "...", "-a-"] {
        let answer = app.anonymous().register(good, PASSWORD).await.expect(201);
        assert_eq!(answer["user"]["username"], good);
    }
    let before = users(&app).await;
    let bad = [
        ("", "too_short"),
        ("ab", "too_short"),
        (&"x".repeat(33), "too_long"),
        ("ann b", "invalid"),
        (" ann", "invalid"),
        ("ann\n", "invalid"),
        ("änn", "invalid"),
        ("ann@home", "invalid"),
        ("ann\0", "invalid"),
        // Cyrillic, but it looks the same.
        ("аnn", "invalid"),
    ];
    for (name, code) in bad {
        let answer = app.anonymous().register(name, PASSWORD).await;
        answer.assert_field_errors(&[&format!("username: {code}")]);
    }
    assert_eq!(users(&app).await, before);
}

#[tokio::test]
async fn a_username_is_unique_whatever_its_case() {
    let app = TestApp::new().await;
    app.user("Ann").await;
    for taken in ["Ann", "ann", "ANN"] {
        let answer = app.anonymous().register(taken, PASSWORD).await;
        answer.assert_error(409, "username_taken");
    }
    assert_eq!(users(&app).await, 1);
    assert_eq!(app.count(session::Entity).await, 1);
}

#[tokio::test]
async fn of_concurrent_registrations_of_a_name_one_succeeds() {
    let app = TestApp::new().await;
    let client = app.anonymous();
    let wanted = ["sam", "Sam", "sAm", "SAM"].map(|name| client.register(name, PASSWORD));
    let mut answers: Vec<u16> = join_all(wanted).await.iter().map(|a| a.status).collect();
    answers.sort_unstable();
    assert_eq!(answers, [201, 409, 409, 409]);
}

#[tokio::test]
async fn a_password_has_8_to_128_characters_of_any_kind() {
    let app = TestApp::new().await;
    let good = [
        "8 signs!".to_owned(),
        "x y".repeat(42) + "zz",
        "пароль-пароль".to_owned(),
        "🦀🐙🦑🦐🐡🐠🐟🐬".to_owned(),
        "é".repeat(128),
        "a\0b\0c\0d\0".to_owned(),
        "        ".to_owned(),
        "\t\r\n\u{7f}\u{200b}\u{feff}\"\\".to_owned(),
    ];
    for (number, password) in good.iter().enumerate() {
        let name = format!("user{number}");
        app.anonymous().register(&name, password).await.expect(201);
        app.anonymous().login(&name, password).await.expect(200);
        // Not cut at a NUL, nor trimmed.
        let almost = &password[..password.char_indices().last().unwrap().0];
        app.anonymous().login(&name, almost).await.expect(401);
    }
    let bad = [
        ("7 signs", "too_short"),
        ("", "too_short"),
        // 28 bytes are no 8 characters.
        ("🦀🐙🦑🦐🐡🐠🐟", "too_short"),
        (&"é".repeat(129), "too_long"),
    ];
    for (password, code) in bad {
        let answer = app.anonymous().register("bob", password).await;
        answer.assert_field_errors(&[&format!("password: {code}")]);
    }
}

#[tokio::test]
async fn a_password_is_not_one_that_everyone_tries_first() {
    let app = TestApp::new().await;
    let common = ["password123", "PassWord123", "12345678", "QWERTYUIOP"];
    let ours = ["Blog-Post-2026", "admin@api"];
    for common in common.into_iter().chain(ours) {
        let answer = app.anonymous().register("bob", common).await;
        answer.assert_field_errors(&["password: too_common"]);
    }
    for own in ["bob.the.builder", "BOB.the.BUILDER"] {
        let answer = app.anonymous().register("Bob.the.Builder", own).await;
        answer.assert_field_errors(&["password: same_as_username"]);
    }
    assert_eq!(users(&app).await, 0);
}

#[tokio::test]
async fn a_password_stays_good_however_old_it_is() {
    let app = TestApp::new().await;
    app.user("ann").await;
    let then = now() - TimeDelta::days(10 * 365);
    app.set_all(user::Column::CreatedAt, then).await;
    let ann = app.login("ann").await;
    ann.get("/users/me").await.expect(200);
}

#[tokio::test]
async fn there_are_no_default_accounts() {
    let app = TestApp::new().await;
    assert_eq!(users(&app).await, 0);
    for (name, password) in [("admin", "admin"), ("root", "root"), ("admin", "")] {
        let answer = app.anonymous().login(name, password).await;
        answer.assert_error(401, "invalid_credentials");
    }
}

#[tokio::test]
async fn all_field_errors_are_reported_at_once() {
    let app = TestApp::new().await;
    let faulty = [
        (
            json!({ "username": "a!", "password": "short", "role": "admin" }),
            [
                "username: invalid",
                "password: too_short",
                "role: unknown_field",
            ]
            .as_slice(),
        ),
        (json!({}), &["username: required", "password: required"]),
        (
            json!({ "username": null, "password": null }),
            &["username: required", "password: required"],
        ),
        (
            json!({ "username": 1, "password": ["x"] }),
            &["username: invalid_type", "password: invalid_type"],
        ),
    ];
    for (body, expected) in faulty {
        let answer = app.anonymous().post("/users/register", body).await;
        answer.assert_error(422, "validation_failed");
        assert_eq!(answer.field_errors(), expected);
        for error in answer.body["errors"].as_array().unwrap() {
            assert!(!text(&error["message"]).is_empty());
        }
    }
    assert_eq!(users(&app).await, 0);
}

#[tokio::test]
async fn a_user_signs_in_whatever_the_case_of_the_name() {
    let app = TestApp::new().await;
    let ann = app.user("Ann").await;
    let me = ann.get("/users/me").await.expect(200);
    for name in ["Ann", "ann", "ANN"] {
        let answer = app.anonymous().login(name, PASSWORD).await.expect(200);
        assert_eq!(answer["user"], me);
        assert_eq!(
            app.anonymous()
                .with_session(&answer)
                .get("/users/me")
                .await
                .expect(200),
            me
        );
    }
    // Each sign-in is a session of its own, and none ends another.
    ann.get("/users/me").await.expect(200);
}

#[tokio::test]
async fn a_failed_login_does_not_reveal_whether_the_user_exists() {
    let app = TestApp::new().await;
    app.user("ann").await;
    let wrong = app.anonymous().login("ann", "not the password").await;
    wrong.assert_error(401, "invalid_credentials");
    for nobody in ["nobody", "", "no such name!", "änn", &"x".repeat(1000)] {
        let answer = app.anonymous().login(nobody, "not the password").await;
        assert_eq!(told(&answer), told(&wrong), "{nobody:?}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    for almost in ["", " ", &PASSWORD.to_uppercase(), &format!("{PASSWORD} ")] {
        let answer = app.anonymous().login("ann", almost).await;
        assert_eq!(told(&answer), told(&wrong), "{almost:?}");
    }
    assert_eq!(app.count(session::Entity).await, 1);
}

#[tokio::test]
async fn a_failed_login_takes_as_long_for_an_unknown_user() {
    let app = TestApp::new().await;
    app.user("ann").await;
    // The quickest of several is the one that nothing else disturbed.
    let mut quickest = [Duration::MAX; 2];
    for _ in 0..5 {
        for (name, quickest) in ["ann", "nobody"].into_iter().zip(&mut quickest) {
            let begun = Instant::now();
            let response = app.anonymous().login(name, "not the password").await;
            response.assert_status(401);
            *quickest = begun.elapsed().min(*quickest);
        }
    }
    let [user, nobody] = quickest;
    assert!(
        nobody * 3 > user && user * 3 > nobody,
        "{user:?} {nobody:?}"
    );
}

#[tokio::test]
async fn a_weak_hash_is_renewed_when_its_owner_signs_in() {
    let app = TestApp::new().await;
    app.user("ann").await;
    let weak = Argon2::from(Params::new(8 * 1024, 1, 1, None).unwrap())
        .hash_password(PASSWORD.as_bytes())
        .unwrap()
        .to_string();
    app.set_all(user::Column::PasswordHash, weak.clone()).await;

    let response = app.anonymous().login("ann", "not the password").await;
    response.assert_status(401);
    assert_eq!(stored_hash(&app, "ann").await, weak);

    app.login("ann").await;
    let strong = stored_hash(&app, "ann").await;
    assert!(
        strong.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
        "{strong}"
    );
    app.login("ann").await;
    assert_eq!(stored_hash(&app, "ann").await, strong);
}

#[tokio::test]
async fn a_refresh_gives_a_new_pair_in_the_same_session() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let sessions = ann.get("/users/me/sessions").await.expect(200);
    let answer = app.anonymous().refresh(&ann.refresh_token).await;
    answer.assert_status(200);
    let pair = &answer.body;
    assert_ne!(pair["refresh_token"], ann.refresh_token);
    assert_eq!(pair["user"], ann.get("/users/me").await.expect(200));
    assert_eq!(pair["token_type"], "Bearer");

    let again = app.anonymous().with_session(pair);
    let now = again.get("/users/me/sessions").await.expect(200);
    assert_eq!(now["items"].as_array().unwrap().len(), 1);
    assert_eq!(now["items"][0]["id"], sessions["items"][0]["id"]);
    // The old access token is good for the rest of its time.
    ann.get("/users/me").await.expect(200);
    // And so on, any number of times.
    let next = app.anonymous().refresh(&text(&pair["refresh_token"])).await;
    next.assert_status(200);
}

#[tokio::test]
async fn a_refresh_token_that_is_used_twice_ends_its_session_and_no_other() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let elsewhere = app.login("ann").await;
    let pair = app.anonymous().refresh(&ann.refresh_token).await.body;
    let newest = app.anonymous().with_session(&pair);
    let newest = newest.refresh(&newest.refresh_token).await.expect(200);
    app.anonymous()
        .with_session(&newest)
        .get("/users/me")
        .await
        .expect(200);

    let reused = app.anonymous().refresh(&ann.refresh_token).await;
    reused.assert_error(401, "refresh_token_reused");
    for token in [
        &ann.token,
        &text(&pair["access_token"]),
        &text(&newest["access_token"]),
    ] {
        let answer = app.client_with_token(token).get("/users/me").await;
        answer.assert_error(401, "session_revoked");
    }
    let answer = app
        .anonymous()
        .refresh(&text(&newest["refresh_token"]))
        .await;
    answer.assert_error(401, "session_revoked");
    let again = app.anonymous().refresh(&ann.refresh_token).await;
    again.assert_error(401, "refresh_token_reused");

    elsewhere.get("/users/me").await.expect(200);
    let response = app.anonymous().refresh(&elsewhere.refresh_token).await;
    response.assert_status(200);
}

#[tokio::test]
async fn of_many_refreshes_at_once_one_wins_and_the_session_ends() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let client = app.anonymous();
    let answers = join_all((0..5).map(|_| client.refresh(&ann.refresh_token))).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == 200);
    assert_eq!(won.len(), 1, "{answers:?}");
    assert!(
        lost.iter().all(|a| a.code() == "refresh_token_reused"),
        "{lost:?}"
    );
    let answer = app
        .anonymous()
        .with_session(&won[0].body)
        .get("/users/me")
        .await;
    answer.assert_error(401, "session_revoked");
    let answer = app
        .anonymous()
        .refresh(&text(&won[0].body["refresh_token"]))
        .await;
    answer.assert_error(401, "session_revoked");
}

#[tokio::test]
async fn an_unknown_refresh_token_is_refused() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let stored = refresh_token::Entity::find().one(app.db.read()).await;
    let stored = stored.unwrap().unwrap().hash;
    // Neither an access token nor what is stored is one.
    for token in [
        "",
        "x",
        "a\0b",
        &ann.token,
        &stored,
        &ann.refresh_token.to_lowercase(),
    ] {
        let answer = app.anonymous().refresh(token).await;
        answer.assert_error(401, "unauthenticated");
    }
    let response = app.anonymous().refresh(&ann.refresh_token).await;
    response.assert_status(200);
}

#[tokio::test]
async fn an_expired_session_is_over() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let past = now() - TimeDelta::seconds(1);
    app.set_all(session::Column::ExpiresAt, past).await;
    let answer = app.anonymous().refresh(&ann.refresh_token).await;
    answer.assert_error(401, "token_expired");
    let answer = ann.get("/users/me").await;
    answer.assert_error(401, "session_revoked");
}

#[tokio::test]
async fn a_logout_acts_at_once_and_on_one_session_only() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let elsewhere = app.login("ann").await;
    let answer = ann.send(ann.request(Method::POST, "/users/logout")).await;
    answer.assert_status(204);

    for answer in [
        ann.get("/users/me").await,
        ann.send(ann.request(Method::POST, "/users/logout")).await,
        app.anonymous().refresh(&ann.refresh_token).await,
    ] {
        answer.assert_error(401, "session_revoked");
    }
    elsewhere.get("/users/me").await.expect(200);
    let response = app.anonymous().refresh(&elsewhere.refresh_token).await;
    response.assert_status(200);
}

#[tokio::test]
async fn a_new_password_ends_all_other_sessions() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let elsewhere = app.login("ann").await;
    let bob = app.user("bob").await;
    let answer = ann.change_password(PASSWORD, NEW_PASSWORD).await;
    answer.assert_status(204);

    ann.get("/users/me").await.expect(200);
    let response = app.anonymous().refresh(&ann.refresh_token).await;
    response.assert_status(200);
    let response = elsewhere.get("/users/me").await;
    response.assert_error(401, "session_revoked");
    let answer = app.anonymous().refresh(&elsewhere.refresh_token).await;
    answer.assert_error(401, "session_revoked");
    let response = app.anonymous().login("ann", PASSWORD).await;
    response.assert_error(401, "invalid_credentials");
    app.anonymous().login("ann", NEW_PASSWORD).await.expect(200);
    // Nobody else notices.
    bob.get("/users/me").await.expect(200);
    app.anonymous().login("bob", PASSWORD).await.expect(200);
}

#[tokio::test]
async fn a_password_change_needs_the_current_password() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let elsewhere = app.login("ann").await;
    let before = stored_hash(&app, "ann").await;
    let answer = ann.change_password("not the password", NEW_PASSWORD).await;
    answer.assert_error(401, "invalid_credentials");
    assert_eq!(stored_hash(&app, "ann").await, before);
    elsewhere.get("/users/me").await.expect(200);
}

#[tokio::test]
async fn a_new_password_is_held_to_the_same_rules() {
    let app = TestApp::new().await;
    let ann = app.user("Ann.the.Great").await;
    let before = stored_hash(&app, "ann.the.great").await;
    let bad = [
        ("7 signs", "too_short"),
        (&"é".repeat(129), "too_long"),
        ("PassWord123", "too_common"),
        ("Blog-Post-2026", "too_common"),
        ("ann.THE.great", "same_as_username"),
    ];
    for (password, code) in bad {
        let answer = ann.change_password(PASSWORD, password).await;
        answer.assert_field_errors(&[&format!("new_password: {code}")]);
    }
    let body = json!({ "password": PASSWORD });
    let answer = ann.put("/users/me/password", body).await;
    let missing = ["current_password: required", "new_password: required"];
    assert_eq!(
        answer.field_errors(),
        [missing.as_slice(), &["password: unknown_field"]].concat()
    );
    assert_eq!(stored_hash(&app, "ann.the.great").await, before);
    let response = ann.change_password(PASSWORD, "p\0ssw\0rd").await;
    response.assert_status(204);
    let response = app.anonymous().login("ann.the.great", "p\0ssw\0rd").await;
    response.assert_status(200);
}

/// Whoever knows the old password must not be able to set one after the owner
/// has: it is no longer the current one.
#[tokio::test]
async fn of_two_changes_of_a_password_at_once_one_wins() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let thief = app.login("ann").await;
    let (mine, theirs) = tokio::join!(
        ann.change_password(PASSWORD, NEW_PASSWORD),
        thief.change_password(PASSWORD, "the password of a thief"),
    );
    let mut statuses = [mine.status, theirs.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 401], "{mine:?} {theirs:?}");
    let (winner, loser) = match mine.status {
        204 => (ann, thief),
        _ => (thief, ann),
    };
    winner.get("/users/me").await.expect(200);
    let response = loser.get("/users/me").await;
    response.assert_error(401, "session_revoked");
}

#[tokio::test]
async fn a_deleted_account_takes_its_posts_jobs_and_sessions_along() {
    let app = TestApp::new().await;
    let ann = app.user("Ann").await;
    let elsewhere = app.login("ann").await;
    let bob = app.user("bob").await;
    for topic in ["Growing tomatoes", "Growing basil"] {
        ann.create_post(topic).await;
    }
    let kept = bob.create_post("Growing nothing").await;

    ann.delete_account(PASSWORD).await.expect(204);

    for token in [&ann.token, &elsewhere.token] {
        let answer = app.client_with_token(token).get("/users/me").await;
        answer.assert_error(401, "session_revoked");
    }
    for token in [&ann.refresh_token, &elsewhere.refresh_token] {
        app.anonymous().refresh(token).await.expect(401);
    }
    let response = app.anonymous().login("ann", PASSWORD).await;
    response.assert_error(401, "invalid_credentials");

    let db = app.db.read();
    assert_eq!(user::Entity::find().count(db).await.unwrap(), 1);
    assert_eq!(session::Entity::find().count(db).await.unwrap(), 1);
    assert_eq!(refresh_token::Entity::find().count(db).await.unwrap(), 1);
    assert_eq!(post::Entity::find().count(db).await.unwrap(), 1);
    assert_eq!(job::Entity::find().count(db).await.unwrap(), 1);
    assert_eq!(shared::queue::count_deliveries(db).await.unwrap(), 1);

    app.run_jobs().await;
    assert_eq!(bob.get_post(&kept).await["status"], "ready");
    let again = app.user("ANN").await;
    let posts = again.get("/blogs").await.expect(200);
    assert_eq!(posts["items"], json!([]));
}

#[tokio::test]
async fn deleting_an_account_needs_its_password() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    let wrong = ann.delete_account("not the password").await;
    wrong.assert_error(401, "invalid_credentials");
    let missing = ann.delete("/users/me").await;
    missing.assert_field_errors(&["password: required"]);

    ann.get("/users/me").await.expect(200);
    assert_eq!(ann.get_post(&post).await, post);
    app.run_jobs().await;
    assert_eq!(ann.get_post(&post).await["status"], "ready");
}

#[tokio::test]
async fn a_deleted_account_stops_the_job_that_runs() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    app.agent.set(StubBehavior::Hang);
    let worker = app.worker().await;
    let asked = ann.create_post("Growing tomatoes").await;
    let path = format!("/jobs/{}?wait=10", text(&asked["job"]["id"]));
    while ann.get(&path).await.expect(200)["phase"] != "outline" {}

    ann.delete_account(PASSWORD).await.expect(204);
    app.agent.client_gone().await;
    worker.stop().await;
    let db = app.db.read();
    assert_eq!(job::Entity::find().count(db).await.unwrap(), 0);
    assert_eq!(post::Entity::find().count(db).await.unwrap(), 0);
}

#[tokio::test]
async fn a_login_during_the_deletion_of_its_account_is_no_internal_error() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let client = app.anonymous();
    let (deleted, answers) = tokio::join!(
        ann.delete_account(PASSWORD),
        // With more, some would have to wait.
        join_all((0..4).map(|_| client.login("ann", PASSWORD))),
    );
    deleted.assert_status(204);
    for answer in answers {
        assert!(matches!(answer.status, 200 | 401), "{answer:?}");
    }
    assert_eq!(app.count(session::Entity).await, 0);
}

/// On Postgres the two would lock the token and its session in opposite order.
#[tokio::test]
async fn a_refresh_during_the_deletion_of_its_account_does_not_deadlock() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    if app.db.backend() != DbBackend::Postgres {
        // There they can only come one after the other.
        ann.delete_account(PASSWORD).await.expect(204);
        let response = app.anonymous().refresh(&ann.refresh_token).await;
        response.assert_status(401);
        return;
    }
    let tx = app.db.raw_connection().begin().await.unwrap();
    let hold = "SELECT id FROM sessions FOR UPDATE";
    tx.execute_unprepared(hold).await.unwrap();
    let (deleted, refreshed, ()) = tokio::join!(
        ann.delete_account(PASSWORD),
        async {
            app.wait_for_lock_waiters(1).await;
            app.anonymous().refresh(&ann.refresh_token).await
        },
        async {
            app.wait_for_lock_waiters(2).await;
            tx.commit().await.unwrap();
        },
    );
    deleted.assert_status(204);
    refreshed.assert_status(401);
}
