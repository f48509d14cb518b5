//! The main path, once through.

use crate::support::{TestApp, text};

#[tokio::test]
async fn a_topic_becomes_a_post() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;

    let asked = ann.create_post("Growing tomatoes on a balcony").await;
    assert_eq!(asked["status"], "generating");
    assert_eq!(asked["job"]["status"], "queued");
    assert_eq!(asked["job"]["queue_position"], 1);
    app.run_jobs().await;

    let job = ann
        .get(&format!("/jobs/{}", text(&asked["job"]["id"])))
        .await
        .body;
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(job["progress"]["percent"], 100);
    assert_eq!(job["attempts"][0]["outcome"], "succeeded");

    let post = ann
        .get(&format!("/blogs/{}", text(&asked["id"])))
        .await
        .body;
    assert_eq!(post["status"], "ready");
    assert_eq!(post["title"], "A Good Title");
    let content = text(&post["content"]);
    assert_eq!(content.matches("\n## ").count() + 1, 4, "{content}");
}
