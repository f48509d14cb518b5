//! What becomes of what an older version has stored.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use entity::{job, post, user};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseConnection, DbBackend, EntityTrait, PaginatorTrait,
    QueryFilter, QueryOrder, Statement,
};
use serde_json::{Value, json};
use shared::config::StorageSettings;
use shared::database::Database;
use tempfile::TempDir;
use testing::{TestClient, TestDatabase};

use crate::support::TestApp;

async fn asked(user: &TestClient, path: &str, body: Value) -> Value {
    user.post(path, body).await.expect(202)
}

#[tokio::test]
async fn posts_from_before_get_the_options_of_their_latest_jobs() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let german = json!({ "language": "de" });
    for topic in ["Asked for once", "Asked for twice", "Of a forgotten job"] {
        let body = json!({ "topic": topic, "options": german });
        asked(&ann, "/blogs", body).await;
    }
    ann.create_post("Without options").await;
    app.run_jobs().await;
    let posts = post::Entity::find().order_by_asc(post::Column::Id);
    let ids: Vec<_> = posts.clone().all(app.db.read()).await.unwrap();
    let ids: Vec<_> = ids.into_iter().map(|post| post.id).collect();
    let dutch = json!({ "language": "nl" });
    let again = format!("/blogs/{}/regenerate", ids[1]);
    asked(&ann, &again, json!({ "options": dutch })).await;
    app.run_jobs().await;
    let forgotten = job::Entity::delete_many().filter(job::Column::PostId.eq(ids[2]));
    forgotten.exec(app.db.raw_connection()).await.unwrap();

    // As the version before has left it.
    for sql in [
        "DROP INDEX blog_posts_by_user_status_and_change",
        "ALTER TABLE blog_posts DROP COLUMN options",
        "ALTER TABLE generation_jobs DROP COLUMN retried_at",
        "DELETE FROM seaql_migrations WHERE version = 'm20261123_000005_regenerations_and_retries'",
    ] {
        app.execute(sql).await;
    }
    app.db.migrate().await.unwrap();

    let posts = posts.all(app.db.read()).await.unwrap();
    let options: Vec<Value> = posts.into_iter().map(|post| post.options).collect();
    assert_eq!(options, [german, dutch, json!({}), json!({})]);
}

/// The tables, indexes and columns of an SQLite database.
async fn schema(db: &DatabaseConnection) -> BTreeSet<String> {
    let all = "SELECT type || ' ' || tbl_name || ' ' || name || ' ' || COALESCE(sql, '') \
               FROM sqlite_master";
    let rows = db.query_all_raw(Statement::from_string(DbBackend::Sqlite, all));
    let rows = rows.await.unwrap().into_iter();
    rows.map(|row| row.try_get_by_index(0).unwrap()).collect()
}

async fn opened(folder: &TempDir) -> Database {
    let settings = StorageSettings::new(None, folder.path());
    Database::open(&settings).await.unwrap()
}

/// Polls `work` so often, and then gives it up. Whether it came to its end.
async fn ends_within(polls: usize, work: impl Future) -> bool {
    let (mut work, mut left) = (pin!(work), polls);
    let end = poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        work.as_mut().poll(context).map(|_| true)
    });
    end.await
}

#[tokio::test]
async fn a_migration_interrupted_anywhere_is_completed_by_the_next_start() {
    let whole = tempfile::tempdir().unwrap();
    let db = opened(&whole).await;
    db.migrate().await.unwrap();
    let wanted = schema(db.raw_connection()).await;
    let mut polls = 1;
    loop {
        let folder = tempfile::tempdir().unwrap();
        let db = opened(&folder).await;
        let ended = ends_within(polls, db.migrate()).await;
        db.close().await;
        let db = opened(&folder).await;
        db.migrate().await.unwrap();
        assert_eq!(
            schema(db.raw_connection()).await,
            wanted,
            "after {polls} polls"
        );
        if ended {
            break;
        }
        polls += 7;
    }
    assert!(polls > 50, "only {polls} places were tried");
}

/// The first release made its tables statement by statement.
#[tokio::test]
async fn tables_that_the_first_release_has_left_half_made_are_made_anew() {
    let whole = tempfile::tempdir().unwrap();
    let db = opened(&whole).await;
    db.migrate().await.unwrap();
    let wanted = schema(db.raw_connection()).await;
    let mut polls = 3;
    loop {
        let folder = tempfile::tempdir().unwrap();
        let db = opened(&folder).await;
        let first_release = migration::SETS[0].up(db.raw_connection(), None);
        let ended = ends_within(polls, first_release).await;
        db.migrate().await.unwrap();
        assert_eq!(
            schema(db.raw_connection()).await,
            wanted,
            "after {polls} polls"
        );
        if ended {
            break;
        }
        polls += 3;
    }
    assert!(polls > 50, "only {polls} places were tried");
}

#[tokio::test]
async fn tables_that_are_not_ours_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let db = opened(&folder).await;
    let first_two = migration::SETS[0].up(db.raw_connection(), Some(2));
    first_two.await.unwrap();
    for sql in [
        "CREATE TABLE of_the_operator (id INTEGER)",
        "INSERT INTO users (id, username, username_key, password_hash, role, created_at) \
         VALUES (x'01', 'ann', 'ann', '', 'user', '2026-11-27')",
        // The third was broken off here.
        "ALTER TABLE generation_jobs ADD COLUMN turn BIGINT NOT NULL DEFAULT 0",
    ] {
        db.raw_connection().execute_unprepared(sql).await.unwrap();
    }
    db.migrate().await.unwrap();
    let users = user::Entity::find().count(db.read()).await.unwrap();
    assert_eq!(users, 1);
    let insert = "INSERT INTO of_the_operator VALUES (1)";
    db.raw_connection()
        .execute_unprepared(insert)
        .await
        .unwrap();
}

async fn newer(app: &TestApp, table: &str, name: &str) {
    let sql = format!("INSERT INTO {table} (version, applied_at) VALUES ('{name}', 0)");
    app.execute(&sql).await;
}

#[tokio::test]
async fn a_newer_compatible_schema_is_accepted() {
    let app = TestApp::new().await;
    newer(&app, "schema_migrations", "m29990101_000099_more").await;
    app.db.migrate().await.unwrap();
    app.anonymous().get("//ready").await.expect(200);
    let ann = app.user("ann").await;
    ann.create_post("Growing tomatoes").await;
    app.run_jobs().await;
    let status = app.db.schema_status().await.unwrap();
    assert_eq!(status.newer, ["m29990101_000099_more"]);
    assert!(status.pending.is_empty() && status.breaking().is_none());
}

#[tokio::test]
async fn a_newer_incompatible_schema_is_refused_with_the_reason() {
    let app = TestApp::new().await;
    let name = "m29990101_000099_breaking_turns";
    newer(&app, "schema_migrations", name).await;
    let refused = app.db.migrate().await.unwrap_err().to_string();
    assert!(
        refused.contains(name) && refused.contains("too new"),
        "{refused}"
    );
    let ready = app.anonymous().get("//ready").await;
    ready.assert_status(503);
    assert!(ready.text.contains(name), "{}", ready.text);
}

/// Its programs refuse a name there that they don't know.
#[tokio::test]
async fn the_table_of_the_first_release_has_its_five_migrations_for_good() {
    let app = TestApp::new().await;
    let all = "SELECT version FROM seaql_migrations ORDER BY version";
    let all = Statement::from_string(app.db.backend(), all);
    let rows = app.db.read().query_all_raw(all).await.unwrap();
    let names = rows.iter().map(|row| row.try_get_by_index(0).unwrap());
    let names: Vec<String> = names.collect();
    assert_eq!(names, migration::SETS[0].names());
    assert_eq!(names.len(), 5);
}

/// Nobody but a superuser may make them where they are not trusted.
#[tokio::test]
async fn extensions_that_are_missing_on_postgres_are_named() {
    let Some(database) = TestDatabase::empty() else {
        return;
    };
    let url = database.url_of_stranger();
    let settings = StorageSettings::new(Some(url.into()), "unused");
    let db = Database::open(&settings).await.unwrap();
    let refused = format!("{:#}", db.migrate().await.unwrap_err());
    assert!(refused.contains("hstore and pgcrypto"), "{refused}");
}

#[tokio::test]
async fn tables_with_rows_but_no_migration_record_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let db = opened(&folder).await;
    db.migrate().await.unwrap();
    for sql in [
        "INSERT INTO users (id, username, username_key, password_hash, role, created_at) \
         VALUES (x'01', 'ann', 'ann', '', 'user', '2026-11-27')",
        "DELETE FROM seaql_migrations",
    ] {
        db.raw_connection().execute_unprepared(sql).await.unwrap();
    }
    let refused = db.migrate().await.unwrap_err().to_string();
    assert!(refused.contains("the table users has rows"), "{refused}");
    let users = user::Entity::find().count(db.read()).await.unwrap();
    assert_eq!(users, 1);
}
