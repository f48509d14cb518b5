//! All users, as admins see and change them.

use std::time::Duration;

use entity::clock::now;
use entity::{job, post, user};
use futures_util::future::join_all;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, IntoActiveModel,
    PaginatorTrait, QueryFilter, Set,
};
use serde_json::{Value, json};
use testing::stub_openai::StubBehavior;
use testing::{PASSWORD, TestClient, TestResponse, assert_fields, text};
use uuid::Uuid;

use crate::support::TestApp;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The names on a page.
fn names(page: &TestResponse) -> Vec<String> {
    page.assert_status(200);
    let items = page.body["items"].as_array().unwrap();
    items.iter().map(|user| text(&user["username"])).collect()
}

#[tokio::test]
async fn an_admin_sees_all_users_the_newest_first() {
    let app = TestApp::new().await;
    let ann = app.admin("Ann").await;
    let bob = app.user("bob").await;
    app.update_user(&ann, "bob", json!({ "disabled": true }))
        .await;
    let page = ann.get("/admin/users").await;
    assert_eq!(names(&page), ["bob", "Ann"]);
    assert_eq!(page.body["next_cursor"], Value::Null);
    let [of_bob, of_ann] = [&page.body["items"][0], &page.body["items"][1]];
    let me = ann.get("/users/me").await.expect(200);
    let expected = json!({
        "id": me["id"], "username": "Ann", "role": "admin", "disabled": false,
        "disabled_at": null, "created_at": me["created_at"],
    });
    assert_eq!(of_ann, &expected);
    assert_eq!(of_bob["disabled"], true);
    assert!(text(&of_bob["disabled_at"]).ends_with('Z'));
    bob.get("/users/me").await.expect(401);
}

#[tokio::test]
async fn the_list_of_users_is_paged() {
    let app = TestApp::new().await;
    let ann = app.admin("ann").await;
    for name in ["bob", "cay", "dan"] {
        app.user(name).await;
    }
    let first = ann.get("/admin/users?limit=3").await;
    assert_eq!(names(&first), ["dan", "cay", "bob"]);
    let next = text(&first.body["next_cursor"]);
    let path = format!("/api/v1/admin/users?limit=3&cursor={next}");
    assert_eq!(first.header("link"), format!("<{path}>; rel=\"next\""));
    let second = ann
        .get(&format!("/admin/users?limit=3&cursor={next}"))
        .await;
    assert_eq!(names(&second), ["ann"]);
    assert_eq!(second.body["next_cursor"], Value::Null);

    // A cursor is good for its own list of its own reader.
    let audit = ann.get(&format!("/admin/audit?cursor={next}")).await;
    audit.assert_error(400, "invalid_cursor");
    app.update_user(&ann, "bob", json!({ "role": "admin" }))
        .await;
    let other = app.login("bob").await;
    let answer = other.get(&format!("/admin/users?cursor={next}")).await;
    answer.assert_error(400, "invalid_cursor");
    for bad in [
        "limit=0",
        "limit=101",
        &format!("q={}", "x".repeat(201)),
        "q=%00",
    ] {
        let answer = ann.get(&format!("/admin/users?{bad}")).await;
        answer.assert_error(422, "validation_failed");
    }
    let answer = ann.get("/admin/users?name=bob").await;
    answer.assert_error(400, "malformed_query");
}

#[tokio::test]
async fn users_are_found_by_a_part_of_their_name_whatever_its_case() {
    let app = TestApp::new().await;
    let ann = app.admin("Ann").await;
    for name in ["JoAnne", "a_n", "axn", "bob.b"] {
        app.user(name).await;
    }
    for (q, expected) in [
        ("ANN", ["JoAnne", "Ann"].as_slice()),
        ("a_n", &["a_n"]),
        ("%25", &[]),
        ("%5C", &[]),
        (".b", &["bob.b"]),
        ("", &["bob.b", "axn", "a_n", "JoAnne", "Ann"]),
        ("%C3%A4", &[]),
    ] {
        let page = ann.get(&format!("/admin/users?q={q}")).await;
        assert_eq!(names(&page), expected, "{q}");
    }
}

/// Adds so many users, and more than a page looks through.
async fn crowd(app: &TestApp, size: usize) {
    let model = user::Entity::find().one(app.db.read()).await.unwrap();
    let model = model.unwrap();
    let users: Vec<_> = (0..size)
        .map(|n| user::ActiveModel {
            id: Set(Uuid::now_v7()),
            username: Set(format!("crowd{n}")),
            username_key: Set(format!("crowd{n}")),
            role: Set(user::Role::User),
            ..model.clone().into_active_model().reset_all()
        })
        .collect();
    for some in users.chunks(2000) {
        let insert = user::Entity::insert_many(some.to_vec());
        insert.exec(app.db.raw_connection()).await.unwrap();
    }
}

#[tokio::test]
async fn a_search_with_few_matches_goes_on_on_the_next_page() {
    let app = TestApp::new().await;
    let ann = app.admin("ann").await;
    crowd(&app, 3_750).await;
    let first = ann.get("/admin/users?q=ann").await;
    assert_eq!(names(&first), [""; 0]);
    let next = text(&first.body["next_cursor"]);
    let second = ann.get(&format!("/admin/users?q=ann&cursor={next}")).await;
    assert_eq!(names(&second), ["ann"]);
    assert_eq!(second.body["next_cursor"], Value::Null);

    // What is frequent fills its pages, and none is left out or comes twice.
    let found = ann.list_all("/admin/users?q=crowd12&limit=100").await;
    let found: Vec<_> = found.iter().map(|user| text(&user["username"])).collect();
    let matches = |n: &usize| format!("crowd{n}").contains("crowd12");
    let expected: Vec<_> = (0..3_750).rev().filter(matches).collect();
    let expected: Vec<_> = expected.iter().map(|n| format!("crowd{n}")).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_role_that_is_changed_acts_at_once() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.admin("ann").await, app.user("bob").await);
    let answer = app
        .update_user(&ann, "bob", json!({ "role": "admin" }))
        .await;
    assert_fields(&answer, json!({ "role": "admin", "username": "bob" }));
    bob.get("/admin/users").await.expect(200);
    app.update_user(&bob, "ann", json!({ "role": "user" }))
        .await;
    ann.get("/admin/users").await.assert_error(403, "forbidden");
    assert_eq!(ann.get("/users/me").await.expect(200)["role"], "user");
}

#[tokio::test]
async fn an_empty_update_changes_nothing() {
    let app = TestApp::new().await;
    let ann = app.admin("ann").await;
    let elsewhere = app.user("bob").await;
    let before = ann.get("/admin/users").await.expect(200);
    let trail = ann.get("/admin/audit").await.expect(200);
    for nothing in [
        json!({}),
        json!({ "role": null, "disabled": null }),
        json!({ "role": "user" }),
        json!({ "disabled": false }),
    ] {
        let answer = app.update_user(&ann, "bob", nothing).await;
        assert_eq!(answer, before["items"][0]);
    }
    assert_eq!(ann.get("/admin/users").await.expect(200), before);
    assert_eq!(ann.get("/admin/audit").await.expect(200), trail);
    elsewhere.get("/users/me").await.expect(200);
}

#[tokio::test]
async fn an_invalid_update_of_a_user_is_refused() {
    let app = TestApp::new().await;
    let ann = app.admin("ann").await;
    let path = format!("/admin/users/{}", app.id_of("ann").await);
    let body = json!({ "role": "root", "disabled": "yes", "username": "eve" });
    let answer = ann.patch(&path, body).await;
    answer.assert_status(422);
    let faults = [
        "role: invalid_type",
        "disabled: invalid_type",
        "username: unknown_field",
    ];
    assert_eq!(answer.field_errors(), faults);
    for nobody in [Uuid::now_v7().to_string(), "ann".to_owned()] {
        let path = format!("/admin/users/{nobody}");
        let answer = ann.patch(&path, json!({ "disabled": true })).await;
        answer.assert_error(404, "not_found");
    }
}

#[tokio::test]
async fn a_disabled_user_is_out_at_once_and_for_as_long_as_they_are_disabled() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.admin("ann").await, app.user("bob").await);
    let elsewhere = app.login("bob").await;
    let since = app
        .update_user(&ann, "bob", json!({ "disabled": true }))
        .await;
    assert_eq!(since["disabled"], true);
    for client in [&bob, &elsewhere] {
        let response = client.get("/users/me").await;
        response.assert_error(401, "session_revoked");
        let answer = app.anonymous().refresh(&client.refresh_token).await;
        answer.assert_error(401, "session_revoked");
    }
    let answer = app.anonymous().login("bob", PASSWORD).await;
    answer.assert_error(403, "forbidden");
    // Who does not know the password does not learn of it.
    let answer = app.anonymous().login("bob", "not the password").await;
    answer.assert_error(401, "invalid_credentials");
    // Disabling again is nothing new.
    let again = app
        .update_user(&ann, "bob", json!({ "disabled": true }))
        .await;
    assert_eq!(again, since);

    let enabled = app
        .update_user(&ann, "bob", json!({ "disabled": false }))
        .await;
    assert_eq!(enabled["disabled_at"], Value::Null);
    app.login("bob").await.get("/users/me").await.expect(200);
    // What was ended stays ended.
    let response = bob.get("/users/me").await;
    response.assert_error(401, "session_revoked");
}

#[tokio::test]
async fn disabling_a_user_cancels_their_jobs_and_no_others() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.admin("ann").await, app.user("bob").await);
    app.agent.set(StubBehavior::Hang);
    // Its slot is free then, and it may take the job that is kept.
    let settings = ["--worker-concurrency=1", "--shutdown-grace-secs=1"];
    let worker = app.worker_with(&settings).await;
    let running = bob.create_post("Growing tomatoes").await;
    app.wait_for_job(&bob, &running, |job| job["phase"] == "outline")
        .await;
    let queued = bob.create_post("Growing basil").await;
    let kept = ann.create_post("Growing nothing").await;

    app.update_user(&ann, "bob", json!({ "disabled": true }))
        .await;
    app.agent.client_gone().await;
    worker.stop().await;
    for post in [&running, &queued] {
        let id = Uuid::parse_str(&text(&post["job"]["id"])).unwrap();
        let job = job::Entity::find_by_id(id).one(app.db.read()).await;
        assert_eq!(job.unwrap().unwrap().status, job::Status::Canceled);
        let id = Uuid::parse_str(&text(&post["id"])).unwrap();
        let post = post::Entity::find_by_id(id).one(app.db.read()).await;
        assert_eq!(post.unwrap().unwrap().status, post::Status::Canceled);
    }
    assert_eq!(app.count_deliveries().await, 1);
    app.agent.set(StubBehavior::Write);
    app.run_jobs().await;
    assert_eq!(ann.get_job(&kept).await["status"], "succeeded");
}

/// Gives a user so many queued jobs, without deliveries, as copies of a real one.
async fn many_jobs(app: &TestApp, owner: &TestClient, count: usize) {
    let asked = owner.create_post("One of many").await;
    let id = Uuid::parse_str(&text(&asked["job"]["id"])).unwrap();
    let job = job::Entity::find_by_id(id).one(app.db.read()).await;
    let job = job.unwrap().unwrap();
    let post = post::Entity::find_by_id(job.post_id)
        .one(app.db.read())
        .await;
    let post = post.unwrap().unwrap();
    let ids: Vec<Uuid> = (1..count).map(|_| Uuid::now_v7()).collect();
    let posts = ids.iter().map(|id| post::ActiveModel {
        id: Set(*id),
        ..post.clone().into_active_model().reset_all()
    });
    post::Entity::insert_many(posts)
        .exec(app.db.raw_connection())
        .await
        .unwrap();
    let jobs = ids.iter().map(|id| job::ActiveModel {
        id: Set(Uuid::now_v7()),
        post_id: Set(*id),
        ..job.clone().into_active_model().reset_all()
    });
    job::Entity::insert_many(jobs)
        .exec(app.db.raw_connection())
        .await
        .unwrap();
}

#[tokio::test]
async fn disabling_a_user_cancels_hundreds_of_their_jobs() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.admin("ann").await, app.user("bob").await);
    many_jobs(&app, &bob, 450).await;
    assert_eq!(app.count_unfinished_jobs().await, 450);
    app.update_user(&ann, "bob", json!({ "disabled": true }))
        .await;
    assert_eq!(app.count_unfinished_jobs().await, 0);
    let canceled = post::Column::Status.eq(post::Status::Canceled);
    let posts = post::Entity::find().filter(canceled).count(app.db.read());
    assert_eq!(posts.await.unwrap(), 450);
}

#[tokio::test]
async fn jobs_that_a_dead_api_left_of_a_disabled_user_are_canceled_by_another() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    many_jobs(&app, &bob, 250).await;
    let kept = ann.create_post("Growing nothing").await;
    // It had set the flag, and got no farther.
    user::Entity::update_many()
        .col_expr(user::Column::DisabledAt, Expr::value(now()))
        .filter(user::Column::Username.eq("bob"))
        .exec(app.db.raw_connection())
        .await
        .unwrap();
    api::cleanup::run_once(&app.db, YEAR).await;
    assert_eq!(app.count_unfinished_jobs().await, 1);
    app.run_jobs().await;
    assert_eq!(ann.get_job(&kept).await["status"], "succeeded");
}

#[tokio::test]
async fn no_job_enqueued_while_its_user_is_disabled_survives() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.admin("ann").await, app.user("bob").await);
    let asked = bob.create_post("Growing tomatoes").await;
    bob.cancel(&asked).await.expect(202);
    for _ in 0..4 {
        let (before, _, retried, after) = tokio::join!(
            join_all((0..8).map(|_| bob.post("/blogs", json!({ "topic": "Straws" })))),
            app.update_user(&ann, "bob", json!({ "disabled": true })),
            bob.retry(&asked),
            join_all((0..8).map(|_| bob.post("/blogs", json!({ "topic": "Straws" })))),
        );
        for answer in before.iter().chain([&retried]).chain(&after) {
            let expected = [202, 401, 403];
            assert!(expected.contains(&answer.status), "{answer:?}");
        }
        assert_eq!(app.count_unfinished_jobs().await, 0);
        app.update_user(&ann, "bob", json!({ "disabled": false }))
            .await;
        // As if the sessions had not ended: the flag alone keeps jobs out.
        app.set_all(
            entity::session::Column::RevokedAt,
            None::<entity::clock::Timestamp>,
        )
        .await;
    }
}

#[tokio::test]
async fn the_last_admin_stays_one() {
    let app = TestApp::new().await;
    let ann = app.admin("ann").await;
    let elsewhere = app.login("ann").await;
    let path = format!("/admin/users/{}", app.id_of("ann").await);
    let last = async || {
        for answer in [
            ann.patch(&path, json!({ "role": "user" })).await,
            ann.patch(&path, json!({ "disabled": true })).await,
            ann.patch(&path, json!({ "disabled": true, "role": "user" }))
                .await,
            ann.delete_account(PASSWORD).await,
        ] {
            answer.assert_error(409, "last_admin");
        }
        elsewhere.get("/admin/users").await.expect(200);
    };
    last().await;
    // Who can't come in is no admin to rely on.
    let bob = app.admin("bob").await;
    app.update_user(&ann, "bob", json!({ "disabled": true }))
        .await;
    last().await;
    app.update_user(&ann, "bob", json!({ "disabled": false }))
        .await;
    bob.get("/users/me").await.expect(401);
    let bob = app.login("bob").await;
    ann.delete_account(PASSWORD).await.expect(204);
    bob.delete_account(PASSWORD)
        .await
        .assert_error(409, "last_admin");
}

#[tokio::test]
async fn of_two_admins_who_demote_each_other_at_once_one_stays() {
    let app = TestApp::new().await;
    let changes = [
        json!({ "role": "user" }),
        json!({ "disabled": true }),
        json!({ "role": "user" }),
    ];
    for (round, change) in changes.into_iter().enumerate() {
        let (first, second) = (format!("ann{round}"), format!("bob{round}"));
        let (ann, bob) = (app.admin(&first).await, app.admin(&second).await);
        let paths = [&first, &second].map(async |name| {
            let id = app.id_of(name).await;
            format!("/admin/users/{id}")
        });
        let [of_ann, of_bob] = paths;
        let (of_ann, of_bob) = (of_ann.await, of_bob.await);
        let (mine, theirs) = tokio::join!(
            ann.patch(&of_bob, change.clone()),
            bob.patch(&of_ann, change.clone()),
        );
        let mut statuses = [mine.status, theirs.status];
        statuses.sort_unstable();
        // The second comes too late, for they are no admin themselves any more.
        assert!(
            [[200, 401], [200, 403], [200, 409]].contains(&statuses),
            "{mine:?} {theirs:?}"
        );
        let left = user::Entity::find()
            .filter(user::Column::Role.eq(user::Role::Admin))
            .filter(user::Column::DisabledAt.is_null())
            .count(app.db.read());
        assert_eq!(left.await.unwrap(), 1);
        // They make room for the next two.
        app.set_all(user::Column::Role, user::Role::User).await;
    }
}

/// On Postgres the two would hold the admin and the user in opposite order.
#[tokio::test]
async fn an_update_of_an_older_user_does_not_deadlock_with_a_bulk_retry() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let (root, boss) = (app.admin("root").await, app.admin("boss").await);
    for owner in [&ann, &boss] {
        let asked = owner.create_post("Growing tomatoes").await;
        owner.cancel(&asked).await.expect(202);
    }
    let path = format!("/admin/users/{}", app.id_of("ann").await);
    let retry = json!({ "action": "retry", "filter": { "status": "canceled" } });
    let tx = app.begin().await;
    let on_postgres = app.db.backend() == DbBackend::Postgres;
    if on_postgres {
        let hold = "SELECT FROM users WHERE username_key = 'ann' FOR UPDATE";
        tx.execute_unprepared(hold).await.unwrap();
    }
    let (retried, changed, ()) = tokio::join!(
        root.post("/admin/jobs/bulk", retry),
        async {
            if on_postgres {
                app.wait_for_lock_waiters(1).await;
            }
            root.patch(&path, json!({ "role": "admin" })).await
        },
        async {
            if on_postgres {
                app.wait_for_lock_waiters(2).await;
            }
            tx.commit().await.unwrap();
        },
    );
    assert_eq!((retried.status, changed.status), (200, 200), "{changed:?}");
    assert_eq!(retried.body["changed"], 2);
    app.run_jobs().await;
}

#[tokio::test]
async fn of_admins_who_delete_their_accounts_at_once_one_stays() {
    let app = TestApp::new().await;
    let mut admins = Vec::new();
    for name in ["ann", "bob", "cay", "dan"] {
        admins.push(app.admin(name).await);
    }
    let leave = admins.iter().map(|admin| admin.delete_account(PASSWORD));
    let answers = join_all(leave).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 204, 204, 409], "{answers:?}");
}

#[tokio::test]
async fn an_admin_who_has_reached_their_own_limit_may_still_administer() {
    let app = TestApp::with(&["--user-max-active-jobs=1"]).await;
    let ann = app.admin("ann").await;
    ann.create_post("Growing tomatoes").await;
    ann.get("/admin/users").await.expect(200);
    app.run_jobs().await;
}
