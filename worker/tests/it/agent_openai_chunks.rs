//! What OpenAI-compatible endpoints write into the chunks of a stream.

use worker::agent::AgentErrorKind::{BadOutput, Rejected, Unavailable};

use super::agent_openai_rows::{DONE, after_tea, agent, delta, events, finish};
use super::agent_rows::Expected::{Cut, Fatal, Retry, Text, Usage};
use super::agent_rows::{EVENTS, Row, check};

#[tokio::test]
async fn chunks_are_read_in_every_form() {
    let stop = "{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}";
    let tea = |name, objects: &[&str]| {
        let body: String = objects
            .iter()
            .map(|object| format!("data: {object}\n\n"))
            .collect();
        (name, body + DONE, Text("Tea."))
    };
    let rows = vec![
        tea(
            "a list of parts",
            &[
                r#"{"choices":[{"delta":{"content":[{"type":"text","text":"Tea"},{"type":"text","text":"."}]}}]}"#,
            ],
        ),
        tea(
            "a list of strings",
            &[r#"{"choices":[{"delta":{"content":["Te","a."]}}]}"#],
        ),
        tea(
            "a part alone",
            &[r#"{"choices":[{"delta":{"content":{"type":"text","text":"Tea."}}}]}"#],
        ),
        tea(
            "a part whose text is an object",
            &[r#"{"choices":[{"delta":{"content":[{"type":"text","text":{"value":"Tea."}}]}}]}"#],
        ),
        tea(
            "no content",
            &[
                r#"{"choices":[{"delta":{"role":"assistant"}}]}"#,
                r#"{"choices":[{"delta":{"content":"Tea."}}]}"#,
                stop,
            ],
        ),
        tea(
            "content that is null",
            &[
                r#"{"choices":[{"delta":{"content":null}}]}"#,
                r#"{"choices":[{"delta":{"content":"Tea."}}]}"#,
                stop,
            ],
        ),
        tea(
            "a delta that is null",
            &[
                r#"{"choices":[{"delta":{"content":"Tea."}}]}"#,
                r#"{"choices":[{"delta":null,"finish_reason":"stop"}]}"#,
            ],
        ),
        tea(
            "no delta",
            &[
                r#"{"choices":[{"delta":{"content":"Tea."}}]}"#,
                r#"{"choices":[{"finish_reason":"stop"}]}"#,
            ],
        ),
        tea(
            "a delta that is a string",
            &[r#"{"choices":[{"delta":"Tea."}]}"#, stop],
        ),
        tea(
            "choices that are null",
            &[
                r#"{"choices":null}"#,
                r#"{"choices":[{"delta":{"content":"Tea."}}]}"#,
                stop,
            ],
        ),
        tea(
            "no choices",
            &[
                r#"{"id":"x","object":"chat.completion.chunk"}"#,
                r#"{"choices":[{"delta":{"content":"Tea."}}]}"#,
                stop,
            ],
        ),
        tea(
            "empty choices with a filter's results",
            &[
                r#"{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}"#,
                r#"{"choices":[{"delta":{"content":"Tea."}}]}"#,
                stop,
            ],
        ),
        tea(
            "one choice without a list",
            &[r#"{"choices":{"delta":{"content":"Tea."},"finish_reason":"stop"}}"#],
        ),
        tea(
            "message in place of delta",
            &[
                r#"{"choices":[{"message":{"content":"Te"}}]}"#,
                r#"{"choices":[{"message":{"content":"a."},"finish_reason":"stop"}]}"#,
            ],
        ),
        tea(
            "messages that repeat what came before",
            &[
                r#"{"choices":[{"message":{"content":"Te"}}]}"#,
                r#"{"choices":[{"message":{"content":"Tea."},"finish_reason":"stop"}]}"#,
            ],
        ),
        tea(
            "the whole message after its pieces",
            &[
                r#"{"choices":[{"delta":{"content":"Tea."}}]}"#,
                r#"{"choices":[{"delta":{},"message":{"content":"Tea."},"finish_reason":"stop"}]}"#,
            ],
        ),
        tea(
            "a whole completion as an event",
            &[
                r#"{"object":"chat.completion","choices":[{"message":{"content":"Tea."},"finish_reason":"stop"}]}"#,
            ],
        ),
        tea(
            "text, as completions had it",
            &[
                r#"{"choices":[{"text":"Te"}]}"#,
                r#"{"choices":[{"text":"a.","finish_reason":"stop"}]}"#,
            ],
        ),
        tea(
            "several choices",
            &[
                r#"{"choices":[{"index":0,"delta":{"content":"Tea."}},{"index":1,"delta":{"content":"Cocoa."}}]}"#,
                stop,
            ],
        ),
        tea(
            "fields that are null",
            &[
                r#"{"choices":[{"delta":{"role":null,"content":"Tea.","tool_calls":null,"refusal":null,"audio":null},"logprobs":null}],"error":null,"usage":null}"#,
                stop,
            ],
        ),
        tea(
            "an error that is empty",
            &[
                r#"{"choices":[{"delta":{"content":"Tea."}}],"error":{}}"#,
                r#"{"error":"","choices":[{"delta":{},"finish_reason":"stop"}]}"#,
            ],
        ),
        tea(
            "an empty code of an error",
            &[
                r#"{"code":0,"message":"","choices":[{"delta":{"content":"Tea."}}]}"#,
                stop,
            ],
        ),
        tea(
            "wrapped into another object",
            &[
                r#"{"code":0,"data":{"choices":[{"delta":{"content":"Tea."},"finish_reason":"stop"}]}}"#,
            ],
        ),
        tea(
            "chunks in a list",
            &[
                r#"[{"choices":[{"delta":{"content":"Te"}}]},{"choices":[{"delta":{"content":"a."},"finish_reason":"stop"}]}]"#,
            ],
        ),
        tea(
            "text after the reason to end",
            &[
                r#"{"choices":[{"delta":{"content":"Te"},"finish_reason":"stop"}]}"#,
                r#"{"choices":[{"delta":{"content":"a."}}]}"#,
            ],
        ),
        tea(
            "a reason to end in each chunk",
            &[
                r#"{"choices":[{"delta":{"content":"Te"},"finish_reason":"STOP"}]}"#,
                r#"{"choices":[{"delta":{"content":"a."},"finish_reason":"STOP"}]}"#,
            ],
        ),
        tea(
            "a nameless reason in each chunk",
            &[
                r#"{"choices":[{"delta":{"content":"Te"},"finish_reason":""}]}"#,
                r#"{"choices":[{"delta":{"content":"a."},"finish_reason":""}]}"#,
            ],
        ),
        (
            "a nameless reason in the last chunk",
            delta("Tea.") + "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"\"}]}\n\n",
            Text("Tea."),
        ),
        (
            "a nameless reason in each chunk of a stream that is cut",
            "data: {\"choices\":[{\"delta\":{\"content\":\"Te\"},\"finish_reason\":\"\"}]}\n\n"
                .repeat(3),
            Retry(Unavailable, "ended before"),
        ),
        (
            "a token that is a number",
            events([r#"{"choices":[{"delta":{"content":7}}]}"#, stop]),
            Text("7"),
        ),
    ];
    check(rows, EVENTS, agent).await;
}

#[tokio::test]
async fn reasons_to_end_are_known_by_every_name() {
    let mut rows: Vec<Row> = Vec::new();
    for reason in [
        "stop",
        "STOP",
        "end_turn",
        "eos",
        "eos_token",
        "stop_sequence",
        "completed",
        "tool_calls",
        "other",
        "done",
        "x",
    ] {
        rows.push((
            "an orderly end",
            finish(&format!("{reason:?}")),
            Text("Tea."),
        ));
    }
    for reason in [
        "length",
        "max_tokens",
        "MAX_TOKENS",
        "max_output_tokens",
        "model_length",
        "model_context_window_exceeded",
    ] {
        rows.push(("a cut", finish(&format!("{reason:?}")), Cut("Tea.")));
    }
    for reason in [
        "content_filter",
        "SAFETY",
        "content_filtered",
        "RECITATION",
        "PROHIBITED_CONTENT",
        "refusal",
        "guardrail_intervened",
        "sensitive",
    ] {
        rows.push((
            "a filter",
            finish(&format!("{reason:?}")),
            Fatal(Rejected, "refuses"),
        ));
    }
    for reason in [
        "error",
        "abort",
        "network_error",
        "insufficient_system_resource",
        "cancelled",
    ] {
        rows.push((
            "a failure",
            finish(&format!("{reason:?}")),
            Retry(BadOutput, "stopped before its end"),
        ));
    }
    rows.push(("no name but true", finish("true"), Text("Tea.")));
    rows.push((
        "no string but an object",
        finish("{\"type\":\"length\"}"),
        Cut("Tea."),
    ));
    rows.push((
        "length, then stop",
        after_tea([
            r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
        ]),
        Cut("Tea."),
    ));
    check(rows, EVENTS, agent).await;
}

#[tokio::test]
async fn counts_are_read_wherever_they_stand() {
    let usage = |name, usage: &str, expected| (name, after_tea([usage]), expected);
    let rows = vec![
        usage(
            "after the text, without choices",
            r#"{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}"#,
            Usage(10, 5),
        ),
        usage(
            "in Groq's own field",
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"x_groq":{"usage":{"prompt_tokens":10,"completion_tokens":5}}}"#,
            Usage(10, 5),
        ),
        usage(
            "in the choice",
            r#"{"choices":[{"delta":{},"finish_reason":"stop","usage":{"prompt_tokens":10,"completion_tokens":5}}]}"#,
            Usage(10, 5),
        ),
        usage(
            "by their newer names",
            r#"{"choices":[],"usage":{"input_tokens":10,"output_tokens":5}}"#,
            Usage(10, 5),
        ),
        usage(
            "as strings",
            r#"{"choices":[],"usage":{"prompt_tokens":"10","completion_tokens":" 5 "}}"#,
            Usage(10, 5),
        ),
        usage(
            "as fractions",
            r#"{"choices":[],"usage":{"prompt_tokens":10.0,"completion_tokens":5.7}}"#,
            Usage(10, 5),
        ),
        usage(
            "negative",
            r#"{"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":5}}"#,
            Usage(0, 5),
        ),
        usage(
            "too large",
            r#"{"choices":[],"usage":{"prompt_tokens":99999999999,"completion_tokens":1e30}}"#,
            Usage(u32::MAX, u32::MAX),
        ),
        usage(
            "one only",
            r#"{"choices":[],"usage":{"prompt_tokens":10}}"#,
            Usage(10, 0),
        ),
        usage(
            "one and their sum",
            r#"{"choices":[],"usage":{"prompt_tokens":10,"total_tokens":15}}"#,
            Usage(10, 5),
        ),
        usage("none", r#"{"choices":[],"usage":{}}"#, Usage(0, 0)),
        usage(
            "not even an object",
            r#"{"choices":[],"usage":"many"}"#,
            Usage(0, 0),
        ),
        (
            "in each chunk",
            events([
                r#"{"choices":[{"delta":{"content":"Te"}}],"usage":{"prompt_tokens":10,"completion_tokens":1}}"#,
                r#"{"choices":[{"delta":{"content":"a."},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":2}}"#,
            ]),
            Usage(10, 2),
        ),
        (
            "and zeros after them",
            after_tea([
                r#"{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}"#,
                r#"{"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0}}"#,
            ]),
            Usage(10, 5),
        ),
    ];
    check(rows, EVENTS, agent).await;
}
