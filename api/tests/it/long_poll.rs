//! How many may wait for a job at once.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use testing::job_path;

use crate::support::TestApp;

/// How many a user may.
const PLACES: usize = 32;

#[tokio::test]
async fn a_user_beyond_the_long_poll_limit_is_answered_at_once() {
    let app = TestApp::new().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let (of_ann, of_bob) = (
        ann.create_post("Queues").await,
        bob.create_post("Queues").await,
    );
    let long = format!("{}?wait=60", job_path(&of_ann));
    // Whoever finds no place asks again.
    let wait = async || loop {
        let job = ann.get(&long).await.expect(200);
        if job["status"] != "queued" {
            return job;
        }
    };
    let waiting = join_all((0..PLACES).map(|_| wait()));
    let meanwhile = async {
        // Nobody tells when all of them wait; then this finds no place.
        let short = format!("{}?wait=1", job_path(&of_ann));
        while takes_a_second(ann.get(&short)).await {}
        let body = json!({ "topic": "Lines" });
        let asked = ann.request(Method::POST, "/blogs").json(&body);
        let asked = ann.send(asked.header("prefer", "wait=60")).await;
        asked.assert_status(202);
        assert_eq!(asked.header("preference-applied"), "");
        assert_eq!(asked.body["job"]["status"], "queued");
        ann.cancel(&asked.body).await;

        let short = format!("{}?wait=1", job_path(&of_bob));
        assert!(takes_a_second(bob.get(&short)).await);
        ann.cancel(&of_ann).await;
    };
    let (waited, ()) = tokio::join!(waiting, meanwhile);
    assert!(waited.iter().all(|job| job["status"] == "canceled"));
    // They have left their places.
    let another = ann.create_post("Rows").await;
    let short = format!("{}?wait=1", job_path(&another));
    assert!(takes_a_second(ann.get(&short)).await);
    for (user, post) in [(&ann, &another), (&bob, &of_bob)] {
        user.cancel(post).await;
    }
}

async fn takes_a_second<T>(request: impl Future<Output = T>) -> bool {
    let begun = Instant::now();
    request.await;
    begun.elapsed() >= Duration::from_secs(1)
}
