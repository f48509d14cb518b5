//! Watching a job while its post is written.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testing::stub_openai::StubBehavior;
use testing::{EventReader, TestClient, assert_soon, job_path, text};
use tokio::sync::Notify;

use crate::support::TestApp;

const ONE_CALL: &[&str] = &["--agent-writing=one-call"];
const SHORT_LEASE: &[&str] = &["--agent-writing=one-call", "--job-lease-secs=3"];

const BEGINNING: &str = "# Red Gold\n\nTomatoes grow on any balcony that has sun.\n\n\
    ## Sun\n\nSix hours of it make them sweet, and less makes them leafy.\n\n";
const REST: &str = "## Water\n\n```sh\nwater --every morning\n```\n\n| pot | litres |\n|-----|-------:|\n\
    | big | 2 |\n\n## What Follows\n\nBuy a big pot first.\n";

/// Reads a job to its end while a worker writes it, and checks that it has the stored post.
async fn assert_told(
    app: &TestApp,
    ann: &TestClient,
    options: Value,
    arguments: &[&str],
) -> EventReader {
    let body = json!({ "topic": "Tomatoes", "options": options });
    let post = ann.post("/blogs", body).await.expect(202);
    let mut reader = EventReader::of(ann, &post);
    assert_eq!(reader.connect().await, 200);
    let worker = app.worker_with(arguments).await;
    reader.read_to_end().await;
    worker.stop().await;
    assert_has_stored_text(ann, &post, &reader).await;
    reader
}

async fn assert_has_stored_text(ann: &TestClient, post: &Value, reader: &EventReader) {
    let post = ann.get_post(post).await;
    assert_eq!(json!(reader.title), post["title"]);
    assert_eq!(reader.content(), text(&post["content"]));
    let end = reader.end.as_ref().unwrap();
    assert_eq!(
        (&end["status"], &end["version"]),
        (&json!("succeeded"), &post["version"])
    );
}

fn names(reader: &EventReader) -> Vec<String> {
    let events = reader.events.iter();
    events.map(|event| text(&event["event"])).collect()
}

#[tokio::test]
async fn the_text_of_the_events_is_the_stored_post() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let text: &'static str = format!("Sure! Here it is:\n\n{BEGINNING}{REST}\nLet me know!").leak();
    app.agent.set(StubBehavior::WriteText(text));
    let reader = assert_told(&app, &ann, json!({}), ONE_CALL).await;
    let names = names(&reader);
    assert_eq!(
        names.iter().filter(|name| *name == "section.done").count(),
        4
    );
    assert_eq!(names.last().unwrap(), "end");
    let links = &reader.end.unwrap()["links"];
    assert!(
        links["blog"]
            .as_str()
            .unwrap()
            .starts_with("/api/v1/blogs/")
    );
}

#[tokio::test]
async fn a_post_that_is_written_by_a_plan_is_told_with_its_plan_first() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    app.agent.set(StubBehavior::per_request(|call| {
        let prompt = call.prompt();
        StubBehavior::WriteText(if prompt.contains("Plan a blog post") {
            "# Red Gold\n## Sun: How much of it they need.\n## Water: When to give it."
        } else if prompt.contains("Write section 1") {
            "## Sun\n\nSix hours make them sweet."
        } else {
            "The morning is best."
        })
    }));
    let reader = assert_told(&app, &ann, json!({}), &["--agent-writing=by-section"]).await;
    let outlines = reader
        .events
        .iter()
        .filter(|event| event["event"] == "outline");
    let outlines: Vec<_> = outlines.map(|event| &event["data"]["sections"]).collect();
    assert_eq!(
        outlines,
        [&json!([{ "heading": "Sun" }, { "heading": "Water" }])]
    );
}

#[tokio::test]
async fn a_post_by_the_smallest_models_is_told() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    assert_told(&app, &ann, json!({}), &[]).await;
}

#[tokio::test]
async fn a_section_that_is_written_again_is_told_anew() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    app.agent.set(StubBehavior::per_request(|call| {
        StubBehavior::WriteText(if call.prompt().contains("What is wrong") {
            "Big pots hold more of it."
        } else {
            "# Pots\n\n## Sun\n\nSix hours of sun make them sweet.\n\n\
             ## Water\n\nSix hours of sun make them sweet."
        })
    }));
    let reader = assert_told(&app, &ann, json!({}), ONE_CALL).await;
    assert!(names(&reader).contains(&"section.reset".to_owned()));
}

#[tokio::test]
async fn a_second_draft_is_told_only_if_it_is_taken() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let long: &'static str = format!("# Jars\n\n{}", "Jars are good. ".repeat(7)).leak();
    for second in ["# Jars\n\nJars.", long] {
        app.agent.set(StubBehavior::per_request(move |call| {
            let is_second = call.prompt().contains("about 200 words");
            StubBehavior::WriteText(if is_second { second } else { "# Pots\n\nPots." })
        }));
        let options = json!({ "words": 100 });
        assert_told(&app, &ann, options, &["--agent-writing=by-example"]).await;
    }
}

/// A job whose worker vanishes in a section and whose next one ends it, and a reader from the
/// beginning.
async fn written_by_two_workers(app: &TestApp, ann: &TestClient) -> (Value, EventReader) {
    let begun: &'static str = format!("{BEGINNING}## Water\n\nHalf a sec").leak();
    app.agent.set(StubBehavior::WriteAndHang(begun));
    let post = ann.create_post("Tomatoes").await;
    let mut reader = EventReader::of(ann, &post).after(0);
    assert_eq!(reader.connect().await, 200);
    let worker = app.worker_with(SHORT_LEASE).await;
    reader
        .read_until(|reader| reader.content().contains("Half a sec"))
        .await;
    worker.abort();
    app.agent.set(StubBehavior::WriteText(REST));
    let worker = app.worker_with(SHORT_LEASE).await;
    reader.read_to_end().await;
    worker.stop().await;
    (post, reader)
}

#[tokio::test]
async fn what_a_lost_worker_has_begun_is_void_and_its_whole_sections_are_not_told_again() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let (post, reader) = written_by_two_workers(&app, &ann).await;
    assert_has_stored_text(&ann, &post, &reader).await;
    let resets = reader
        .events
        .iter()
        .filter(|event| event["event"] == "section.reset");
    let resets: Vec<_> = resets.map(|event| &event["data"]["section"]).collect();
    assert_eq!(resets, [&json!(2)]);
    let attempts = reader
        .events
        .iter()
        .filter(|event| event["event"] == "status");
    let attempts: Vec<_> = attempts
        .map(|event| {
            (
                text(&event["data"]["status"]),
                event["data"]["attempt"].clone(),
            )
        })
        .collect();
    let expected = [("queued", 0), ("running", 1), ("queued", 1), ("running", 2)];
    let expected = expected.map(|(status, attempt)| (status.to_owned(), json!(attempt)));
    assert_eq!(attempts, expected);
}

#[tokio::test]
async fn a_reader_that_is_cut_off_anywhere_misses_nothing_and_gets_nothing_twice() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let (post, whole) = written_by_two_workers(&app, &ann).await;
    let last = whole.after.unwrap();
    assert_eq!(whole.events.len() as i64, last);
    for cut in 0..last {
        let mut reader = EventReader::of(&ann, &post).after(cut);
        reader.read_to_end().await;
        assert_eq!(reader.events, whole.events[cut as usize..]);
        assert_eq!(reader.snapshots, 0);
    }
    assert_eq!(
        EventReader::of(&ann, &post).after(last).connect().await,
        204
    );
    for unknown in [None, Some(last + 1), Some(i64::from(i32::MAX))] {
        let mut reader = EventReader::of(&ann, &post);
        reader.after = unknown;
        reader.read_to_end().await;
        assert_eq!((reader.snapshots, reader.after), (1, Some(last)));
        assert_has_stored_text(&ann, &post, &reader).await;
    }
}

#[tokio::test]
async fn the_same_events_come_by_long_poll() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let gate = Arc::new(Notify::new());
    app.agent.set(StubBehavior::Gate(gate.clone()));
    let post = ann.create_post("Tomatoes").await;
    let get = async |query: &str| {
        let path = format!("{}/events?{query}", job_path(&post));
        let request = ann.request(reqwest::Method::GET, &path);
        ann.send(request.header("accept", "application/json")).await
    };
    let events = get("after=0").await.expect(200);
    let queued = json!({ "id": 1, "event": "status",
        "data": { "seq": 1, "status": "queued", "attempt": 0 } });
    assert_eq!(events, json!({ "events": [queued], "next": 1 }));
    assert_eq!(
        get("after=1").await.expect(200),
        json!({ "events": [], "next": 1 })
    );
    let snapshot = get("wait=30").await.expect(200);
    assert_eq!(snapshot["events"][0]["event"], "snapshot");
    assert_eq!(
        (&snapshot["events"][0]["id"], &snapshot["next"]),
        (&json!(1), &json!(1))
    );

    let waiting = get("after=1&wait=30");
    let (running, worker) = tokio::join!(waiting, app.worker());
    assert_eq!(
        running.expect(200)["events"][0]["data"]["status"],
        "running"
    );
    gate.notify_one();
    app.agent.set(StubBehavior::Write);
    app.wait_until_jobs_finished().await;
    worker.stop().await;
    let all = get("after=0").await.expect(200);
    let ids = all["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["id"].as_i64());
    let last = all["next"].as_i64().unwrap();
    assert!(ids.eq((1..=last).map(Some)));
    get(&format!("after={last}")).await.assert_status(204);
    get("after=-1")
        .await
        .assert_field_errors(&["after: out_of_range"]);
}

#[tokio::test]
async fn a_canceled_job_ends_for_all_its_readers_at_once() {
    let mut app = TestApp::new().await;
    app.allow_unfinished_jobs();
    let ann = app.user("ann").await;
    app.agent.set(StubBehavior::Hang);
    let post = ann.create_post("Tomatoes").await;
    let worker = app.worker_with(ONE_CALL).await;
    app.agent.called(1).await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut reader = EventReader::of(&ann, &post);
        assert_eq!(reader.connect().await, 200);
        readers.push(reader);
    }
    let canceled = Instant::now();
    ann.cancel(&post).await.expect(202);
    for reader in &mut readers {
        reader.read_to_end().await;
        assert_eq!(reader.end.as_ref().unwrap()["status"], "canceled");
    }
    assert_soon(canceled);
    worker.stop().await;
}

#[tokio::test]
async fn a_failed_job_tells_why_and_goes_on_counting_when_it_is_retried() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    app.agent.set(StubBehavior::Fail(401, "invalid_api_key"));
    let post = ann.create_post("Tomatoes").await;
    let worker = app.worker_with(ONE_CALL).await;
    let mut reader = EventReader::of(&ann, &post).after(0);
    reader.read_to_end().await;
    let end = reader.end.take().unwrap();
    assert_eq!(
        (&end["status"], &end["version"]),
        (&json!("failed"), &Value::Null)
    );
    assert_eq!(end["error"]["code"], "agent_rejected");
    assert_eq!(reader.connect().await, 204);

    app.agent.set(StubBehavior::WriteText(BEGINNING));
    ann.retry(&post).await.expect(202);
    reader.read_to_end().await;
    worker.stop().await;
    assert_has_stored_text(&ann, &post, &reader).await;
    // For who comes later it had not ended then.
    let mut late = EventReader::of(&ann, &post).after(0);
    late.read_to_end().await;
    assert_eq!(names(&late).iter().filter(|name| *name == "end").count(), 1);
    let failed = &late.events[end["seq"].as_u64().unwrap() as usize - 1];
    assert_eq!(
        (&failed["event"], &failed["data"]["status"]),
        (&json!("status"), &json!("failed"))
    );
}

#[tokio::test]
async fn the_events_of_a_finished_job_are_compacted_after_a_while() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let text: &'static str = format!("{BEGINNING}{REST}").leak();
    app.agent.set(StubBehavior::WriteText(text));
    let whole = assert_told(&app, &ann, json!({}), ONE_CALL).await;
    let last = whole.after.unwrap();
    app.execute("UPDATE generation_jobs SET finished_at = '2020-01-01T00:00:00+00:00'")
        .await;
    let compacted = app
        .db
        .transaction(async |tx| shared::events::compact_finished(tx, 9).await);
    assert_eq!(compacted.await.unwrap(), 1);
    let again = app
        .db
        .transaction(async |tx| shared::events::compact_finished(tx, 9).await);
    assert_eq!(again.await.unwrap(), 0);

    let post = &ann.list_all("/blogs").await[0];
    for after in 0..last - 1 {
        let mut reader = EventReader::of(&ann, post).after(after);
        reader.read_to_end().await;
        assert_eq!((reader.snapshots, reader.events.len()), (1, 1));
        assert_has_stored_text(&ann, post, &reader).await;
    }
    let mut reader = EventReader::of(&ann, post).after(last - 1);
    reader.read_to_end().await;
    assert_eq!(reader.snapshots, 0);
    assert_eq!(EventReader::of(&ann, post).after(last).connect().await, 204);
}

#[tokio::test]
async fn a_reader_that_goes_away_cancels_nothing() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let gate = Arc::new(Notify::new());
    app.agent.set(StubBehavior::Gate(gate.clone()));
    let post = ann.create_post("Tomatoes").await;
    let worker = app.worker().await;
    let mut reader = EventReader::of(&ann, &post);
    assert_eq!(reader.connect().await, 200);
    app.agent.called(1).await;
    reader.disconnect();
    app.agent.set(StubBehavior::Write);
    gate.notify_one();
    let mut another = EventReader::of(&ann, &post);
    another.read_to_end().await;
    worker.stop().await;
    assert_has_stored_text(&ann, &post, &another).await;
}

#[tokio::test]
async fn streams_end_with_the_session_the_account_and_the_post() {
    let mut app = TestApp::new().await;
    app.allow_unfinished_jobs();
    let admin = app.admin("root").await;
    let ann = app.user("ann").await;
    let elsewhere = app.login("ann").await;
    let (first, second) = (ann.create_post("One").await, ann.create_post("Two").await);
    let mut readers = Vec::new();
    for (client, post) in [(&ann, &first), (&elsewhere, &first), (&elsewhere, &second)] {
        let mut reader = EventReader::of(client, post);
        assert_eq!(reader.connect().await, 200);
        assert_eq!(reader.next().await.unwrap()["event"], "snapshot");
        readers.push(reader);
    }
    let begun = Instant::now();
    ann.post(
        "/users/logout",
        json!({ "refresh_token": ann.refresh_token }),
    )
    .await
    .assert_status(204);
    assert_eq!(readers[0].next().await, None);
    elsewhere
        .delete(&testing::post_path(&second))
        .await
        .assert_status(200);
    assert_eq!(readers[2].next().await, None);
    app.update_user(&admin, "ann", json!({ "disabled": true }))
        .await;
    // That cancels the job, of which the stream may tell or not.
    while readers[1].next().await.is_some() {}
    assert!(begun.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn jobs_of_others_and_numbers_that_are_none_are_refused() {
    let mut app = TestApp::new().await;
    app.allow_unfinished_jobs();
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let post = ann.create_post("Tomatoes").await;
    assert_eq!(EventReader::of(&bob, &post).connect().await, 404);
    let path = format!("{}/events", job_path(&post));
    let with_id = ann
        .request(reqwest::Method::GET, &path)
        .header("last-event-id", "seven");
    ann.send(with_id)
        .await
        .assert_field_errors(&["Last-Event-ID: invalid"]);
    ann.get(&format!("{path}?wait=61"))
        .await
        .assert_field_errors(&["wait: out_of_range"]);
    let mut reader = EventReader::of(&ann, &post);
    assert_eq!(reader.connect().await, 200);
    assert_eq!(reader.header("content-type"), "text/event-stream");
    assert_eq!(reader.header("cache-control"), "no-store");
    assert_eq!(reader.header("x-accel-buffering"), "no");
}

#[tokio::test]
async fn a_job_that_a_worker_of_an_earlier_version_has_ended_is_told_in_one() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let post = app.ready_post(&ann, "Tomatoes").await;
    app.execute("DELETE FROM job_events").await;
    app.execute("UPDATE generation_jobs SET last_event = 1")
        .await;
    for after in [None, Some(0), Some(1)] {
        let mut reader = EventReader::of(&ann, &post);
        reader.after = after;
        reader.read_to_end().await;
        assert_eq!(reader.snapshots, 1);
        assert_has_stored_text(&ann, &post, &reader).await;
        assert_eq!(reader.connect().await, 204);
    }
}

#[tokio::test]
async fn a_job_that_is_retried_goes_on_from_its_compacted_events() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let begun: &'static str = format!("{BEGINNING}## Water\n\nHalf a sec").leak();
    app.agent.set(StubBehavior::WriteAndHang(begun));
    let post = ann.create_post("Tomatoes").await;
    let worker = app.worker_with(ONE_CALL).await;
    let mut reader = EventReader::of(&ann, &post);
    assert_eq!(reader.connect().await, 200);
    reader
        .read_until(|reader| reader.content().contains("Half a sec"))
        .await;
    ann.cancel(&post).await.expect(202);
    reader.read_to_end().await;
    assert_eq!(reader.end.take().unwrap()["status"], "canceled");
    app.execute("UPDATE generation_jobs SET finished_at = '2020-01-01T00:00:00+00:00'")
        .await;
    let compact = async |tx: &_| shared::events::compact_finished(tx, 9).await;
    assert_eq!(app.db.transaction(compact).await.unwrap(), 1);

    app.agent.set(StubBehavior::WriteText(REST));
    ann.retry(&post).await.expect(202);
    reader.read_to_end().await;
    worker.stop().await;
    assert_has_stored_text(&ann, &post, &reader).await;
    for after in [None, Some(0), Some(3)] {
        let mut late = EventReader::of(&ann, &post);
        late.after = after;
        late.read_to_end().await;
        assert_eq!(late.snapshots, 1);
        assert_has_stored_text(&ann, &post, &late).await;
    }
}
