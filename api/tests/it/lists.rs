//! Lists of posts and jobs: pages, orders and filters.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use api::pagination::{IdCursor, scan_page};
use entity::clock::{new_id, now};
use entity::user;
use sea_orm::prelude::async_trait::async_trait;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, EntityTrait,
    ExecResult, QueryFilter, QueryResult, Set, Statement,
};
use serde_json::{Value, json};
use testing::stub_openai::StubBehavior;
use testing::{TIMEOUT, TestClient, post_path, text};
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::TestApp;

/// As many posts, whose jobs are canceled, so that nothing is left to do.
async fn posts(owner: &TestClient, topics: impl IntoIterator<Item = &str>) -> Vec<Value> {
    let mut posts = Vec::new();
    for topic in topics {
        let post = owner.create_post(topic).await;
        owner.cancel(&post).await.expect(202);
        posts.push(post);
    }
    posts
}

fn ids(items: &[Value]) -> Vec<String> {
    items.iter().map(|item| text(&item["id"])).collect()
}

const SEVEN: [&str; 7] = ["One", "Two", "Three", "Four", "Five", "Six", "Seven"];

#[tokio::test]
async fn pages_lead_through_all_posts_once_in_every_order() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let oldest_first = ids(&posts(&ann, SEVEN).await);
    // Now the order of changes is not the order of age.
    for n in [3, 0, 5] {
        let path = format!("/blogs/{}", oldest_first[n]);
        // Two changes in a millisecond are one time.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        ann.put(&path, json!({ "content": "Changed." })).await;
    }
    let changed_first: Vec<String> = [5, 0, 3, 6, 4, 2, 1]
        .map(|n: usize| oldest_first[n].clone())
        .into();
    let reversed = |ids: &[String]| ids.iter().rev().cloned().collect::<Vec<_>>();
    let orders = [
        ("", reversed(&oldest_first)),
        ("&sort=-created_at", reversed(&oldest_first)),
        ("&sort=created_at", oldest_first),
        ("&sort=-updated_at", changed_first.clone()),
        ("&sort=updated_at", reversed(&changed_first)),
    ];
    for (sort, expected) in orders {
        for limit in [1, 2, 3, 7, 100] {
            let path = format!("/blogs?limit={limit}{sort}");
            let found = ann.list_all(&path).await;
            assert_eq!(ids(&found), expected, "{path}");
        }
    }
}

#[tokio::test]
async fn posts_of_the_same_moment_are_each_listed_once() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let made = ids(&posts(&ann, SEVEN).await);
    let same = "UPDATE blog_posts SET updated_at = (SELECT MAX(updated_at) FROM blog_posts)";
    app.execute(same).await;
    for sort in ["updated_at", "-updated_at"] {
        let found = ann.list_all(&format!("/blogs?limit=2&sort={sort}")).await;
        let mut found = ids(&found);
        if sort.starts_with('-') {
            found.reverse();
        }
        assert_eq!(found, made);
    }
}

#[tokio::test]
async fn posts_added_meanwhile_disturb_no_page() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let made = ids(&posts(&ann, SEVEN).await);
    for path in [
        "/blogs?limit=2",
        "/blogs?limit=2&sort=created_at",
        "/jobs?limit=2",
    ] {
        let count = std::cell::Cell::new(0);
        let add = async || {
            // Not for ever, for the oldest first would never end.
            if count.replace(count.get() + 1) < 3 {
                posts(&ann, ["Late"]).await;
            }
        };
        let found = ann.list_all_with(path, add).await;
        let key = if path.starts_with("/jobs") {
            "blog_id"
        } else {
            "id"
        };
        let found: Vec<String> = found.iter().map(|item| text(&item[key])).collect();
        let distinct: HashSet<&String> = found.iter().collect();
        assert_eq!(distinct.len(), found.len(), "{path}");
        assert!(made.iter().all(|id| distinct.contains(id)), "{path}");
    }
}

#[tokio::test]
async fn pages_lead_through_all_jobs_once() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let posts = posts(&ann, SEVEN).await;
    let mut expected: Vec<String> = posts.iter().map(|post| text(&post["job"]["id"])).collect();
    expected.reverse();
    for limit in [1, 3, 7, 8] {
        for filter in ["", "&status=canceled"] {
            let path = format!("/jobs?limit={limit}{filter}");
            assert_eq!(ids(&ann.list_all(&path).await), expected, "{path}");
        }
    }
    let queued = ann.get("/jobs?status=queued").await;
    assert_eq!(queued.body, json!({ "items": [], "next_cursor": null }));
    let first = ann.get("/jobs?limit=1").await;
    assert_eq!(first.body["items"][0], ann.get_job(&posts[6]).await);
}

#[tokio::test]
async fn a_page_has_twenty_items_unless_another_limit_is_given() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    posts(&ann, ["Crowds"; 21]).await;
    for path in ["/blogs", "/jobs"] {
        assert_eq!(ann.get(path).await.items().len(), 20);
        assert_eq!(ann.list_all(path).await.len(), 21);
    }
}

#[tokio::test]
async fn a_list_has_only_the_users_own_items() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let (of_ann, of_bob) = (
        posts(&ann, ["Mine", "Ours"]).await,
        posts(&bob, ["Mine"]).await,
    );
    for (user, posts) in [(&ann, &of_ann), (&bob, &of_bob)] {
        for path in [
            "/blogs?sort=created_at",
            "/blogs?sort=created_at&q=m&status=canceled",
        ] {
            let found = ids(&user.get(path).await.items());
            let all = ids(posts);
            let expected = if path.contains("q=") {
                &all[..1]
            } else {
                &all[..]
            };
            assert_eq!(found, expected, "{} {path}", user.name);
        }
    }
    // Nor does another's cursor help.
    let cursor = text(&ann.get("/blogs?limit=1").await.expect(200)["next_cursor"]);
    let stolen = bob.get(&format!("/blogs?limit=1&cursor={cursor}")).await;
    stolen.assert_error(400, "invalid_cursor");
}

#[tokio::test]
async fn posts_are_found_by_their_status() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let canceled = posts(&ann, ["Canceled"]).await.remove(0);
    let ready = ann.create_post("Ready").await;
    app.run_jobs().await;
    let failed = ann.create_post("Failed").await;
    app.agent.set(StubBehavior::Fail(401, "invalid_api_key"));
    app.run_jobs().await;
    let generating = ann.create_post("Generating").await;
    let all = [
        ("canceled", &canceled),
        ("ready", &ready),
        ("failed", &failed),
        ("generating", &generating),
    ];
    for (status, post) in all {
        let found = ann.get(&format!("/blogs?status={status}")).await.items();
        assert_eq!(ids(&found), [text(&post["id"])], "{status}");
        assert_eq!(found[0]["status"], status);
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn posts_are_found_by_what_they_contain() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let topics = [
        "Growing Äpfel",
        "100% off_\\now",
        "ΣΟΦΟΣ and Жук",
        "[a-z]* what? <b>",
    ];
    let posts = posts(&ann, topics).await;
    let body = json!({ "content": "A heron stands still.", "title": "Über Birds" });
    ann.put(&post_path(&posts[3]), body).await;
    let cases: [(&str, &[usize]); 29] = [
        ("growing", &[0]),
        ("GROWING Ä", &[0]),
        ("äpfel", &[0]),
        ("ÄPFEL", &[0]),
        ("Äpfel", &[0]),
        ("apfel", &[]),
        ("100%", &[1]),
        ("100% OFF", &[1]),
        ("0%f", &[]),
        ("%", &[1]),
        ("f_\\n", &[1]),
        ("_", &[1]),
        ("\\", &[1]),
        ("жУК", &[2]),
        ("σοφ", &[2]),
        ("σοφος", &[2]),
        ("*", &[3]),
        ("?", &[3]),
        ("[", &[3]),
        ("]", &[3]),
        ("[A-Z]*", &[3]),
        ("wh.t", &[]),
        ("what+", &[]),
        ("? <B>", &[3]),
        ("\\<b", &[]),
        ("über b", &[3]),
        ("HERON stands", &[3]),
        ("w", &[3, 1, 0]),
        ("no such words", &[]),
    ];
    for (q, expected) in cases {
        let mut url = reqwest::Url::parse("http://localhost/blogs").unwrap();
        url.query_pairs_mut()
            .append_pair("q", q)
            .append_pair("limit", "1");
        let path = format!("/blogs?{}", url.query().unwrap());
        let found = ids(&ann.list_all(&path).await);
        let expected: Vec<String> = expected.iter().map(|n| text(&posts[*n]["id"])).collect();
        assert_eq!(found, expected, "{q}");
    }
    assert_eq!(ann.get("/blogs?q=").await.items().len(), 4);
}

/// A search that began anew at each letter would take a minute for these.
#[tokio::test]
async fn a_search_with_many_near_matches_ends() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let body = json!({ "content": "a".repeat(1_000_000) });
    for post in posts(&ann, ["Aaaa"; 10]).await {
        ann.put(&post_path(&post), body.clone()).await.expect(200);
    }
    let path = format!("/blogs?q={}b", "a".repeat(199));
    let search = timeout(Duration::from_secs(30), ann.get(&path));
    let found = search.await.expect("it does not end");
    assert_eq!(found.items().len(), 0);
}

#[tokio::test]
async fn a_summary_is_the_post_without_its_content_and_sources() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = ann.create_post("Summaries").await;
    app.run_jobs().await;
    let mut post = ann.get_post(&asked).await;
    for field in ["content", "sources", "citations", "grounding"] {
        assert!(post.as_object_mut().unwrap().remove(field).is_some());
    }
    let job = post["job"].as_object_mut().unwrap();
    let short = ["id", "status", "phase", "progress", "error"];
    job.retain(|field, _| short.contains(&field.as_str()));
    assert_eq!(job.len(), short.len());
    assert_eq!(ann.get("/blogs").await.items(), [post]);
}

#[tokio::test]
async fn a_summary_has_the_posts_latest_job() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let mut latest = Vec::new();
    for post in posts(&ann, ["First", "Second", "Third"]).await {
        let again = ann.regenerate(&post).await.expect(202);
        assert_ne!(again["job"]["id"], post["job"]["id"]);
        latest.push(again["job"]["id"].clone());
    }
    let found = ann.get("/blogs?sort=created_at").await.items();
    let found: Vec<Value> = found.iter().map(|post| post["job"]["id"].clone()).collect();
    assert_eq!(found, latest);
    app.run_jobs().await;
}

#[tokio::test]
async fn a_letter_is_found_in_each_of_its_cases() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    posts(&ann, ["Ο μικρός κόσμος", "Die Straße nach K\u{212a}"]).await;
    for (q, found) in [
        ("ΚΌΣΜΟΣ", "Ο μικρός κόσμος"),
        ("κόσμοσ", "Ο μικρός κόσμος"),
        ("STRAẞE", "Die Straße nach K\u{212a}"),
        ("kk", "Die Straße nach K\u{212a}"),
    ] {
        let mut url = reqwest::Url::parse("http://localhost/blogs").unwrap();
        url.query_pairs_mut().append_pair("q", q);
        let answer = ann.get(&format!("/blogs?{}", url.query().unwrap())).await;
        let topics: Vec<Value> = answer
            .items()
            .iter()
            .map(|post| post["topic"].clone())
            .collect();
        assert_eq!(topics, [found], "{q}");
    }
}

/// A database in which rows vanish whenever it was asked something.
struct Vanishing<'a> {
    db: &'a DatabaseConnection,
    /// The ids of those that vanish, a few each time.
    left: Mutex<Vec<Uuid>>,
}

impl Vanishing<'_> {
    async fn vanish(&self) {
        let some: Vec<Uuid> = {
            let mut left = self.left.lock().unwrap();
            let from = left.len().saturating_sub(10);
            left.split_off(from)
        };
        let gone = user::Entity::delete_many().filter(user::Column::Id.is_in(some));
        gone.exec(self.db).await.unwrap();
    }
}

#[async_trait]
impl ConnectionTrait for Vanishing<'_> {
    fn get_database_backend(&self) -> DbBackend {
        self.db.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.db.execute_raw(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.db.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let row = self.db.query_one_raw(statement).await;
        self.vanish().await;
        row
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let rows = self.db.query_all_raw(statement).await;
        self.vanish().await;
        rows
    }
}

/// A page looks through 2,500 rows, and the next one goes on from there.
#[tokio::test]
async fn a_page_skips_no_row_though_others_are_deleted_meanwhile() {
    let app = TestApp::new().await;
    let db = app.db.raw_connection();
    let ids: Vec<Uuid> = std::iter::repeat_with(new_id).take(6000).collect();
    for (some, ids) in ids.chunks(500).enumerate() {
        let rows = ids.iter().enumerate().map(|(n, id)| user::ActiveModel {
            id: Set(*id),
            username: Set(format!("u{}", some * 500 + n)),
            username_key: Set(format!("u{}", some * 500 + n)),
            password_hash: Set(String::new()),
            role: Set(user::Role::User),
            disabled_at: Set(None),
            created_at: Set(now()),
        });
        let insert = user::Entity::insert_many(rows);
        insert.exec_without_returning(db).await.unwrap();
    }
    // Those right behind the end of the first page, and of the second.
    let wanted: Vec<Uuid> = ids.iter().rev().skip(2500).take(20).copied().collect();
    let newest: Vec<Uuid> = ids.iter().rev().take(1000).copied().collect();
    let vanishing = Vanishing {
        db,
        left: Mutex::new(newest),
    };
    let (mut found, mut after) = (Vec::new(), None::<IdCursor>);
    loop {
        let mut rows = user::Entity::find();
        if let Some(after) = after {
            rows = rows.filter(user::Column::Id.lt(after.id));
        }
        let is_wanted = Condition::all().add(user::Column::Id.is_in(wanted.clone()));
        let id = user::Column::Id;
        let page = scan_page(&vanishing, rows, Some(is_wanted), id, |user| user.id, 7);
        let (page, next) = page.await.unwrap();
        found.extend(page.into_iter().map(|user| user.id));
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, wanted);
}

#[tokio::test]
async fn a_search_that_takes_too_long_on_postgres_ends_there_too() {
    let app = TestApp::new().await;
    if app.db.backend() != DbBackend::Postgres {
        return;
    }
    app.user("ann").await;
    let slow = user::Entity::find().filter(Expr::cust("pg_sleep(600) IS NOT NULL"));
    let slow = slow.into_model::<user::Model>();
    let limit = Duration::from_millis(50);
    let given_up = app.db.read().all_within(limit, slow).await.unwrap_err();
    assert!(
        given_up.to_string().contains("statement timeout"),
        "{given_up}"
    );
    let running = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND state = 'active' AND query LIKE '%pg_sleep(600)%' \
                   AND pid <> pg_backend_pid()";
    let running = Statement::from_string(DbBackend::Postgres, running);
    // The server tells the error first, and ends the statement right after.
    let ended = async {
        loop {
            let running = app.db.read().query_one_raw(running.clone()).await.unwrap();
            if running.unwrap().try_get_by_index::<i64>(0).unwrap() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, ended).await.expect("it goes on there");
}
