//! Whole answers of OpenAI-compatible endpoints, and what models write besides their text.

use std::sync::Mutex;

use worker::agent::AgentErrorKind::{BadOutput, RateLimited, Rejected, Unavailable};
use worker::agent::Event;

use super::agent_openai_rows::{DONE, STOP, agent, before_tea, delta, events, text};
use super::agent_provider::request;
use super::agent_rows::Expected::{Fatal, Retry, Text, Usage};
use super::agent_rows::{EVENTS, Expected, JSON, Row, Server, check, http};

const WHOLE: &str = r#"{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Tea."},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5}}"#;

fn whole_rows() -> Vec<Row> {
    let pretty: serde_json::Value = serde_json::from_str(WHOLE).unwrap();
    let pretty = serde_json::to_string_pretty(&pretty).unwrap();
    let message = |name, message: &str, expected: Expected| {
        (
            name,
            format!("{{\"choices\":[{{\"message\":{message}}}]}}"),
            expected,
        )
    };
    vec![
        ("a whole answer", WHOLE.into(), Usage(10, 5)),
        ("a byte order mark before it", format!("\u{feff}{WHOLE}"), Usage(10, 5)),
        ("white space before it", format!("\n\n   \n{WHOLE}\n"), Usage(10, 5)),
        ("over several lines", pretty.clone(), Usage(10, 5)),
        ("an end mark after it", format!("{pretty}\n\ndata: [DONE]\n\n"), Usage(10, 5)),
        message("without a reason to end", r#"{"content":"Tea."}"#, Text("Tea.")),
        message("a list of parts", r#"{"content":[{"type":"text","text":"Tea."}]}"#, Text("Tea.")),
        message("thoughts beside it", r#"{"content":"Tea.","reasoning_content":"Hm."}"#, Text("Tea.")),
        message("no content", r#"{"role":"assistant"}"#, Retry(BadOutput, "no text")),
        message("content that is null", r#"{"content":null}"#, Retry(BadOutput, "no text")),
        message("thoughts alone", r#"{"content":"","reasoning_content":"Tea."}"#, Retry(BadOutput, "wrote no text")),
        message("a refusal", r#"{"content":null,"refusal":"I won't."}"#, Fatal(Rejected, "I won't.")),
        ("no choices", r#"{"choices":[]}"#.into(), Retry(BadOutput, "no text")),
        ("chunks, one a line", "{\"choices\":[{\"delta\":{\"content\":\"Te\"}}]}\n{\"choices\":[{\"delta\":{\"content\":\"a.\"},\"finish_reason\":\"stop\"}]}\n".into(), Text("Tea.")),
        ("chunks that are cut", "{\"choices\":[{\"delta\":{\"content\":\"Te\"}}]}\n{\"choices\":[{\"delta\":{\"content\":\"a.\"}}]}\n".into(), Retry(Unavailable, "ended before")),
        ("half of it", WHOLE[..60].into(), Retry(BadOutput, "can't be read")),
        ("a stream, whatever its type", text("Tea."), Text("Tea.")),
        ("a page of HTML", "<!doctype html><html><body>Sign in</body></html>".into(), Retry(BadOutput, "Sign in")),
        ("an error", r#"{"error":{"message":"Slow down.","type":"rate_limit_error"}}"#.into(), Retry(RateLimited, "Slow down.")),
        ("an error that is a string", r#"{"error":"model not found"}"#.into(), Fatal(Rejected, "model not found")),
        ("a detail", r#"{"detail":"Invalid API key"}"#.into(), Fatal(Rejected, "Invalid API key")),
        ("a message", r#"{"message":"Internal error"}"#.into(), Retry(Unavailable, "Internal error")),
        ("errors in a list", r#"{"success":false,"errors":[{"code":7009,"message":"Upstream failed"}]}"#.into(), Retry(Unavailable, "Upstream failed")),
        ("a code and its words", r#"{"code":500,"msg":"Broken","success":false}"#.into(), Retry(Unavailable, "Broken")),
        ("MiniMax's own form", r#"{"choices":null,"base_resp":{"status_code":1004,"status_msg":"authentication failed"}}"#.into(), Fatal(Rejected, "authentication failed")),
    ]
}

#[tokio::test]
async fn whole_answers_to_requests_for_streams_are_read() {
    for headers in [
        JSON,
        EVENTS,
        "content-type: text/html; charset=utf-8\r\n",
        "",
    ] {
        check(whole_rows(), headers, agent).await;
    }
}

#[tokio::test]
async fn a_refusal_comes_in_pieces_or_in_words() {
    let refusal = |name, text: &str| (name, self::text(text), Fatal(Rejected, "refuses to write"));
    let rows = vec![
        (
            "in a field of its own",
            events([
                r#"{"choices":[{"delta":{"refusal":"I'm sorry, "}}]}"#,
                r#"{"choices":[{"delta":{"refusal":"no."},"finish_reason":"stop"}]}"#,
            ]),
            Fatal(Rejected, "I'm sorry, no."),
        ),
        refusal(
            "in English",
            "I'm sorry, but I can't help with that request.",
        ),
        refusal(
            "in German",
            "Es tut mir leid, aber dabei kann ich nicht helfen.",
        ),
        refusal("in Chinese", "很抱歉，我无法协助处理该请求。"),
        refusal(
            "after thoughts",
            "<think>No.</think>I cannot assist with that.",
        ),
        (
            "a text that only begins like one",
            text("I can't write about tea without thinking of you."),
            Text("I can't write about tea without thinking of you."),
        ),
    ];
    check(rows, EVENTS, agent).await;
}

#[tokio::test]
async fn thoughts_are_no_text() {
    let field = |name, field: &str| {
        let thought = format!("{{\"choices\":[{{\"delta\":{{{field}}}}}]}}");
        (name, before_tea([&thought, &thought]), Text("Tea."))
    };
    let tea = |name, raw: &str| (name, text(raw), Text("Tea."));
    let same = |name, raw: &'static str| (name, text(raw), Text(raw));
    let rows = vec![
        field(
            "reasoning_content",
            r#""reasoning_content":"Hm.","content":null"#,
        ),
        field("reasoning", r#""reasoning":"Hm.","content":"""#),
        field("thinking", r#""thinking":"Hm.""#),
        field(
            "reasoning_details",
            r#""reasoning_details":[{"type":"reasoning.text","text":"Hm."}]"#,
        ),
        field(
            "parts of that type",
            r#""content":[{"type":"thinking","thinking":[{"type":"text","text":"Hm."}]}]"#,
        ),
        tea("<think>", "<think>\nHm.\n</think>\n\nTea."),
        tea("<thinking>", "<thinking>Hm.</thinking>Tea."),
        tea("<reasoning>", "<reasoning>Hm.</reasoning>Tea."),
        tea("no beginning", "Hm.\n</think>\n\nTea."),
        tea(
            "gpt-oss",
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Tea.",
        ),
        tea(
            "an answer in tags behind them",
            "<think>Hm.</think>\n<answer>Tea.</answer>",
        ),
        same(
            "a tag in backticks",
            "The tag `<think>` begins a thought. More.",
        ),
        same("a tag in a block of code", "```\n<think>\n```\n\nMore."),
        (
            "thoughts that do not end",
            text("<think>Tea."),
            Retry(BadOutput, "wrote no text"),
        ),
    ];
    check(rows, EVENTS, agent).await;
}

#[tokio::test]
async fn a_model_that_does_not_mark_its_thoughts_is_known_by_then() {
    let stream = delta("Hm. ") + &delta("Hm.\n</think>\nTea.") + STOP + DONE;
    let server = Server::start(vec![http(200, EVENTS, stream.as_bytes())]).await;
    let agent = agent(&server.url);
    let mut restarts = Vec::new();
    for _ in 0..2 {
        let events = Mutex::new(Vec::new());
        let listen = |event| events.lock().unwrap().push(event);
        agent.call(&request(), &listen).await.unwrap();
        let events = events.into_inner().unwrap();
        restarts.push(events.contains(&Event::Discarded));
        assert_eq!(events.last(), Some(&Event::Text("Tea.".into())));
    }
    assert_eq!(restarts, [true, false]);
}

#[tokio::test]
async fn template_tokens_at_the_end_are_no_text() {
    let tea = |name, raw: &str| (name, text(raw), Text("Tea."));
    let same = |name, raw: &'static str| (name, text(raw), Text(raw));
    let rows = vec![
        tea("ChatML", "Tea.<|im_end|>"),
        tea("Llama 3", "Tea.<|eot_id|>"),
        tea("Llama 2", "Tea.</s>"),
        tea("Gemma", "Tea.<end_of_turn>\n<end_of_turn>\n"),
        tea("Mistral", "Tea.[/INST]"),
        tea("GPT", "Tea.<|endoftext|>"),
        tea(
            "a turn that follows",
            "Tea.<|im_end|>\n<|im_start|>user\nMore?<|im_end|>\n<|im_start|>assistant\nNo.",
        ),
        tea("tokens before it", "<|im_start|>assistant\nTea."),
        same("tokens in backticks", "A turn ends with `<|im_end|>`"),
        same("struck out text", "It costs <s>ten</s> five."),
    ];
    check(rows, EVENTS, agent).await;
}
