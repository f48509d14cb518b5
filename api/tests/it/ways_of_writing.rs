//! How capable models write: a whole post in one answer, or by a plan.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use testing::stub::RecordedRequest;
use testing::stub_openai::StubBehavior;
use testing::{TestClient, outcomes, text};

use crate::support::TestApp;

const ONE_CALL: &[&str] = &["--agent-writing=one-call"];
const BY_SECTION: &[&str] = &["--agent-writing=by-section"];

const BEGINNING: &str = "# Red Gold\n\nTomatoes grow on any balcony that has sun.\n\n\
    ## Sun\n\nSix hours of it make them sweet, and less makes them leafy.\n\n";
const REST: &str = "## Water\n\n```sh\nwater --every morning\n```\n\n| pot | litres |\n|-----|-------:|\n| big | 2 |\n\n\
    ## What Follows\n\nBuy a big pot first.\n";

/// A post that was written by a worker with these arguments.
async fn written(app: &TestApp, ann: &TestClient, options: Value, arguments: &[&str]) -> Value {
    let body = json!({ "topic": "Tomatoes", "options": options });
    let post = ann.post("/blogs", body).await.expect(202);
    let worker = app.worker_with(arguments).await;
    app.wait_until_jobs_finished().await;
    let metrics = worker.metrics.render().unwrap();
    worker.stop().await;
    let post = ann.get_post(&post).await;
    // Each warning is counted.
    let warnings = post["job"]["warnings"].as_array().unwrap();
    let counts = metrics.lines().filter_map(|line| {
        let (_, count) = line
            .strip_prefix("blog_job_warnings_total{")?
            .rsplit_once(' ')?;
        count.parse::<usize>().ok()
    });
    assert_eq!(counts.sum::<usize>(), warnings.len());
    post
}

fn times(calls: &[RecordedRequest], text: &str) -> usize {
    calls
        .iter()
        .filter(|call| call.prompt().contains(text))
        .count()
}

#[tokio::test]
async fn a_post_comes_in_one_answer_and_is_stored_as_it_came() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let text: &'static str = format!("{BEGINNING}{REST}").leak();
    app.agent.set(StubBehavior::WriteText(text));
    let post = written(&app, &ann, json!({}), ONE_CALL).await;
    assert_eq!(post["title"], "Red Gold");
    let content = text.strip_prefix("# Red Gold\n\n").unwrap();
    assert_eq!(post["content"], content);
    assert_eq!(post["job"]["warnings"], json!([]));
    assert_eq!(app.agent.calls().len(), 1);
}

#[tokio::test]
async fn a_lost_worker_costs_no_whole_section() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let begun: &'static str = format!("{BEGINNING}## Water\n\nHalf a sec").leak();
    app.agent.set(StubBehavior::WriteAndHang(begun));
    let post = ann.create_post("Tomatoes").await;
    let worker = app
        .worker_with(&["--agent-writing=one-call", "--job-lease-secs=3"])
        .await;
    let has_section = |job: &Value| job["progress"]["words"].as_i64() > Some(15);
    app.wait_for_job(&ann, &post, has_section).await;
    worker.abort();
    app.agent.set(StubBehavior::WriteText(REST));
    let worker = app
        .worker_with(&["--agent-writing=one-call", "--job-lease-secs=3"])
        .await;
    app.wait_until_jobs_finished().await;
    worker.stop().await;

    let job = ann.get_job(&post).await;
    assert_eq!(outcomes(&job), ["lost", "succeeded"]);
    let calls = app.agent.calls();
    assert_eq!(calls.len(), 2);
    assert!(
        calls[1]
            .prompt()
            .contains("Six hours of it make them sweet")
    );
    assert!(!calls[1].prompt().contains("Half a sec"));
    let content = format!("{BEGINNING}{REST}");
    let content = content.strip_prefix("# Red Gold\n\n").unwrap();
    assert_eq!(ann.get_post(&post).await["content"], content);
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_continued() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let begun: &'static str = format!("{BEGINNING}## Water\n\nHalf a sec").leak();
    app.agent.set(StubBehavior::per_request(move |call| {
        if call.prompt().contains("Six hours of it") {
            StubBehavior::WriteText(REST)
        } else {
            StubBehavior::WriteTruncated(begun)
        }
    }));
    let post = written(&app, &ann, json!({}), ONE_CALL).await;
    let content = format!("{BEGINNING}{REST}");
    assert_eq!(
        post["content"],
        content.strip_prefix("# Red Gold\n\n").unwrap()
    );
    assert_eq!(app.agent.calls().len(), 2);
    assert_eq!(post["job"]["warnings"], json!([]));
}

#[tokio::test]
async fn what_is_cut_becomes_a_warning() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    app.agent.set(StubBehavior::WriteTruncated(
        "Sure! Here is your blog post:\n\n# Pots\n\nPots need holes. And they ne",
    ));
    let post = written(&app, &ann, json!({}), ONE_CALL).await;
    assert_eq!(post["content"], "Pots need holes.\n");
    let warnings = post["job"]["warnings"].as_array().unwrap();
    let told: Vec<(&str, &str)> = warnings
        .iter()
        .map(|w| (w["code"].as_str().unwrap(), w["text"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("cut_sentence", "And they ne"),
            ("chatter", "Sure! Here is your blog post:")
        ]
    );
}

#[tokio::test]
async fn thoughts_without_a_beginning_leave_nothing_in_the_post() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let thoughts = "They want a post.\n\n## Plan\n\nSun, then water.\n\n## Length\n\nShort.";
    let text: &'static str = format!("{thoughts}\n</think>\n\n{BEGINNING}{REST}").leak();
    app.agent.set(StubBehavior::WriteText(text));
    let post = written(&app, &ann, json!({}), ONE_CALL).await;
    assert_eq!(post["title"], "Red Gold");
    let content = format!("{BEGINNING}{REST}");
    let content = content.strip_prefix("# Red Gold\n\n").unwrap();
    assert_eq!(post["content"], content);
    assert_eq!(app.agent.calls().len(), 1);
}

#[tokio::test]
async fn an_answer_without_a_post_is_asked_for_again() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = AtomicUsize::new(0);
    app.agent.set(StubBehavior::per_request(move |_| {
        match asked.fetch_add(1, Ordering::Relaxed) {
            0 => StubBehavior::WriteText("Sure! Here is your blog post:"),
            _ => StubBehavior::WriteText("# Pots\n\nPots need holes."),
        }
    }));
    let post = written(&app, &ann, json!({}), ONE_CALL).await;
    assert_eq!(outcomes(&post["job"]), ["failed", "succeeded"]);
    assert_eq!(post["content"], "Pots need holes.\n");
}

#[tokio::test]
async fn a_rewritten_section_tells_what_was_cut_from_it() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    app.agent.set(StubBehavior::per_request(|call| {
        if call.prompt().contains("What is wrong") {
            StubBehavior::WriteTruncated("Big pots hold more of it. And th")
        } else {
            StubBehavior::WriteText(
                "# Pots\n\n## Sun\n\nSix hours of sun make them sweet.\n\n\
                 ## Water\n\nSix hours of sun make them sweet.",
            )
        }
    }));
    let post = written(&app, &ann, json!({}), ONE_CALL).await;
    let expected = json!([{ "code": "cut_sentence", "section": 1, "text": "And th" }]);
    assert_eq!(post["job"]["warnings"], expected);
}

#[tokio::test]
async fn a_section_at_fault_is_written_again_once() {
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
    let post = written(&app, &ann, json!({}), ONE_CALL).await;
    let content =
        "## Sun\n\nSix hours of sun make them sweet.\n\n## Water\n\nBig pots hold more of it.\n";
    assert_eq!(post["content"], content);
    assert_eq!(app.agent.calls().len(), 2);
}

#[tokio::test]
async fn what_stays_wrong_becomes_a_warning() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    app.agent.set(StubBehavior::per_request(|call| {
        StubBehavior::WriteText(if call.prompt().contains("What is wrong") {
            "Six hours of sun make them sweet."
        } else {
            "# Pots\n\n## Sun\n\nSix hours of sun make them sweet.\n\n\
             ## Water\n\nSix hours of sun make them sweet."
        })
    }));
    let post = written(&app, &ann, json!({ "words": 100 }), ONE_CALL).await;
    let expected = json!([
        { "code": "repeated", "section": 1, "text": "Six hours of sun make them sweet." },
        { "code": "length", "section": null, "text": "16 words instead of 100" },
    ]);
    assert_eq!(post["job"]["warnings"], expected);
}

#[tokio::test]
async fn a_post_in_the_wrong_language_is_asked_for_once_more() {
    const GERMAN: &str = "# Rotes Gold\n\nTomaten brauchen viel Sonne und einen tiefen Topf, damit sie gut \
        wachsen. Gib ihnen jeden Morgen Wasser und an heißen Tagen mehr davon.";
    const ENGLISH: &str = "# Red Gold\n\nTomatoes need a lot of sun and a deep pot to grow well. Give them \
        water every morning, and more of it on hot days, because the soil dries out.";
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let asked = AtomicUsize::new(0);
    app.agent.set(StubBehavior::per_request(move |_| {
        let before = asked.fetch_add(1, Ordering::Relaxed);
        StubBehavior::WriteText(if before == 0 { ENGLISH } else { GERMAN })
    }));
    let post = written(&app, &ann, json!({ "language": "de" }), ONE_CALL).await;
    assert_eq!(post["title"], "Rotes Gold");
    assert_eq!(post["job"]["warnings"], json!([]));
    assert_eq!(app.agent.calls().len(), 2);
}

#[tokio::test]
async fn a_worker_that_is_lost_in_the_second_draft_leaves_nothing_of_the_first() {
    const ENGLISH: &str = "# Red Gold\n\nTomatoes need a lot of sun and a deep pot to grow well, and \
        they need it every day.\n\n## Water\n\nGive them water every morning, and more of it on hot \
        days, because the soil dries out.\n\n## Soil\n\nGood soil is dark and smells of the forest.";
    const GERMAN: &str = "# Rotes Gold\n\nTomaten brauchen viel Sonne und einen tiefen Topf, damit sie \
        gut wachsen.\n\n## Wasser\n\nGib ihnen jeden Morgen Wasser und an heißen Tagen mehr davon.\n\n";
    const END: &str = "## Erde\n\nGute Erde ist dunkel und riecht nach Wald.\n";
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let second = Arc::new(AtomicUsize::new(0));
    let asked = second.clone();
    app.agent.set(StubBehavior::per_request(move |call| {
        if call.prompt().contains("Gib ihnen jeden Morgen") {
            return StubBehavior::WriteText(END);
        }
        match asked.fetch_add(1, Ordering::Relaxed) {
            0 => StubBehavior::WriteText(ENGLISH),
            _ => StubBehavior::WriteAndHang(concat!(
                "# Rotes Gold\n\nTomaten brauchen viel Sonne und einen tiefen Topf, damit sie \
                 gut wachsen.\n\n## Wasser\n\nGib ihnen jeden Morgen Wasser und an heißen Tagen \
                 mehr davon.\n\n",
                "## Erde\n\nGu"
            )),
        }
    }));
    let body = json!({ "topic": "Tomatoes", "options": { "language": "de" } });
    let post = ann.post("/blogs", body).await.expect(202);
    let arguments = ["--agent-writing=one-call", "--job-lease-secs=3"];
    let worker = app.worker_with(&arguments).await;
    app.agent.called(2).await;
    let has_section = |job: &Value| (20..40).contains(&job["progress"]["words"].as_i64().unwrap());
    app.wait_for_job(&ann, &post, has_section).await;
    worker.abort();
    let worker = app.worker_with(&arguments).await;
    app.wait_until_jobs_finished().await;
    worker.stop().await;
    let post = ann.get_post(&post).await;
    assert_eq!(post["title"], "Rotes Gold");
    let content = format!("{GERMAN}{END}");
    assert_eq!(
        post["content"],
        content.strip_prefix("# Rotes Gold\n\n").unwrap()
    );
    assert_eq!(app.agent.calls().len(), 3);
}

#[tokio::test]
async fn a_long_post_is_planned_and_written_section_by_section() {
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
    let post = written(&app, &ann, json!({}), BY_SECTION).await;
    assert_eq!(post["title"], "Red Gold");
    let content = "## Sun\n\nSix hours make them sweet.\n\n## Water\n\nThe morning is best.\n";
    assert_eq!(post["content"], content);
    let calls = app.agent.calls();
    assert_eq!(calls.len(), 3);
    assert_eq!(times(&calls, "How much of it they need."), 2);
    assert!(calls[2].prompt().contains("Six hours make them sweet."));
}

#[tokio::test]
async fn a_small_model_sees_an_example_before_the_question() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    app.agent.set(StubBehavior::WriteText(BEGINNING));
    let options = json!({ "instructions": "Mention Tom." });
    let post = written(&app, &ann, options, &["--agent-writing=by-example"]).await;
    assert_eq!(post["title"], "Red Gold");
    let calls = app.agent.calls();
    let messages = calls[0].body["messages"].as_array().unwrap();
    let roles: Vec<_> = messages.iter().map(|message| &message["role"]).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user"]);
    assert!(text(&messages[2]["content"]).starts_with("# "));
    assert!(text(&messages[3]["content"]).contains("Mention Tom."));
}

#[tokio::test]
async fn a_small_model_writes_a_post_of_the_wrong_length_once_more() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let sentence = |number| format!("Pot number {number} breathes. ");
    let sentences: String = (1..=25).map(sentence).collect();
    let long: &'static str = format!("# Pots\n\n{sentences}").leak();
    app.agent.set(StubBehavior::per_request(move |call| {
        if call.prompt().contains("about 200 words") {
            StubBehavior::WriteText(long)
        } else {
            StubBehavior::WriteTruncated("# Pots\n\nPots are good. And they ne")
        }
    }));
    let options = json!({ "words": 100 });
    let post = written(&app, &ann, options, &["--agent-writing=by-example"]).await;
    assert_eq!(post["content"], format!("{}\n", sentences.trim()));
    assert_eq!(post["job"]["warnings"], json!([]));
    assert_eq!(app.agent.calls().len(), 2);
}

#[tokio::test]
async fn a_second_draft_that_is_no_better_is_not_taken() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    app.agent.set(StubBehavior::per_request(move |call| {
        if call.prompt().contains("about 200 words") {
            StubBehavior::WriteTruncated("# Jars\n\nJars are good. And they ne")
        } else {
            StubBehavior::WriteText("# Pots\n\nPots are good.")
        }
    }));
    let options = json!({ "words": 100 });
    let post = written(&app, &ann, options, &["--agent-writing=by-example"]).await;
    assert_eq!(post["title"], "Pots");
    let expected = json!([{ "code": "length", "section": null, "text": "3 words instead of 100" }]);
    assert_eq!(post["job"]["warnings"], expected);
}

#[tokio::test]
async fn a_post_that_is_too_short_has_its_short_sections_written_again() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let sentence = |number| format!("Pot number {number} breathes. ");
    let long: &'static str = (1..=20).map(sentence).collect::<String>().leak();
    app.agent.set(StubBehavior::per_request(move |call| {
        StubBehavior::WriteText(if call.prompt().contains("It is too short") {
            long
        } else {
            "# Pots\n\nHi.\n\n## Clay\n\nIt is good.\n\n## Size\n\n```sh\nmeasure\n```\n"
        })
    }));
    let post = written(&app, &ann, json!({ "words": 100 }), ONE_CALL).await;
    assert_eq!(app.agent.calls().len(), 2);
    let content = format!(
        "Hi.\n\n## Clay\n\n{}\n\n## Size\n\n```sh\nmeasure\n```\n",
        long.trim()
    );
    assert_eq!(post["content"], content);
    assert_eq!(post["job"]["warnings"], json!([]));
}

#[tokio::test]
async fn an_answer_that_goes_round_in_sections_is_ended_and_its_loop_is_told() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let round =
        "## Sun\n\nSix hours of it make them sweet.\n\n## Water\n\nGive it in the morning.\n";
    let text: &'static str = format!("# Pots\n\n{}", round.repeat(20)).leak();
    app.agent.set(StubBehavior::per_request(move |call| {
        StubBehavior::WriteText(if call.prompt().contains("Go on with the next section") {
            "## What Follows\n\nBuy a big pot first.\n"
        } else {
            text
        })
    }));
    let post = written(&app, &ann, json!({}), &["--agent-writing=by-example"]).await;
    let content = format!("{round}\n## What Follows\n\nBuy a big pot first.\n");
    assert_eq!(post["content"], content);
    let warnings = post["job"]["warnings"].as_array().unwrap();
    let looped = warnings.iter().find(|warning| warning["code"] == "loop");
    let told = text_of(looped.expect("a warning of the loop"));
    assert!(told.starts_with("## Water"), "{told}");
    let repeated = warnings
        .iter()
        .find(|warning| warning["code"] == "repeated");
    let told = text_of(repeated.expect("a warning of the section that was left out"));
    assert_eq!(told, "## Sun\n\nSix hours of it make them sweet.");
}

fn text_of(warning: &Value) -> String {
    text(&warning["text"])
}
