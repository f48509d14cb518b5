//! An OpenAI-compatible endpoint, as a stub.
//! <https://platform.openai.com/docs/api-reference/chat-streaming>

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::stub::{Act, RecordedRequest, Stub, stream, whole};

/// What a [`StubOpenAi`] does with a call.
#[derive(Clone)]
#[allow(dead_code, reason = "each test binary uses what it needs")]
pub(crate) enum Mood {
    /// Write the text.
    Well,
    /// Write the text, with this pause before each word.
    Slow(Duration),
    /// Take the call and say nothing.
    Hang,
    /// Refuse with this status and this OpenAI error `code`.
    Fail(u16, &'static str),
    /// Ask to be left alone for so many seconds.
    Busy(u32),
    /// Write just this.
    Say(&'static str),
    /// Begin to write when the test says so, once for each call.
    Gate(Arc<Notify>),
    /// It depends on the call.
    By(Arc<dyn Fn(&RecordedRequest) -> Mood + Send + Sync>),
}

#[allow(dead_code, reason = "each test binary uses what it needs")]
impl Mood {
    /// A mood for each call.
    pub(crate) fn by(mood: impl Fn(&RecordedRequest) -> Mood + Send + Sync + 'static) -> Self {
        Mood::By(Arc::new(mood))
    }
}

/// Answers each chat completion with a text.
#[allow(dead_code, reason = "each test binary uses what it needs")]
pub(crate) struct StubOpenAi {
    stub: Stub,
    mood: Arc<Mutex<Mood>>,
}

#[allow(dead_code, reason = "each test binary uses what it needs")]
impl StubOpenAi {
    /// What is written may depend on what is asked.
    pub(crate) async fn writing(
        text: impl Fn(&RecordedRequest) -> String + Send + Sync + 'static,
    ) -> Self {
        let mood = Arc::new(Mutex::new(Mood::Well));
        let present = mood.clone();
        let stub = Stub::start(move |call| {
            let mood = present.lock().unwrap().clone();
            answer(mood, call, &text(call))
        })
        .await;
        StubOpenAi { stub, mood }
    }

    /// From now on.
    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// The base URL, with the version.
    pub(crate) fn url(&self) -> String {
        format!("{}/v1", self.stub.url())
    }

    /// All requests so far.
    pub(crate) fn calls(&self) -> Vec<RecordedRequest> {
        self.stub.calls()
    }

    /// Wait until so many requests have come.
    pub(crate) async fn called(&self, times: usize) {
        self.stub.called(times).await;
    }

    /// Wait until a client has closed its connection in the middle of an answer.
    pub(crate) async fn client_gone(&self) {
        self.stub.client_gone().await;
    }
}

fn answer(mood: Mood, call: &RecordedRequest, text: &str) -> Vec<Act> {
    let told = "The stub was told to fail.";
    let json = ("content-type", "application/json");
    match mood {
        Mood::Well => written(text, Duration::ZERO),
        Mood::Slow(pause) => written(text, pause),
        Mood::Say(text) => written(text, Duration::ZERO),
        Mood::Gate(gate) => {
            let mut acts = written(text, Duration::ZERO);
            acts.insert(1, Act::Gate(gate));
            acts
        }
        Mood::Hang => vec![Act::Hold],
        Mood::Fail(status, code) => whole(status, &[json], &error(code, told).to_string()),
        Mood::Busy(seconds) => {
            let headers = [json, ("retry-after", &seconds.to_string())];
            let body = error("rate_limit_exceeded", told);
            whole(429, &headers, &body.to_string())
        }
        Mood::By(mood) => answer(mood(call), call, text),
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
pub(crate) const DONE: &str = "data: [DONE]\n\n";

/// An event with a piece of the text.
pub(crate) fn delta(text: &str) -> String {
    chunk(
        json!([{ "index": 0, "delta": { "content": text }, "finish_reason": null }]),
        Value::Null,
    )
}

/// The event that tells why the text ends.
pub(crate) fn finish(reason: &str) -> String {
    chunk(
        json!([{ "index": 0, "delta": {}, "finish_reason": reason }]),
        Value::Null,
    )
}

/// The event with the usage, which comes after that.
pub(crate) fn usage(prompt: u32, completion: u32) -> String {
    let usage = json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion });
    chunk(json!([]), usage)
}

/// The body of a refusal, with OpenAI's type for each code.
pub(crate) fn error(code: &str, message: &str) -> Value {
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
