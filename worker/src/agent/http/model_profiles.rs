//! What the models behind an endpoint are known to refuse, so that each is asked
//! without it from then on.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::error::ProviderError;

/// A JSON object, such as a request's body.
pub(super) type Object = Map<String, Value>;

/// What is to be different in a request to a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// Without this argument.
    Omit(String),
    /// With another name for an argument.
    Rename(&'static str, &'static str),
    /// With no more tokens than these.
    MaxTokens(u32),
    /// With the system prompt in the user's message.
    NoSystemRole,
    /// Without streaming.
    NoStream,
    /// With tokens for thoughts, which it was seen to have.
    Thinks,
}

/// The changes for each model, as long as the worker runs.
#[derive(Debug, Default)]
pub(super) struct ModelProfiles(Mutex<HashMap<String, Vec<Change>>>);

impl ModelProfiles {
    pub(super) fn get(&self, model: &str) -> Vec<Change> {
        let profiles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        profiles.get(model).cloned().unwrap_or_default()
    }

    pub(super) fn add(&self, model: &str, change: Change) {
        let mut profiles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = profiles.entry(model.to_owned()).or_default();
        if !changes.contains(&change) {
            tracing::info!(model, ?change, "adapting all requests to this model");
            changes.push(change);
        }
    }
}

const MAX_TOKENS: &str = "max_tokens";
const MAX_COMPLETION_TOKENS: &str = "max_completion_tokens";

impl Change {
    pub(super) fn apply(&self, body: &mut Object) {
        match self {
            Change::Omit(name) => {
                body.remove(name);
            }
            Change::Rename(from, to) => {
                if let Some(value) = body.remove(*from) {
                    body.insert((*to).to_owned(), value);
                }
            }
            Change::MaxTokens(most) => {
                for name in [MAX_TOKENS, MAX_COMPLETION_TOKENS] {
                    if let Some(value) = body.get_mut(name) {
                        *value = json!(value.as_u64().unwrap_or_default().min((*most).into()));
                    }
                }
            }
            Change::NoSystemRole => merge_system_prompt(body),
            Change::NoStream => {
                body.remove("stream_options");
                body.insert("stream".to_owned(), json!(false));
            }
            Change::Thinks => {}
        }
    }

    /// What a provider refuses of a request whose text needs `text_tokens`; none
    /// if it names nothing that can be changed.
    pub(super) fn find(error: &ProviderError, body: &Object, text_tokens: u32) -> Option<Self> {
        if !matches!(error.status, 400 | 404 | 405 | 415 | 422 | 500 | 501) {
            return None;
        }
        let message = error.message.to_lowercase();
        let refusal = Refusal {
            error,
            message: &message,
        };
        let length = refusal.length_limit(body, text_tokens);
        length
            .or_else(|| refusal.system_role(body))
            .or_else(|| refusal.argument(body))
            .or_else(|| refusal.streaming(body))
    }
}

struct Refusal<'a> {
    error: &'a ProviderError,
    message: &'a str,
}

/// Words for "that is not for me".
const REFUSALS: [&str; 27] = [
    "support",
    "unknown",
    "unrecognized",
    "unrecognised",
    "unexpected",
    "not permitted",
    "not allowed",
    "extra",
    "invalid",
    "deprecated",
    "not a valid",
    "cannot find",
    "no longer",
    "not available",
    "unavailable",
    "does not exist",
    "not enabled",
    "not accept",
    "must be",
    "only",
    "should be",
    "cannot be",
    "can't be",
    "not recognized",
    "incompatible",
    "removed",
    "forbidden",
];

/// Words for "that is too much".
const TOO_MUCH: [&str; 11] = [
    "too large",
    "too high",
    "at most",
    "less than",
    "exceed",
    "range",
    "maximum",
    "greater than",
    "between",
    "limit",
    "up to",
];

impl Refusal<'_> {
    fn says(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.message.contains(word))
    }

    /// More tokens than the model has, or than the prompt leaves of its context.
    fn length_limit(&self, body: &Object, text_tokens: u32) -> Option<Change> {
        let names = [MAX_TOKENS, MAX_COMPLETION_TOKENS];
        let sent = names.iter().find_map(|name| body.get(*name)?.as_u64())?;
        let is_context = self.says(&[
            "context length",
            "context window",
            "context size",
            "max_model_len",
        ]);
        let is_named = self.says(&names)
            || self
                .error
                .arguments
                .iter()
                .any(|name| names.contains(&name.as_str()));
        if !self.says(&TOO_MUCH) || !(is_context || is_named) {
            return None;
        }
        let numbers = self.message.split(|c: char| !c.is_ascii_digit());
        let mut smaller: Vec<u64> = numbers.filter_map(|number| number.parse().ok()).collect();
        smaller.retain(|number| (16..sent).contains(number));
        smaller.sort_unstable();
        smaller.dedup();
        let most = match smaller[..] {
            [] => return None,
            // The prompt's length, and the context's.
            [.., prompt, context] if is_context => context - prompt,
            [.., most] => most,
        };
        // Less would cut the text, and the prompt does not get shorter.
        if is_context && most < text_tokens.into() {
            return None;
        }
        Some(Change::MaxTokens(u32::try_from(most).ok()?))
    }

    fn system_role(&self, body: &Object) -> Option<Change> {
        let has_system = body.contains_key("system") || body["messages"][0]["role"] == "system";
        let roles = self.says(&["role"]) && self.says(&["system", "developer", "alternat"]);
        let names_role = roles
            || self.says(&[
                "system message",
                "system prompt",
                "system instruction",
                "developer instruction",
            ])
            || self
                .error
                .arguments
                .iter()
                .any(|name| name == "system" || name.ends_with("role"));
        (has_system && names_role && self.says(&REFUSALS) || has_system && self.says(&["alternat"]))
            .then_some(Change::NoSystemRole)
    }

    /// The argument that is named first.
    fn argument(&self, body: &Object) -> Option<Change> {
        let required = ["model", "messages", "stream", "system"];
        let optional = body
            .keys()
            .filter(|name| !required.contains(&name.as_str()));
        let named = optional.filter_map(|name| Some((self.place(name)?, name)));
        let (_, name) = named.min_by_key(|(place, _)| *place)?;
        let is_anthropic = body.contains_key("system");
        match name.as_str() {
            MAX_TOKENS if self.says(&[MAX_COMPLETION_TOKENS]) => {
                Some(Change::Rename(MAX_TOKENS, MAX_COMPLETION_TOKENS))
            }
            MAX_COMPLETION_TOKENS => Some(Change::Rename(MAX_COMPLETION_TOKENS, MAX_TOKENS)),
            MAX_TOKENS if is_anthropic => None,
            _ => Some(Change::Omit(name.clone())),
        }
    }

    /// Where an argument is named as refused: in a field before all, or else
    /// where in the message.
    fn place(&self, name: &str) -> Option<usize> {
        let is_it = |argument: &String| {
            let rest = argument.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        if self.error.arguments.iter().any(is_it) {
            return Some(0);
        }
        if !self.says(&REFUSALS) && !self.says(&TOO_MUCH) {
            return None;
        }
        let plain = name.replace('_', "");
        let words = [
            name.to_lowercase(),
            plain.to_lowercase(),
            format!("{}ing", name.to_lowercase()),
        ];
        words.iter().filter_map(|word| self.find_word(word)).min()
    }

    /// A short word is a name only in quotes, or as it is before a colon.
    fn find_word(&self, word: &str) -> Option<usize> {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let mut places = self.message.match_indices(word);
        let place = places.find(|(at, _)| {
            let before = self.message[..*at].chars().next_back();
            let after = self.message[at + word.len()..].chars().next();
            let is_word = !before.is_some_and(is_part) && !after.is_some_and(is_part);
            let is_quoted =
                before.is_some_and(|c| matches!(c, '\'' | '"' | '`' | '[')) || after == Some(':');
            is_word && (word.len() > 7 || word.contains('_') || is_quoted)
        });
        place.map(|(at, _)| at + 1)
    }

    fn streaming(&self, body: &Object) -> Option<Change> {
        let is_named = self.says(&["stream"]) && self.says(&REFUSALS) || self.says(&["to stream"]);
        let is_argument = self.error.arguments.iter().any(|name| name == "stream");
        (body["stream"] == true && (is_named || is_argument)).then_some(Change::NoStream)
    }
}

/// Puts the system prompt in front of the user's.
fn merge_system_prompt(body: &mut Object) {
    let mut system = body.remove("system");
    let Some(messages) = body.get_mut("messages").and_then(Value::as_array_mut) else {
        return;
    };
    if messages
        .first()
        .is_some_and(|first| first["role"] == "system")
    {
        system = Some(messages.remove(0)["content"].take());
    }
    let Some(user) = messages.first_mut() else {
        return;
    };
    let words = [system.unwrap_or_default(), user["content"].take()];
    let words = words
        .iter()
        .filter_map(Value::as_str)
        .filter(|words| !words.is_empty());
    user["content"] = json!(words.collect::<Vec<_>>().join("\n\n"));
}
