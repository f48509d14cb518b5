//! Arguments that an endpoint refuses: left out, renamed, and remembered.

use serde_json::{Value, json};
use worker::agent::AgentErrorKind::{BadOutput, Rejected, Unavailable};
use worker::agent::{Agent, Anthropic, ModelSettings, OpenAi};

use super::agent_provider::{KEY, limits};
use super::agent_rows::Expected::{Fatal, Retry};
use super::agent_rows::{EVENTS, JSON, Server, http, reply};

const TEA: &str = r#"{"choices":[{"message":{"content":"Tea."},"finish_reason":"stop"}]}"#;

fn settings(thinking_tokens: Option<&str>, extra_body: Value) -> ModelSettings {
    ModelSettings {
        thinking_tokens: thinking_tokens
            .map_or_else(Default::default, |text| text.parse().unwrap()),
        extra_body: extra_body.as_object().cloned().unwrap_or_default(),
    }
}

fn openai(url: &str, settings: ModelSettings) -> OpenAi {
    let agent = OpenAi::new(&format!("{url}/v1"), None, &[], limits()).unwrap();
    agent.with_settings(settings).with_repeat_penalty(1.1)
}

fn message(message: &str) -> String {
    json!({ "error": { "message": message, "type": "invalid_request_error" } }).to_string()
}

/// What was sent after the refusal, in the same call and in the next one.
async fn after_refusal(status: u16, body: &str, extra_body: Value) -> Value {
    let refusal = http(status, JSON, body.as_bytes());
    let server = Server::start(vec![refusal, http(200, JSON, TEA.as_bytes())]).await;
    let agent = openai(&server.url, settings(None, extra_body));
    for _ in 0..2 {
        let reply = reply(&agent).await;
        assert_eq!(
            reply.as_ref().map(|reply| reply.text.as_str()),
            Ok("Tea."),
            "{body}: {reply:?}"
        );
    }
    let bodies = server.bodies();
    assert_eq!(bodies.len(), 3, "{body}");
    assert_eq!(bodies[1], bodies[2], "{body}");
    bodies[1].clone()
}

#[tokio::test]
async fn what_is_refused_is_left_out_from_then_on() {
    let rows: &[(u16, String, &str)] = &[
        (400, message("Unsupported value: 'temperature' does not support 0.4 with this model. Only the default (1) value is supported."), "temperature"),
        (400, json!({ "error": { "message": "Unsupported parameter", "param": "temperature", "code": "unsupported_parameter" } }).to_string(), "temperature"),
        (400, message("invalid temperature: only 1 is allowed for this model"), "temperature"),
        (400, message("`temperature` is deprecated for this model."), "temperature"),
        (400, message("property 'stream_options' is unsupported, did you mean 'stream'?"), "stream_options"),
        (400, message("Unrecognized request argument supplied: stream_options"), "stream_options"),
        (400, message("Invalid JSON payload received. Unknown name \"stream_options\": Cannot find field."), "stream_options"),
        (400, message("unknown field `stream_options`, expected one of `model`, `messages`, `temperature`"), "stream_options"),
        (400, message("[{'type': 'extra_forbidden', 'loc': ('body', 'stream_options'), 'msg': 'Extra inputs are not permitted', 'input': {'include_usage': True}}]"), "stream_options"),
        (422, json!({ "detail": [{ "type": "extra_forbidden", "loc": ["body", "stream_options", "include_usage"], "msg": "Extra inputs are not permitted", "input": true }] }).to_string(), "stream_options"),
        (422, json!({ "object": "error", "message": { "detail": [{ "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted" }] } }).to_string(), "stream_options"),
        (422, json!({ "detail": [{ "loc": ["body", "repeat_penalty"], "msg": "extra fields not permitted", "type": "value_error.extra" }] }).to_string(), "repeat_penalty"),
        (400, json!({ "errors": [{ "loc": ["body", "repeat_penalty"], "msg": "Extra inputs are not permitted" }] }).to_string(), "repeat_penalty"),
        (400, message("Argument not supported on this model: repeatPenalty"), "repeat_penalty"),
        (400, message("Extra inputs are not permitted, field: 'repeat_penalty', value: 1.1"), "repeat_penalty"),
        (500, message("litellm.UnsupportedParamsError: x does not support parameters: ['repeat_penalty']"), "repeat_penalty"),
        (400, message("\"a-model\" does not support thinking"), "think"),
        (400, message("unsupported parameter: 'think'"), "think"),
        (400, message("max_tokens is not supported"), "max_tokens"),
        (200, message("Unsupported parameter: 'temperature' is not supported"), "temperature"),
    ];
    for (status, body, name) in rows {
        let sent = after_refusal(*status, body, json!({ "think": false })).await;
        let mut expected = json!({ "temperature": 0.4, "stream_options": { "include_usage": true }, "repeat_penalty": 1.1, "think": false, "max_tokens": 100 });
        expected.as_object_mut().unwrap().remove(*name);
        for name in ["model", "messages", "stream"] {
            expected[name] = sent[name].clone();
        }
        assert_eq!(sent, expected, "{body}");
        assert_eq!(sent["stream"], true);
    }
}

#[tokio::test]
async fn limits_of_tokens_are_renamed_or_kept() {
    let rows: &[(&str, Value)] = &[
        (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            json!({ "max_completion_tokens": 100 }),
        ),
        (
            "max_tokens: 100 > 64, which is the maximum allowed number of output tokens for a-model-20241022",
            json!({ "max_tokens": 64 }),
        ),
        (
            "`max_tokens` must be less than or equal to `90`, the maximum value for `max_tokens`",
            json!({ "max_tokens": 90 }),
        ),
        (
            "Invalid max_tokens value, the valid range of max_tokens is [1, 50]",
            json!({ "max_tokens": 50 }),
        ),
        (
            "max_tokens is too large: 100. This model supports at most 80 completion tokens, whereas you provided 100.",
            json!({ "max_tokens": 80 }),
        ),
    ];
    for (text, expected) in rows {
        let sent = after_refusal(400, &message(text), Value::Null).await;
        let kept = ["max_tokens", "max_completion_tokens"].iter();
        let kept: Value = kept
            .filter_map(|name| Some(((*name).to_owned(), sent.get(*name)?.clone())))
            .collect();
        assert_eq!(&kept, expected, "{text}");
    }
}

#[tokio::test]
async fn what_a_prompt_leaves_of_the_context_holds_for_one_call() {
    let rows = [
        "This model's maximum context length is 4096 tokens. However, you requested 5100 tokens (1000 in the \
         messages, 4100 in the completion). Please reduce the length of the messages or completion.",
        "This model's maximum context length is 4096 tokens. However, you requested 5100 tokens. Please reduce it.",
        "'max_tokens' or 'max_completion_tokens' is too large: 4100. This model's maximum context length is 4096 \
         tokens and your request has 1000 input tokens (4100 > 4096 - 1000).",
        "input length and `max_tokens` exceed context limit: 1000 + 4100 > 4096, decrease input length or \
         `max_tokens` and try again",
    ];
    for text in rows {
        let refusal = http(400, JSON, message(text).as_bytes());
        let tea = http(200, JSON, TEA.as_bytes());
        let server = Server::start(vec![refusal.clone(), tea.clone(), refusal, tea]).await;
        let agent = openai(&server.url, settings(Some("4000"), Value::Null));
        for _ in 0..2 {
            reply(&agent).await.unwrap();
        }
        let tokens = server
            .bodies()
            .into_iter()
            .map(|body| body["max_tokens"].as_u64().unwrap());
        assert_eq!(
            tokens.collect::<Vec<_>>(),
            [4100, 3096, 4100, 3096],
            "{text}"
        );
    }
}

#[tokio::test]
async fn without_streaming_a_whole_answer_is_asked_for() {
    let rows = [
        (400, "Streaming is not supported for this model"),
        (
            400,
            "Your organization must be verified to stream this model.",
        ),
        (501, "stream=true is not supported"),
    ];
    for (status, text) in rows {
        let sent = after_refusal(status, &message(text), Value::Null).await;
        assert_eq!(
            (&sent["stream"], &sent["stream_options"]),
            (&json!(false), &Value::Null),
            "{text}"
        );
    }
}

#[tokio::test]
async fn without_a_system_role_the_user_says_it_all() {
    let rows = [
        (400, "System role not supported"),
        (
            400,
            "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        ),
        (
            400,
            "Developer instruction is not enabled for models/gemma-3-27b-it",
        ),
        (
            400,
            "Conversation roles must alternate user/assistant/user/assistant/...",
        ),
        (400, "a-model does not support system messages"),
        (
            422,
            "Input should be 'user' or 'assistant', not role 'system'",
        ),
        (500, "Jinja Exception: System role not supported"),
    ];
    for (status, text) in rows {
        let sent = after_refusal(status, &message(text), Value::Null).await;
        let expected = json!([{ "role": "user", "content": "You write.\n\nWrite about tea." }]);
        assert_eq!(sent["messages"], expected, "{text}");
    }
    let refusal = json!({ "detail": "System messages are not allowed" }).to_string();
    after_refusal(400, &refusal, Value::Null).await;
}

#[tokio::test]
async fn anthropic_is_understood_as_well() {
    let message_of = |text: &str| {
        json!({ "type": "error", "error": { "type": "invalid_request_error", "message": text } })
            .to_string()
    };
    let whole =
        json!({ "type": "message", "content": [{ "type": "text", "text": "Tea." }] }).to_string();
    let all = json!({
        "model": "a-model", "max_tokens": 100, "system": "You write.", "stream": true, "top_k": 5,
        "messages": [{ "role": "user", "content": "Write about tea." }],
    });
    let with = |name: &str, value: Value| {
        let mut body = all.clone();
        body[name] = value;
        body
    };
    let without = |name: &str| {
        let mut body = all.clone();
        body.as_object_mut().unwrap().remove(name);
        body
    };
    let mut merged = without("system");
    merged["messages"][0]["content"] = json!("You write.\n\nWrite about tea.");
    let rows = [
        (
            "max_tokens: 100 > 64, which is the maximum allowed number of output tokens for a-model",
            with("max_tokens", json!(64)),
        ),
        ("top_k: Extra inputs are not permitted", without("top_k")),
        (
            "`top_k` is not supported when thinking is enabled",
            without("top_k"),
        ),
        ("system: this model does not support system prompts", merged),
        ("streaming is not supported", with("stream", json!(false))),
    ];
    for (text, expected) in rows {
        let refusal = http(400, JSON, message_of(text).as_bytes());
        let server = Server::start(vec![refusal, http(200, JSON, whole.as_bytes())]).await;
        let agent = Anthropic::new(&server.url, KEY, &[], limits()).unwrap();
        let agent = agent.with_settings(settings(None, json!({ "top_k": 5 })));
        assert_eq!(reply(&agent).await.unwrap().text, "Tea.", "{text}");
        assert_eq!(server.bodies(), [all.clone(), expected], "{text}");
    }
}

#[tokio::test]
async fn a_refusal_that_names_nothing_of_ours_is_one() {
    let rows = [
        (400, "Param Incorrect"),
        (
            400,
            "Unsupported parameter: 'logprobs' is not supported with this model.",
        ),
        (400, "Invalid model: a-model"),
        (404, "The model `a-model` does not exist"),
        (401, "temperature is not supported"),
        (
            400,
            "This model's maximum context length is 4096 tokens, but your messages are 5000 tokens long.",
        ),
        (422, "messages: field required"),
        (500, "upstream error: this model is not supported"),
        (
            400,
            "input length and `max_tokens` exceed context limit: 4090 + 100 > 4096",
        ),
        (400, "See the alternatives: only gpt-4 works"),
    ];
    for (status, text) in rows {
        let server = Server::start(vec![http(status, JSON, message(text).as_bytes())]).await;
        let reply = reply(&openai(&server.url, ModelSettings::default())).await;
        let told = Fatal(Rejected, text).fits(&reply) || Retry(Unavailable, text).fits(&reply);
        assert!(told, "{text}: {reply:?}");
        assert_eq!(server.bodies().len(), 1, "{text}");
    }
}

#[tokio::test]
async fn an_endpoint_that_refuses_everything_is_not_asked_for_ever() {
    // Each time the same, although it is left out.
    let same = message("Unsupported parameter: 'temperature'");
    let server = Server::start(vec![http(400, JSON, same.as_bytes())]).await;
    let reply_to_same = reply(&openai(&server.url, ModelSettings::default())).await;
    assert!(
        Fatal(Rejected, "temperature").fits(&reply_to_same),
        "{reply_to_same:?}"
    );
    assert_eq!(server.bodies().len(), 2);
    // Each time another.
    let names = [
        "temperature",
        "stream_options",
        "repeat_penalty",
        "max_tokens",
        "a_0",
        "a_1",
        "a_2",
        "a_3",
        "a_4",
    ];
    let extra = json!({ "a_0": 0, "a_1": 0, "a_2": 0, "a_3": 0, "a_4": 0 });
    let answers = names.map(|name| {
        http(
            400,
            JSON,
            message(&format!("Unsupported parameter: '{name}'")).as_bytes(),
        )
    });
    let server = Server::start(answers.to_vec()).await;
    let reply = reply(&openai(&server.url, settings(None, extra))).await;
    assert!(Fatal(Rejected, "refuses").fits(&reply), "{reply:?}");
    assert_eq!(server.bodies().len(), 8);
}

#[tokio::test]
async fn what_one_model_refuses_others_are_sent() {
    let refusal = http(
        400,
        JSON,
        message("Unsupported parameter: 'temperature'").as_bytes(),
    );
    let server = Server::start(vec![refusal, http(200, JSON, TEA.as_bytes())]).await;
    let agent = openai(&server.url, ModelSettings::default());
    reply(&agent).await.unwrap();
    let mut other = super::agent_provider::request();
    other.model = "another-model".into();
    agent.call(&other, &|_| {}).await.unwrap();
    let bodies = server.bodies();
    assert_eq!(bodies[1].get("temperature"), None);
    assert_eq!(bodies[2]["temperature"], 0.4);
}

#[tokio::test]
async fn a_model_that_thinks_is_given_room_for_it() {
    let thinking = r#"{"choices":[{"message":{"content":"","reasoning_content":"Hm."},"finish_reason":"length"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    let hidden = r#"{"choices":[{"message":{"content":""},"finish_reason":"length"}],"usage":{"completion_tokens":100}}"#;
    let whole = TEA.replace(
        r#"}]}"#,
        r#"}],"usage":{"prompt_tokens":10,"completion_tokens":20}}"#,
    );
    let answers = vec![
        http(200, JSON, thinking.as_bytes()),
        http(200, JSON, whole.as_bytes()),
    ];
    let server = Server::start(answers.clone()).await;
    let agent = openai(&server.url, ModelSettings::default());
    let usage = reply(&agent).await.unwrap().usage;
    assert_eq!((usage.input_tokens, usage.output_tokens), (11, 22));
    reply(&agent).await.unwrap();
    let tokens: Vec<Value> = server
        .bodies()
        .iter()
        .map(|body| body["max_tokens"].clone())
        .collect();
    assert_eq!(tokens, [100, 8292, 8292]);

    // If that is not enough either, or the operator has said how much, it is told.
    let cases = [
        (thinking, None, 2),
        (hidden, None, 2),
        (thinking, Some("50"), 1),
        (thinking, Some("a-model=50,7"), 1),
    ];
    for (answer, explicit, requests) in cases {
        let server = Server::start(vec![http(200, JSON, answer.as_bytes())]).await;
        let agent = openai(&server.url, settings(explicit, Value::Null));
        let reply = reply(&agent).await;
        assert!(
            Retry(BadOutput, "raise AGENT_THINKING_TOKENS").fits(&reply),
            "{reply:?}"
        );
        let bodies = server.bodies();
        assert_eq!(bodies.len(), requests);
        assert_eq!(
            bodies[0]["max_tokens"],
            if explicit.is_some() { 150 } else { 100 }
        );
    }
}

#[tokio::test]
async fn further_arguments_are_sent_and_a_null_takes_one_out() {
    let server = Server::start(vec![http(200, JSON, TEA.as_bytes())]).await;
    let extra =
        json!({ "reasoning_effort": "low", "temperature": null, "stream_options": { "x": 1 } });
    reply(&openai(&server.url, settings(Some("0"), extra)))
        .await
        .unwrap();
    let sent = &server.bodies()[0];
    assert_eq!(sent["reasoning_effort"], "low");
    assert_eq!(sent.get("temperature"), None);
    assert_eq!(sent["stream_options"], json!({ "x": 1 }));
    // Even what the protocol is about.
    let without = settings(None, json!({ "stream": null, "max_tokens": null }));
    reply(&openai(&server.url, without)).await.unwrap();
    assert_eq!(server.bodies()[1].get("stream"), None);
}

#[tokio::test]
async fn a_panic_while_an_answer_is_read_may_be_tried_again() {
    let stream =
        "data: {\"choices\":[{\"delta\":{\"content\":\"Tea.\"},\"finish_reason\":\"stop\"}]}\n\n";
    let server = Server::start(vec![http(200, EVENTS, stream.as_bytes())]).await;
    let agent = openai(&server.url, ModelSettings::default());
    let request = super::agent_provider::request();
    let reply = agent.call(&request, &|_| panic!("oh no")).await;
    assert!(
        Retry(BadOutput, "panicked: oh no").fits(&reply),
        "{reply:?}"
    );
}
