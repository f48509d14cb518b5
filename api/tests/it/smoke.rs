//! The main path, once through.

use serde_json::json;
use testing::{assert_fields, outcomes, text};

use crate::support::TestApp;

#[tokio::test]
async fn a_topic_becomes_a_post() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;

    let asked = ann.create_post("Growing tomatoes on a balcony").await;
    let job = json!({ "status": "queued", "queue_position": 1 });
    assert_fields(&asked, json!({ "status": "generating", "job": job }));
    app.run_jobs().await;

    let job = ann.get_job(&asked).await;
    let expected = json!({ "status": "succeeded", "progress": { "percent": 100 } });
    assert_fields(&job, expected);
    assert_eq!(outcomes(&job), ["succeeded"]);

    let post = ann.get_post(&asked).await;
    assert_fields(&post, json!({ "status": "ready", "title": "A Good Title" }));
    let content = text(&post["content"]);
    assert_eq!(content.matches("\n## ").count() + 1, 4, "{content}");
}
