//! What becomes of what an older version has stored.

use entity::{job, post};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder};
use serde_json::{Value, json};

use crate::test_app::{TestApp, TestClient};

async fn asked(user: &TestClient, path: &str, body: Value) -> Value {
    let answer = user.post(path, body).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body
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
    ann.ask("Without options").await;
    app.run_jobs().await;
    let posts = post::Entity::find().order_by_asc(post::Column::Id);
    let ids: Vec<_> = posts.clone().all(app.db.read()).await.unwrap();
    let ids: Vec<_> = ids.into_iter().map(|post| post.id).collect();
    let dutch = json!({ "language": "nl" });
    let again = format!("/blogs/{}/regenerate", ids[1]);
    asked(&ann, &again, json!({ "options": dutch })).await;
    app.run_jobs().await;
    let forgotten = job::Entity::delete_many().filter(job::Column::PostId.eq(ids[2]));
    forgotten.exec(app.db.write()).await.unwrap();

    // As the version before has left it.
    for sql in [
        "DROP INDEX blog_posts_by_user_status_and_change",
        "ALTER TABLE blog_posts DROP COLUMN options",
        "ALTER TABLE generation_jobs DROP COLUMN retried_at",
        "DELETE FROM seaql_migrations WHERE version = 'm20261123_000005_regenerations_and_retries'",
    ] {
        app.db.write().execute_unprepared(sql).await.unwrap();
    }
    app.db.migrate().await.unwrap();

    let posts = posts.all(app.db.read()).await.unwrap();
    let options: Vec<Value> = posts.into_iter().map(|post| post.options).collect();
    assert_eq!(options, [german, dutch, json!({}), json!({})]);
}
