//! Answers of Anthropic's API and of gateways that imitate it, with status 200.

use worker::agent::AgentErrorKind::{BadOutput, RateLimited, Rejected, Unavailable};
use worker::agent::{Agent, Anthropic};

use super::agent_provider::{KEY, limits};
use super::agent_rows::Expected::{Cut, Fatal, Retry, Text, Usage};
use super::agent_rows::{EVENTS, JSON, Row, check};

fn agent(url: &str) -> Box<dyn Agent> {
    Box::new(Anthropic::new(url, KEY, &[], limits()).unwrap())
}

const START: &str = r#"{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","content":[],"stop_reason":null,"usage":{"input_tokens":10,"output_tokens":1}}}"#;
const BLOCK: &str =
    r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
const TEA: &str =
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Tea."}}"#;
const BLOCK_END: &str = r#"{"type":"content_block_stop","index":0}"#;
const END: &str = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":5}}"#;
const STOP: &str = r#"{"type":"message_stop"}"#;

/// A stream of these objects, each with the event's name that it should have.
fn events(objects: &[&str]) -> String {
    let event = |object: &&str| {
        let value: serde_json::Value = serde_json::from_str(object).unwrap_or_default();
        let name = value["type"].as_str().unwrap_or_default();
        format!("event: {name}\ndata: {object}\n\n")
    };
    objects.iter().map(event).collect()
}

fn tea() -> String {
    events(&[START, BLOCK, TEA, BLOCK_END, END, STOP])
}

/// A whole stream with this in the place of "Tea.".
fn with_delta(name: &'static str, delta: &str, text: &'static str) -> Row {
    let delta = format!(r#"{{"type":"content_block_delta","index":0,"delta":{delta}}}"#);
    let body = events(&[START, BLOCK, &delta, BLOCK_END, END, STOP]);
    (name, body, Text(text))
}

/// A whole stream with this text.
fn with_text(name: &'static str, raw: &str, text: &'static str) -> Row {
    let raw = serde_json::to_string(raw).unwrap();
    with_delta(
        name,
        &format!(r#"{{"type":"text_delta","text":{raw}}}"#),
        text,
    )
}

/// "Tea.", and then these objects.
fn after_tea(objects: &[&str]) -> String {
    events(&[&[START, BLOCK, TEA][..], objects].concat())
}

#[tokio::test]
async fn streams_are_read_in_every_form() {
    let plain = |name, body: String| (name, body, Text("Tea."));
    let thought = r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm."}}"#;
    let rows = vec![
        ("a plain stream", tea(), Usage(10, 5)),
        plain("a byte order mark", format!("\u{feff}{}", tea())),
        plain("CRLF", tea().replace('\n', "\r\n")),
        plain("no blank lines", tea().replace("\n\n", "\n")),
        plain(
            "no event names",
            tea()
                .lines()
                .filter(|line| !line.starts_with("event"))
                .collect::<Vec<_>>()
                .join("\n"),
        ),
        plain(
            "no types but event names",
            tea().replace(r#""type":"content_block_delta","#, ""),
        ),
        plain(
            "pings",
            format!("event: ping\ndata: {{\"type\": \"ping\"}}\n\n{}", tea()),
        ),
        plain(
            "comments and empty data",
            format!(": x\n\ndata:\n\ndata: null\n\n{}", tea()),
        ),
        plain(
            "events of unknown types",
            events(&[r#"{"type":"content_block_rumor","x":[1]}"#]) + &tea(),
        ),
        plain("an end mark as OpenAI has it", tea() + "data: [DONE]\n\n"),
        plain("rubbish after the end", tea() + "data: {\"typ\n\n"),
        plain("no start", events(&[TEA, END, STOP])),
        plain("no reason to end", after_tea(&[BLOCK_END, STOP])),
        plain("no stop after the reason", after_tea(&[END])),
        plain(
            "text in the block's start",
            events(&[
                START,
                &BLOCK.replace(r#""text":"""#, r#""text":"Tea.""#),
                END,
                STOP,
            ]),
        ),
        plain(
            "text in the message's start",
            events(&[
                &START.replace(
                    r#""content":[]"#,
                    r#""content":[{"type":"text","text":"Tea."}]"#,
                ),
                END,
                STOP,
            ]),
        ),
        plain("thoughts", events(&[START, thought, TEA, END, STOP])),
        plain(
            "thoughts that nobody may read",
            events(&[
                START,
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"redacted_thinking","data":"Eg=="}}"#,
                TEA,
                END,
                STOP,
            ]),
        ),
        plain(
            "a signature",
            events(&[
                START,
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"Eg=="}}"#,
                TEA,
                END,
                STOP,
            ]),
        ),
        with_delta("a delta without a type", r#"{"text":"Tea."}"#, "Tea."),
        with_delta("a delta that is a string", r#""Tea.""#, "Tea."),
        with_delta(
            "content in place of text",
            r#"{"type":"text_delta","content":"Tea."}"#,
            "Tea.",
        ),
        with_text("letters of several bytes", "Té 茶 🍵", "Té 茶 🍵"),
        with_text("thoughts in tags", "<think>Hm.</think>\n\nTea.", "Tea."),
        with_text("only the end of thoughts", "Hm.\n</think>\nTea.", "Tea."),
        with_text(
            "a tag in backticks",
            "The tag `<think>` begins it.",
            "The tag `<think>` begins it.",
        ),
        with_text("a template's token", "Tea.<|im_end|>", "Tea."),
        (
            "a stream that is cut",
            after_tea(&[]),
            Retry(Unavailable, "ended before"),
        ),
        (
            "no text",
            events(&[START, END, STOP]),
            Retry(BadOutput, "no text"),
        ),
        (
            "thoughts alone",
            events(&[START, thought, END, STOP]),
            Retry(BadOutput, "wrote no text"),
        ),
        (
            "an event that is no JSON",
            "data: {\"typ\n\n".into(),
            Retry(BadOutput, "can't be read"),
        ),
    ];
    check(rows, EVENTS, agent).await;
}

#[tokio::test]
async fn reasons_to_stop_and_counts_are_read_in_every_form() {
    let stop = |reason: &str| after_tea(&[&END.replace("end_turn", reason), STOP]);
    let usage = |usage: &str| after_tea(&[&END.replace(r#"{"output_tokens":5}"#, usage), STOP]);
    let rows = vec![
        ("stop_sequence", stop("stop_sequence"), Text("Tea.")),
        ("tool_use", stop("tool_use"), Text("Tea.")),
        ("a name that nobody knows", stop("stop"), Text("Tea.")),
        ("max_tokens", stop("max_tokens"), Cut("Tea.")),
        (
            "the context's end",
            stop("model_context_window_exceeded"),
            Cut("Tea."),
        ),
        ("refusal", stop("refusal"), Fatal(Rejected, "refus")),
        (
            "pause_turn",
            stop("pause_turn"),
            Retry(BadOutput, "pause_turn"),
        ),
        (
            "no delta",
            after_tea(&[
                r#"{"type":"message_delta","usage":{"output_tokens":5}}"#,
                STOP,
            ]),
            Usage(10, 5),
        ),
        (
            "no usage",
            after_tea(&[
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#,
                STOP,
            ]),
            Usage(10, 1),
        ),
        ("usage that is null", usage("null"), Usage(10, 1)),
        (
            "strings",
            usage(r#"{"input_tokens":"20","output_tokens":"5"}"#),
            Usage(20, 5),
        ),
        (
            "negative counts",
            usage(r#"{"input_tokens":-1,"output_tokens":5.5}"#),
            Usage(10, 5),
        ),
        (
            "input again, as zero",
            usage(r#"{"input_tokens":0,"output_tokens":5}"#),
            Usage(10, 5),
        ),
        (
            "cached input",
            usage(
                r#"{"input_tokens":1,"cache_read_input_tokens":2,"cache_creation_input_tokens":null,"output_tokens":5}"#,
            ),
            Usage(3, 5),
        ),
        (
            "a refusal in words",
            events(&[
                START,
                &TEA.replace("Tea.", "I'm sorry, but I can't assist with that."),
                END,
                STOP,
            ]),
            Fatal(Rejected, "can't assist"),
        ),
    ];
    check(rows, EVENTS, agent).await;
}

#[tokio::test]
async fn whole_messages_and_errors_are_read_whatever_their_type() {
    let message = |content: &str, reason: &str| {
        format!(
            r#"{{"type":"message","role":"assistant","content":{content},"stop_reason":{reason},"usage":{{"input_tokens":10,"output_tokens":5}}}}"#
        )
    };
    let tea = r#"[{"type":"text","text":"Tea."}]"#;
    let error =
        |kind: &str| format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"No."}}}}"#);
    let rows = || -> Vec<Row> {
        vec![
            ("a message", message(tea, r#""end_turn""#), Usage(10, 5)),
            (
                "a message without a reason",
                message(tea, "null"),
                Usage(10, 5),
            ),
            (
                "a message that was cut",
                message(tea, r#""max_tokens""#),
                Cut("Tea."),
            ),
            (
                "content that is a string",
                message(r#""Tea.""#, r#""end_turn""#),
                Usage(10, 5),
            ),
            (
                "thoughts before it",
                message(
                    r#"[{"type":"thinking","thinking":"Hm.","signature":"Eg=="},{"type":"text","text":"Tea."}]"#,
                    r#""end_turn""#,
                ),
                Usage(10, 5),
            ),
            (
                "a message without text",
                message("[]", r#""end_turn""#),
                Retry(BadOutput, "no text"),
            ),
            (
                "a refusal",
                message("[]", r#""refusal""#),
                Fatal(Rejected, "refus"),
            ),
            (
                "overloaded",
                error("overloaded_error"),
                Retry(Unavailable, "529"),
            ),
            (
                "an error of the API",
                error("api_error"),
                Retry(Unavailable, "No."),
            ),
            (
                "a limit",
                error("rate_limit_error"),
                Retry(RateLimited, "No."),
            ),
            (
                "a wrong key",
                error("authentication_error"),
                Fatal(Rejected, "No."),
            ),
            (
                "no permission",
                error("permission_error"),
                Fatal(Rejected, "No."),
            ),
            (
                "no money",
                error("billing_error"),
                Fatal(RateLimited, "No."),
            ),
            (
                "a detail",
                r#"{"detail":"Not found"}"#.into(),
                Fatal(Rejected, "Not found"),
            ),
            (
                "a page of HTML",
                "<html><title>Gateway</title></html>".into(),
                Retry(BadOutput, "Gateway"),
            ),
        ]
    };
    for headers in [JSON, EVENTS, ""] {
        check(rows(), headers, agent).await;
    }
    let in_stream = |kind| after_tea(&[&error(kind)]);
    let rows = vec![
        (
            "overloaded, in the stream",
            in_stream("overloaded_error"),
            Retry(Unavailable, "529"),
        ),
        (
            "a limit, in the stream",
            in_stream("rate_limit_error"),
            Retry(RateLimited, "No."),
        ),
        (
            "after the reason to stop",
            after_tea(&[END, &error("api_error")]),
            Text("Tea."),
        ),
        (
            "words",
            after_tea(&[]) + "event: error\ndata: upstream timed out\n\n",
            Retry(worker::agent::AgentErrorKind::Timeout, "upstream"),
        ),
    ];
    check(rows, EVENTS, agent).await;
}
