//! What a job knows of the request that it comes from.

use entity::job;
use reqwest::Method;
use reqwest::header::HeaderValue;
use sea_orm::EntityTrait;
use serde_json::{Value, json};
use testing::stub_openai::StubBehavior;
use testing::{TestClient, text};

use crate::support::TestApp;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const ANOTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// Makes a request that asks for a job, and returns the post.
async fn ask(client: &TestClient, path: &str, headers: &[(&str, &str)]) -> Value {
    let request = client.request(Method::POST, path);
    let request = match path {
        "/blogs" => request.json(&json!({ "topic": "Growing tomatoes" })),
        _ => request.json(&json!({})),
    };
    let named = |request: reqwest::RequestBuilder, (name, value): &(&str, &str)| {
        request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    let answer = client.send(headers.iter().fold(request, named)).await;
    answer.assert_status(202);
    answer.body
}

/// What stands in the row of a job.
async fn origin(app: &TestApp, job: &Value) -> (String, Option<String>) {
    let id = text(&job["id"]).parse::<uuid::Uuid>().unwrap();
    let job = job::Entity::find_by_id(id).one(app.db.read()).await;
    let job = job.unwrap().expect("the job is gone");
    (job.request_id.unwrap(), job.traceparent)
}

#[tokio::test]
async fn a_job_keeps_the_request_that_asked_for_it() {
    let app = TestApp::new().await;
    app.agent.set(StubBehavior::Fail(401, "invalid_api_key"));
    let ann = app.user("ann").await;
    let first = [("x-request-id", "first"), ("traceparent", TRACEPARENT)];
    let post = ask(&ann, "/blogs", &first).await;
    let expected = |id: &str, trace: &str| (id.to_owned(), Some(trace.to_owned()));
    assert_eq!(
        origin(&app, &post["job"]).await,
        expected("first", TRACEPARENT)
    );

    // Whoever has it tried again is whom the next attempt is for.
    app.run_jobs().await;
    let again = [("x-request-id", "again"), ("traceparent", ANOTHER)];
    let job = ask(&ann, &retry_of(&post), &again).await;
    assert_eq!(job["id"], post["job"]["id"]);
    assert_eq!(origin(&app, &job).await, expected("again", ANOTHER));

    app.run_jobs().await;
    let anew = [("x-request-id", "anew"), ("traceparent", TRACEPARENT)];
    let regenerate = format!("/blogs/{}/regenerate", text(&post["id"]));
    let post = ask(&ann, &regenerate, &anew).await;
    assert_eq!(
        origin(&app, &post["job"]).await,
        expected("anew", TRACEPARENT)
    );

    // One that says nothing of itself has the id that we gave it.
    app.run_jobs().await;
    let answer = ann.post(&retry_of(&post), json!({})).await;
    let (id, traceparent) = origin(&app, &answer.body).await;
    assert_eq!(
        (id.as_str(), traceparent),
        (answer.header("x-request-id"), None)
    );
    app.run_jobs().await;
}

fn retry_of(post: &Value) -> String {
    format!("/jobs/{}/retry", text(&post["job"]["id"]))
}

#[tokio::test]
async fn an_invalid_traceparent_is_ignored() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let upper = TRACEPARENT.to_uppercase();
    let insane: [&[&str]; 8] = [
        &[""],
        &["id=1 level=error"],
        &["\u{e9}"],
        &[&upper],
        &["00-00000000000000000000000000000000-00f067aa0ba902b7-01"],
        &["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"],
        &["cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-brings"],
        &[TRACEPARENT, ANOTHER],
    ];
    for values in insane {
        let headers: Vec<_> = values.iter().map(|v| ("traceparent", *v)).collect();
        let post = ask(&ann, "/blogs", &headers).await;
        assert_eq!(origin(&app, &post["job"]).await.1, None, "{values:?}");
    }
    app.run_jobs().await;
}
