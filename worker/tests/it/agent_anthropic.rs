use serde_json::{Value, json};
use testing::stub::{Act, Stub, stream};
use worker::agent::{Agent, Anthropic, Limits, Usage};

use super::agent_provider::{KEY, Provider, call, cases, limits};

struct AnthropicProtocol;

/// <https://docs.claude.com/en/docs/build-with-claude/streaming> and
/// <https://docs.claude.com/en/api/errors>
impl Provider for AnthropicProtocol {
    const STOPPED: &str = "end_turn";
    const CUT_SHORT: &str = "max_tokens";
    const REFUSED: &str = "refusal";
    const RATE_LIMITED: &str = "rate_limit_error";
    const OVERLOADED: &str = "overloaded_error";

    fn agent(url: &str, limits: Limits) -> Box<dyn Agent> {
        Box::new(Anthropic::new(url, KEY, &[], limits).unwrap())
    }

    fn debug(url: &str) -> String {
        format!("{:?}", Anthropic::new(url, KEY, &[], limits()).unwrap())
    }

    fn start() -> String {
        let usage = json!({ "input_tokens": 10, "cache_read_input_tokens": 0, "output_tokens": 1 });
        let message = json!({
            "id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "stub",
            "stop_reason": null, "stop_sequence": null, "usage": usage,
        });
        let block = json!({ "type": "text", "text": "" });
        event(json!({ "type": "message_start", "message": message }))
            + &event(json!({ "type": "content_block_start", "index": 0, "content_block": block }))
    }

    fn text(text: &str) -> String {
        let delta = json!({ "type": "text_delta", "text": text });
        event(json!({ "type": "content_block_delta", "index": 0, "delta": delta }))
    }

    fn stop(reason: &str) -> String {
        let delta = json!({ "stop_reason": reason, "stop_sequence": null });
        event(json!({ "type": "content_block_stop", "index": 0 }))
            + &event(
                json!({ "type": "message_delta", "delta": delta, "usage": { "output_tokens": 5 } }),
            )
            + &event(json!({ "type": "message_stop" }))
    }

    fn ping() -> String {
        event(json!({ "type": "ping" }))
    }

    fn error(kind: &str, message: &str) -> Value {
        let error = json!({ "type": kind, "message": message });
        json!({ "type": "error", "error": error, "request_id": "req_1" })
    }

    fn error_event(kind: &str) -> String {
        event(Self::error(kind, "No."))
    }

    fn out_of_money() -> Vec<(u16, Value)> {
        let too_low = "Your credit balance is too low to access the Anthropic API.";
        vec![
            (400, Self::error("invalid_request_error", too_low)),
            (
                402,
                Self::error("billing_error", "There is an issue with your billing."),
            ),
        ]
    }
}

fn event(data: Value) -> String {
    format!(
        "event: {}\ndata: {data}\n\n",
        data["type"].as_str().unwrap()
    )
}

cases!(AnthropicProtocol);

#[tokio::test]
async fn a_request_has_the_key_the_version_and_the_whole_prompt() {
    let acts = [
        AnthropicProtocol::text("Tea."),
        AnthropicProtocol::stop("end_turn"),
    ]
    .map(Act::Chunk);
    let stub = Stub::answering(stream(acts)).await;
    for base_url in [stub.url(), stub.url() + "/v1/"] {
        call(&Anthropic::new(&base_url, KEY, &[], limits()).unwrap())
            .await
            .unwrap();
    }
    for call in stub.calls() {
        assert_eq!(call.line, "POST /v1/messages");
        assert_eq!(call.headers["x-api-key"], KEY);
        assert_eq!(call.headers["anthropic-version"], "2023-06-01");
        let expected = json!({
            "model": "a-model",
            "max_tokens": 100,
            "system": "You write.",
            "messages": [{ "role": "user", "content": "Write about tea." }],
            "stream": true,
        });
        assert_eq!(call.body, expected);
    }
}

#[tokio::test]
async fn thoughts_are_no_text_and_cached_tokens_are_tokens() {
    let thought = json!({ "type": "thinking_delta", "thinking": "Tea?" });
    let usage = json!({
        "input_tokens": 1, "cache_creation_input_tokens": 2, "cache_read_input_tokens": null, "output_tokens": 9,
    });
    let stop =
        json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": usage });
    let acts = [
        event(json!({ "type": "content_block_delta", "index": 0, "delta": thought })),
        AnthropicProtocol::text("Tea."),
        event(stop),
    ];
    let stub = Stub::answering(stream(acts.map(Act::Chunk))).await;
    let reply = call(&Anthropic::new(&stub.url(), KEY, &[], limits()).unwrap())
        .await
        .unwrap();
    assert_eq!(reply.text, "Tea.");
    assert_eq!(
        reply.usage,
        Usage {
            input_tokens: 3,
            output_tokens: 9
        }
    );
}
