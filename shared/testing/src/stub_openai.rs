//! An OpenAI-compatible endpoint, as a stub.
//! <https://platform.openai.com/docs/api-reference/chat-streaming>

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::stub::{Act, RecordedRequest, Stub, stream, whole};

/// What a [`StubOpenAi`] does with a call.
#[derive(Clone)]
pub enum StubBehavior {
    /// Write the text.
    Write,
    /// Write the text, with this pause before each word.
    Slow(Duration),
    /// Take the call and say nothing.
    Hang,
    /// Refuse with this status and this OpenAI error `code`.
    Fail(u16, &'static str),
    /// Answer 429 with a `Retry-After` of so many seconds.
    RateLimit(u32),
    /// Write just this.
    WriteText(&'static str),
    /// Write just this, then stop because the limit of tokens is reached.
    WriteTruncated(&'static str),
    /// Write just this, then nothing more, and keep the connection open.
    WriteAndHang(&'static str),
    /// Begin to write when the test says so, once for each call.
    Gate(Arc<Notify>),
    /// It depends on the request.
    PerRequest(Arc<dyn Fn(&RecordedRequest) -> StubBehavior + Send + Sync>),
}

impl StubBehavior {
    /// One that is chosen for each request.
    pub fn per_request(
        choose: impl Fn(&RecordedRequest) -> StubBehavior + Send + Sync + 'static,
    ) -> Self {
        StubBehavior::PerRequest(Arc::new(choose))
    }
}

/// Answers each chat completion with a text.
pub struct StubOpenAi {
    stub: Stub,
    behavior: Arc<Mutex<StubBehavior>>,
}

impl StubOpenAi {
    /// What is written may depend on what is asked.
    pub async fn writing(
        text: impl Fn(&RecordedRequest) -> String + Send + Sync + 'static,
    ) -> Self {
        let behavior = Arc::new(Mutex::new(StubBehavior::Write));
        let current = behavior.clone();
        let stub = Stub::start(move |call| {
            let behavior = current.lock().unwrap().clone();
            answer(behavior, call, &|| text(call))
        })
        .await;
        StubOpenAi { stub, behavior }
    }

    /// From now on.
    pub fn set(&self, behavior: StubBehavior) {
        *self.behavior.lock().unwrap() = behavior;
    }

    /// The base URL, with the version.
    pub fn url(&self) -> String {
        format!("{}/v1", self.stub.url())
    }

    /// All requests so far.
    pub fn calls(&self) -> Vec<RecordedRequest> {
        self.stub.calls()
    }

    /// Wait until so many requests have come.
    pub async fn called(&self, times: usize) {
        self.stub.called(times).await;
    }

    /// Wait until a client has closed its connection in the middle of an answer.
    pub async fn client_gone(&self) {
        self.stub.client_gone().await;
    }
}

fn answer(behavior: StubBehavior, call: &RecordedRequest, text: &dyn Fn() -> String) -> Vec<Act> {
    let told = "The stub was told to fail.";
    let json = ("content-type", "application/json");
    match behavior {
        StubBehavior::Write => written(&text(), Duration::ZERO),
        StubBehavior::Slow(pause) => written(&text(), pause),
        StubBehavior::WriteText(text) => written(text, Duration::ZERO),
        StubBehavior::WriteTruncated(text) => {
            let mut acts = written(text, Duration::ZERO);
            for act in &mut acts {
                if matches!(act, Act::Chunk(chunk) if *chunk == finish("stop")) {
                    *act = Act::Chunk(finish("length"));
                }
            }
            acts
        }
        StubBehavior::WriteAndHang(text) => stream([Act::Chunk(delta(text)), Act::Hold]),
        StubBehavior::Gate(gate) => {
            let mut acts = written(&text(), Duration::ZERO);
            acts.insert(1, Act::Gate(gate));
            acts
        }
        StubBehavior::Hang => vec![Act::Hold],
        StubBehavior::Fail(status, code) => whole(status, &[json], &error(code, told).to_string()),
        StubBehavior::RateLimit(seconds) => {
            let headers = [json, ("retry-after", &seconds.to_string())];
            let body = error("rate_limit_exceeded", told);
            whole(429, &headers, &body.to_string())
        }
        StubBehavior::PerRequest(choose) => answer(choose(call), call, text),
    }
}

fn written(text: &str, pause: Duration) -> Vec<Act> {
    let words = text
        .split_inclusive(' ')
        .flat_map(|word| [Act::Wait(pause), Act::Chunk(delta(word))]);
    let tokens = u32::try_from(text.split(' ').count()).unwrap();
    let rest = [
        Act::Chunk(finish("stop")),
        Act::Chunk(usage(10, tokens)),
        Act::Chunk(DONE.into()),
        Act::End,
    ];
    stream(words.chain(rest))
}

/// The last event.
pub const DONE: &str = "data: [DONE]\n\n";

/// An event with a piece of the text.
pub fn delta(text: &str) -> String {
    chunk(
        json!([{ "index": 0, "delta": { "content": text }, "finish_reason": null }]),
        Value::Null,
    )
}

/// The event that tells why the text ends.
pub fn finish(reason: &str) -> String {
    chunk(
        json!([{ "index": 0, "delta": {}, "finish_reason": reason }]),
        Value::Null,
    )
}

/// The event with the usage, which comes after that.
pub fn usage(prompt: u32, completion: u32) -> String {
    let usage = json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion });
    chunk(json!([]), usage)
}

/// The body of a refusal, with OpenAI's type for each code.
pub fn error(code: &str, message: &str) -> Value {
    let (kind, code) = match code {
        "server_error" => ("server_error", None),
        "rate_limit_exceeded" => ("tokens", Some(code)),
        "insufficient_quota" => ("insufficient_quota", Some(code)),
        _ => ("invalid_request_error", Some(code)),
    };
    json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
}

fn chunk(choices: Value, usage: Value) -> String {
    let chunk = json!({
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "stub",
        "choices": choices,
        "usage": usage,
    });
    format!("data: {chunk}\n\n")
}
