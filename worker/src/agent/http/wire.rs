//! What one object of an answer says: a chunk or a whole completion of an
//! OpenAI-compatible endpoint, or an event or a whole message of Anthropic's.
//!
//! The formats are told apart by what is there, and each field is read in every
//! shape in which servers are known to write it.

use serde_json::Value;

/// What an object of an answer says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Chunk {
    pub(super) text: Text,
    /// Whether it holds thoughts in a field of their own, or counts some.
    pub(super) thought: bool,
    /// The model's words for refusing, in a field of their own.
    pub(super) refusal: String,
    pub(super) finish: Finish,
    /// The answer ends here, whatever follows.
    pub(super) last: bool,
    pub(super) input_tokens: Option<u32>,
    pub(super) output_tokens: Option<u32>,
}

/// A part of the text.
#[derive(Debug, PartialEq)]
pub(super) enum Text {
    /// What follows on the text so far.
    Delta(String),
    /// A message: a further part of it, or all of the text so far once more.
    Message(String),
}

impl Default for Text {
    fn default() -> Self {
        Text::Delta(String::new())
    }
}

/// What a chunk says of the end of the text.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Finish {
    /// Nothing.
    #[default]
    Absent,
    /// The text goes on.
    Open,
    /// An empty reason.
    Empty,
    /// The model was done.
    Stop,
    /// The limit was reached.
    Length,
    /// The provider or the model refuses to go on.
    Refused(String),
    /// Something broke.
    Failed(String),
}

/// Objects in which some gateways wrap the answer.
const ENVELOPES: [&str; 4] = ["data", "output", "response", "result"];

/// Where thoughts stand.
const THOUGHTS: [&str; 6] = [
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "reasoning_text",
    "thinking",
    "thoughts",
];

pub(super) fn read(value: &Value, event_name: &str) -> Chunk {
    let wrapped = ENVELOPES.iter().map(|name| &value[*name]);
    let envelope = wrapped.into_iter().find(|inner| has_answer(inner));
    let (inner, usage) = match envelope {
        Some(inner) if !has_answer(value) => (inner, &value["usage"]),
        _ => (value, &Value::Null),
    };
    let mut chunk = match inner["type"].as_str().unwrap_or(event_name) {
        _ if !inner["choices"].is_null() => read_choice(first(&inner["choices"])),
        kind => read_anthropic(kind, inner),
    };
    let choice = first(&inner["choices"]);
    let message = &inner["message"];
    for usage in [
        &inner["usage"],
        &inner["x_groq"]["usage"],
        &choice["usage"],
        &message["usage"],
        usage,
    ] {
        read_usage(usage, &mut chunk);
    }
    chunk
}

fn has_answer(value: &Value) -> bool {
    !value["choices"].is_null() || !value["content"].is_null() || !value["type"].is_null()
}

fn read_choice(choice: &Value) -> Chunk {
    let (delta, message) = (&choice["delta"], &choice["message"]);
    let words = |value: &Value| !value.is_null() && value.as_object().is_none_or(|o| !o.is_empty());
    let (from, text) = if words(delta) {
        (delta, Text::Delta(content(delta)))
    } else if words(message) {
        (message, Text::Message(content(message)))
    } else {
        (choice, Text::Delta(content(choice)))
    };
    let reason = ["finish_reason", "finishReason", "done_reason"]
        .iter()
        .map(|name| &choice[*name])
        .find(|reason| !reason.is_null());
    Chunk {
        text,
        thought: has_thoughts(from),
        refusal: text_of(&from["refusal"]),
        finish: match (choice, reason) {
            (Value::Null, _) => Finish::Absent,
            (_, None) => Finish::Open,
            (_, Some(reason)) => Finish::from_reason(reason),
        },
        ..Chunk::default()
    }
}

/// <https://docs.claude.com/en/docs/build-with-claude/streaming>
fn read_anthropic(kind: &str, value: &Value) -> Chunk {
    let mut chunk = Chunk::default();
    let reason = |from: &Value| match &from["stop_reason"] {
        Value::Null => Finish::Absent,
        reason => Finish::from_reason(reason),
    };
    match kind {
        "message_start" => {
            chunk.text = Text::Message(content(&value["message"]));
            chunk.finish = reason(&value["message"]);
        }
        "content_block_start" => {
            chunk.text = Text::Delta(content(&value["content_block"]));
            chunk.thought = has_thoughts(&value["content_block"]);
        }
        "content_block_delta" | "content_block" => {
            chunk.text = Text::Delta(content(&value["delta"]));
            chunk.thought = has_thoughts(&value["delta"]);
        }
        "message_delta" => chunk.finish = reason(&value["delta"]),
        "message_stop" => chunk.last = true,
        "message" | "completion" | "" => {
            chunk.text = Text::Message(content(value));
            chunk.thought = has_thoughts(value);
            chunk.finish = reason(value);
        }
        // Pings, the ends of blocks, and what is yet to be invented.
        _ => {}
    }
    chunk
}

/// The text of a message, of a delta or of a choice.
fn content(from: &Value) -> String {
    if is_thought(from) {
        return String::new();
    }
    let fields = ["content", "text", "completion"];
    let fields = fields.iter().map(|name| text_of(&from[*name]));
    fields
        .into_iter()
        .find(|text| !text.is_empty())
        .unwrap_or_else(|| text_of_string(from))
}

fn text_of_string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A string, a list of parts, or one part.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Array(parts) => parts.iter().map(text_of).collect(),
        part if is_thought(part) => String::new(),
        Value::Object(part) => {
            let fields = ["text", "content", "value", "output_text"];
            let texts = fields.iter().filter_map(|name| part.get(*name));
            texts
                .map(text_of)
                .find(|text| !text.is_empty())
                .unwrap_or_default()
        }
        Value::Null | Value::Bool(_) => String::new(),
    }
}

/// A part of its own type for thoughts, or for the tools that nobody offered.
fn is_thought(part: &Value) -> bool {
    let kind = part["type"].as_str().unwrap_or_default();
    [
        "thinking",
        "reasoning",
        "thought",
        "signature",
        "tool",
        "input_json",
    ]
    .iter()
    .any(|name| kind.contains(name))
        || part["thought"] == true
}

fn has_thoughts(from: &Value) -> bool {
    let parts = from["content"].as_array().into_iter().flatten();
    let filled = |value: &Value| match value {
        Value::Null | Value::Bool(_) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(parts) => !parts.is_empty(),
        _ => true,
    };
    is_thought(from)
        || parts.into_iter().any(is_thought)
        || THOUGHTS.iter().any(|name| filled(&from[*name]))
}

impl Finish {
    /// <https://docs.claude.com/en/api/handling-stop-reasons>, and the names that
    /// others have for the same. Any other name is that of an orderly end.
    fn from_reason(reason: &Value) -> Self {
        let name = match reason {
            Value::Bool(false) => return Finish::Open,
            Value::String(name) => name.trim().to_lowercase(),
            Value::Object(details) => {
                return Finish::from_reason(details.get("type").unwrap_or(&Value::Null));
            }
            other => other.to_string(),
        };
        let any = |words: &[&str]| words.iter().any(|word| name.contains(word));
        if name.is_empty() {
            Finish::Empty
        } else if name == "null" {
            Finish::Open
        } else if any(&[
            "length",
            "max_",
            "maxtoken",
            "context_window",
            "token_limit",
            "incomplete",
        ]) {
            Finish::Length
        } else if any(&[
            "filter",
            "safety",
            "refus",
            "recitation",
            "block",
            "prohibited",
            "spii",
            "guardrail",
            "moderation",
            "sensitive",
        ]) {
            Finish::Refused(name)
        } else if any(&[
            "error",
            "abort",
            "cancel",
            "fail",
            "insufficient",
            "interrupt",
            "malformed",
            "pause",
            "timeout",
            "unavailable",
            "overload",
            "disconnect",
        ]) {
            Finish::Failed(name)
        } else {
            Finish::Stop
        }
    }
}

/// Anthropic's `input_tokens` leave out what came from the cache or went into it.
fn read_usage(usage: &Value, chunk: &mut Chunk) {
    let sum = |names: &[&str]| {
        let counts = names.iter().filter_map(|name| count(&usage[*name]));
        counts.reduce(u32::saturating_add)
    };
    let cached = [
        "input_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
    ];
    let input = sum(&["prompt_tokens"]).or_else(|| sum(&cached));
    let total = count(&usage["total_tokens"]);
    let rest = total
        .zip(input)
        .map(|(total, input)| total.saturating_sub(input));
    let output = sum(&["completion_tokens"])
        .or_else(|| sum(&["output_tokens"]))
        .or(rest);
    let details = &usage["completion_tokens_details"]["reasoning_tokens"];
    chunk.thought |= count(details).is_some_and(|thoughts| thoughts > 0);
    chunk.input_tokens = input.or(chunk.input_tokens);
    chunk.output_tokens = output.or(chunk.output_tokens);
}

/// A count, also as a fraction, as a string, or negative, which stands for none.
fn count(value: &Value) -> Option<u32> {
    let text = value.as_str().map(|text| text.trim().parse::<f64>().ok());
    let number = text.unwrap_or_else(|| value.as_f64())?;
    // The conversion stops at 0 and at the largest.
    Some(number as u32)
}

/// The first of a list, or what stands in its place.
fn first(choices: &Value) -> &Value {
    if choices.is_array() {
        &choices[0]
    } else {
        choices
    }
}
