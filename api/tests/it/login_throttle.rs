//! Passwords are not guessed, and nobody is locked out by one who tries.

use std::time::Duration;

use api::ClientInfo;
use api::Error;
use api::SigningKeys;
use api::{LoginThrottle, PasswordCheck};
use chrono::TimeDelta;
use entity::clock::{Timestamp, now};
use entity::{audit, login_throttle, session};
use futures_util::future::join_all;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder};
use serde_json::json;
use shared::change_watcher::ChangeWatcher;
use testing::{PASSWORD, TestClient, TestResponse};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::{SECRET, TestApp};

const WRONG: &str = "not the password";

fn assert_wrong(answer: &TestResponse) {
    answer.assert_error(401, "invalid_credentials");
}

/// Asserts that it has to wait, and returns for how many seconds.
fn assert_waits(answer: &TestResponse) -> u64 {
    answer.assert_error(429, "rate_limited");
    answer.header("retry-after").parse().unwrap()
}

/// Lets the time pass that everyone has to wait.
async fn all_may_try(app: &TestApp) {
    move_delays(app, now() - TimeDelta::seconds(1)).await;
}

/// Makes the time longer that anyone has to wait who has to, so that it is not
/// over before the test has looked.
async fn nobody_is_done_waiting(app: &TestApp) {
    move_delays(app, now() + TimeDelta::minutes(1)).await;
}

async fn move_delays(app: &TestApp, to: Timestamp) {
    login_throttle::Entity::update_many()
        .col_expr(login_throttle::Column::OpenAt, Expr::value(to))
        .filter(login_throttle::Column::OpenAt.is_not_null())
        .exec(app.db.raw_connection())
        .await
        .unwrap();
}

/// Lets so many days pass.
async fn later(app: &TestApp, days: i64) {
    let rows = login_throttle::Entity::find().all(app.db.read()).await;
    for row in rows.unwrap() {
        let forget_at = row.forget_at - TimeDelta::days(days);
        login_throttle::Entity::update_many()
            .col_expr(login_throttle::Column::ForgetAt, Expr::value(forget_at))
            .filter(login_throttle::Column::Key.eq(row.key))
            .exec(app.db.raw_connection())
            .await
            .unwrap();
    }
}

/// Tries so many wrong passwords, one after the other, which are all verified;
/// after the last one, whoever has to wait does so for a while.
async fn guess(app: &TestApp, client: &TestClient, name: &str, times: usize) {
    for _ in 0..times {
        assert_wrong(&client.login(name, WRONG).await);
    }
    nobody_is_done_waiting(app).await;
}

#[tokio::test]
async fn after_five_wrong_passwords_even_the_right_one_has_to_wait() {
    let app = TestApp::new().await;
    app.user("ann").await;
    let stranger = app.client_from_ip(2);
    guess(&app, &stranger, "ann", 5).await;
    assert_waits(&stranger.login("ann", PASSWORD).await);
    let wait = assert_waits(&stranger.login("ANN", WRONG).await);
    assert!((50..=60).contains(&wait), "{wait}");
    all_may_try(&app).await;
    stranger.login("ann", PASSWORD).await.expect(200);
    // And all tries are there again.
    guess(&app, &stranger, "ann", 5).await;
    assert_waits(&stranger.login("ann", PASSWORD).await);
}

#[tokio::test]
async fn a_client_that_waits_as_long_as_retry_after_says_may_go_on() {
    let app = TestApp::new().await;
    app.user("ann").await;
    let stranger = app.client_from_ip(2);
    for _ in 0..5 {
        assert_wrong(&stranger.login("ann", WRONG).await);
    }
    let mut answer = stranger.login("ann", PASSWORD).await;
    // On a slow machine the second may be over already.
    if answer.status != 200 {
        let wait = assert_waits(&answer);
        assert_eq!(wait, 1);
        sleep(Duration::from_secs(wait)).await;
        answer = stranger.login("ann", PASSWORD).await;
    }
    answer.assert_status(200);
}

#[tokio::test]
async fn the_wait_doubles_up_to_five_minutes() {
    let app = TestApp::new().await;
    app.user("ann").await;
    for _ in 0..15 {
        assert_wrong(&app.client_from_ip(2).login("ann", WRONG).await);
        all_may_try(&app).await;
    }
    let events = audit::Entity::find().order_by_asc(audit::Column::Id);
    let events = events.all(app.db.read()).await.unwrap();
    let delays = events.iter().map(|event| {
        let details = event.details.as_ref().unwrap();
        details["delay_seconds"].as_u64().unwrap()
    });
    let expected = [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300];
    assert_eq!(delays.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn an_unknown_username_is_throttled_like_a_known_one() {
    let app = TestApp::new().await;
    app.user("ann").await;
    let told = async |client: &TestClient, name: &str| {
        let mut told = Vec::new();
        for _ in 0..7 {
            let mut answer = client.login(name, WRONG).await;
            answer.body["request_id"] = json!(null);
            told.push((answer.status, answer.body));
            nobody_is_done_waiting(&app).await;
        }
        told
    };
    let of_ann = told(&app.client_from_ip(2), "ann").await;
    assert_eq!(told(&app.client_from_ip(3), "nobody").await, of_ann);
    assert_eq!(told(&app.client_from_ip(4), "no such name!").await, of_ann);
}

#[tokio::test]
async fn guesses_from_elsewhere_do_not_lock_the_owner_out() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let elsewhere = app.client_from_ip(9);
    guess(&app, &app.client_from_ip(2), "ann", 3).await;
    guess(&app, &app.client_from_ip(3), "ann", 2).await;
    // Strangers are counted together, wherever they are.
    assert_waits(&app.client_from_ip(4).login("ann", WRONG).await);
    // The owner is not one of them where they have signed up or in before.
    app.anonymous().login("ann", PASSWORD).await.expect(200);
    ann.get("/users/me").await.expect(200);
    all_may_try(&app).await;
    elsewhere.login("ann", PASSWORD).await.expect(200);
    guess(&app, &app.client_from_ip(2), "ann", 5).await;
    assert_waits(&app.client_from_ip(2).login("ann", WRONG).await);
    elsewhere.login("ann", PASSWORD).await.expect(200);
    // But the owner's own place is counted as well.
    guess(&app, &app.anonymous(), "ann", 5).await;
    assert_waits(&app.anonymous().login("ann", PASSWORD).await);
    elsewhere.login("ann", PASSWORD).await.expect(200);
}

#[tokio::test]
async fn a_known_location_stays_known_after_a_failed_login() {
    let app = TestApp::new().await;
    app.user("ann").await;
    assert_wrong(&app.anonymous().login("ann", WRONG).await);
    later(&app, 30).await;
    guess(&app, &app.client_from_ip(2), "ann", 5).await;
    assert_waits(&app.client_from_ip(3).login("ann", PASSWORD).await);
    app.anonymous().login("ann", PASSWORD).await.expect(200);
    // After 90 days without a visit it is forgotten.
    later(&app, 91).await;
    guess(&app, &app.client_from_ip(2), "ann", 5).await;
    assert_waits(&app.anonymous().login("ann", PASSWORD).await);
}

#[tokio::test]
async fn an_address_has_twenty_tries_at_the_accounts_of_others() {
    let app = TestApp::new().await;
    app.user("ann").await;
    app.user("bob").await;
    let there = app.client_from_ip(2);
    there.login("bob", PASSWORD).await.expect(200);
    for number in 0..20 {
        assert_wrong(&there.login(&format!("name{number}"), WRONG).await);
    }
    nobody_is_done_waiting(&app).await;
    assert_waits(&there.login("one-more", WRONG).await);
    assert_waits(&there.login("ann", PASSWORD).await);
    // Those who are at home there, or come from elsewhere, don't notice.
    there.login("bob", PASSWORD).await.expect(200);
    assert_wrong(&app.client_from_ip(3).login("one-more", WRONG).await);

    // Nor does one who is let in take anything from the others' failures.
    all_may_try(&app).await;
    there.login("ann", PASSWORD).await.expect(200);
    guess(&app, &there, "another", 1).await;
    assert_waits(&there.login("yet-another", WRONG).await);
}

#[tokio::test]
async fn successful_logins_use_up_no_tries_of_their_address() {
    let app = TestApp::new().await;
    for number in 0..22 {
        app.user(&format!("user{number}")).await;
    }
    let there = app.client_from_ip(2);
    for number in 0..22 {
        let answer = there.login(&format!("user{number}"), PASSWORD).await;
        answer.assert_status(200);
    }
}

#[tokio::test]
async fn concurrent_guesses_get_no_more_tries_than_sequential_ones() {
    let app = TestApp::new().await;
    app.user("ann").await;
    let stranger = app.client_from_ip(2);
    let guesses = (0..64).map(|_| stranger.login("ann", WRONG));
    let answers = join_all(guesses).await;
    let (wrong, waits): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == 401);
    // On a slow machine delays may be over before the last has come.
    assert!((5..=8).contains(&wrong.len()), "{}", wrong.len());
    waits.into_iter().for_each(|answer| {
        assert_waits(answer);
    });
}

#[tokio::test]
async fn a_stolen_token_gives_no_more_guesses() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let thief = app.client_from_ip(2).with_token(&ann.token);
    let change = || thief.change_password(WRONG, "another horse");
    for _ in 0..2 {
        assert_wrong(&change().await);
        assert_wrong(&thief.delete_account(WRONG).await);
    }
    // All doors count together.
    guess(&app, &thief, "ann", 1).await;
    assert_waits(&change().await);
    assert_waits(&thief.delete_account(WRONG).await);
    assert_waits(&thief.login("ann", PASSWORD).await);

    let changed = ann.change_password(PASSWORD, "another horse").await;
    changed.assert_status(204);
}

#[tokio::test]
async fn typed_usernames_and_passwords_are_stored_nowhere() {
    let app = TestApp::new().await;
    app.user("ann").await;
    let stranger = app.client_from_ip(2);
    assert_wrong(&stranger.login("hunter2-in-the-wrong-field", WRONG).await);
    assert_wrong(&stranger.login("ann", "hunter2-in-the-right-one").await);
    let delays = login_throttle::Entity::find()
        .all(app.db.read())
        .await
        .unwrap();
    let events = audit::Entity::find().all(app.db.read()).await.unwrap();
    assert_eq!((delays.len(), events.len()), (4, 2));
    let stored = format!("{delays:?} {events:?}");
    assert!(!stored.contains("hunter2"), "{stored}");
    assert!(!format!("{delays:?}").contains("ann"), "{delays:?}");
    assert_eq!(events[0].subject, None);
    assert_eq!(events[1].subject.as_deref(), Some("ann"));
}

#[tokio::test]
async fn the_audit_trail_grows_no_faster_than_passwords_are_verified() {
    let app = TestApp::new().await;
    app.user("ann").await;
    let stranger = app.client_from_ip(2);
    guess(&app, &stranger, "ann", 5).await;
    for _ in 0..12 {
        assert_waits(&stranger.login("ann", WRONG).await);
    }
    let events = app.count(audit::Entity).await;
    assert_eq!(events, 5);
}

#[tokio::test]
async fn counters_expire_after_a_day_and_known_locations_do_not() {
    let app = TestApp::new().await;
    app.user("ann").await;
    let stranger = app.client_from_ip(2);
    guess(&app, &stranger, "ann", 5).await;
    let left = async || {
        api::cleanup::run_once(&app.db, Duration::from_secs(3600)).await;
        app.count(login_throttle::Entity).await
    };
    assert_eq!(left().await, 3);
    later(&app, 1).await;
    // It counts no longer, whether or not it has been removed.
    assert_wrong(&stranger.login("ann", WRONG).await);
    assert_wrong(&stranger.login("ann", WRONG).await);
    later(&app, 1).await;
    assert_eq!(left().await, 1);
    later(&app, 86).await;
    assert_eq!(left().await, 1);
    later(&app, 3).await;
    assert_eq!(left().await, 0);
}

/// Sends a sign-in over a connection of its own, and hangs up.
async fn login_and_hang_up(app: &TestApp, name: &str, password: &str) {
    let body = json!({ "username": name, "password": password }).to_string();
    let head = format!(
        "POST /api/v1/users/login HTTP/1.1\r\nhost: localhost\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let address = app.url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection
        .write_all((head + &body).as_bytes())
        .await
        .unwrap();
    connection.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_right_password_counts_as_right_though_its_client_has_hung_up() {
    let app = TestApp::new().await;
    app.user("ann").await;
    let mut changes = ChangeWatcher::watch(&app.db);
    for hung_up in 1..=8 {
        login_and_hang_up(&app, "ann", PASSWORD).await;
        let signed_in = async {
            let sessions = || session::Entity::find().count(app.db.read());
            while sessions().await.unwrap() < 1 + hung_up {
                changes.changed().await;
            }
        };
        let signed_in = timeout(Duration::from_secs(30), signed_in).await;
        signed_in.expect("a sign-in is not done to its end");
    }
    app.anonymous().login("ann", PASSWORD).await.expect(200);
    assert_eq!(failures(&app).await, 0);
}

#[tokio::test]
async fn a_wrong_password_counts_as_wrong_though_its_client_has_hung_up() {
    let app = TestApp::new().await;
    app.user("ann").await;
    let mut changes = ChangeWatcher::watch(&app.db);
    login_and_hang_up(&app, "ann", WRONG).await;
    let told = async {
        while app.count(audit::Entity).await < 1 {
            changes.changed().await;
        }
    };
    let told = timeout(Duration::from_secs(30), told).await;
    told.expect("nothing is in the audit trail");
    assert_eq!(failures(&app).await, 1);
}

/// The most failures in a row that are counted under any key.
async fn failures(app: &TestApp) -> i32 {
    let rows = login_throttle::Entity::find().all(app.db.read()).await;
    let failures = rows.unwrap().into_iter().map(|row| row.failures);
    failures.max().unwrap_or_default()
}

#[tokio::test]
async fn an_attempt_that_was_not_verified_has_not_failed() {
    let app = TestApp::new().await;
    let client = ClientInfo {
        user_agent: None,
        ip: Some([192, 0, 2, 1].into()),
        request_id: None,
    };
    let keys = SigningKeys::new(&SECRET.into());
    let attempt = async |proof: fn() -> Result<PasswordCheck<()>, Error>| {
        let visitor = LoginThrottle::new(&keys, "ann", &client);
        let prove = move |_| async move { proof() };
        visitor.attempt(app.db.clone(), prove).await
    };
    for _ in 0..30 {
        let refused = attempt(|| Err(Error::Overloaded)).await;
        assert!(matches!(refused, Err(Error::Overloaded)), "{refused:?}");
    }
    assert_eq!(failures(&app).await, 0);
    let wrong = attempt(|| Ok(PasswordCheck::Wrong(Error::InvalidCredentials))).await;
    assert!(matches!(wrong, Err(Error::InvalidCredentials)), "{wrong:?}");
    assert_eq!(failures(&app).await, 1);
}
