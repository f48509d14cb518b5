//! What the models behind an endpoint are known to refuse, so that each is asked
//! without it from then on.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

/// A JSON object, such as a request's body.
pub(super) type Object = Map<String, Value>;

pub(super) const MAX_TOKENS: &str = "max_tokens";
pub(super) const MAX_COMPLETION_TOKENS: &str = "max_completion_tokens";

/// A difference between the usual request and the one for a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// Without this argument.
    Omit(String),
    /// With another name for an argument.
    Rename(&'static str, &'static str),
    /// With no more tokens than the model has.
    MaxTokens(u32),
    /// With no more tokens than this one prompt leaves of the context.
    ContextRoom(u32),
    /// With the system prompt in the user's message.
    NoSystemRole,
    /// Without streaming.
    NoStream,
    /// With more tokens, because the model thinks.
    Thinks,
    /// The same request: the model thinks, and does not mark where its thoughts begin.
    ThinksUnmarked,
}

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
            Change::MaxTokens(most) | Change::ContextRoom(most) => {
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
            Change::Thinks | Change::ThinksUnmarked => {}
        }
    }
}

/// Puts the system prompt in front of the user's.
fn merge_system_prompt(body: &mut Object) {
    let mut system = body.remove("system");
    let Some(Value::Array(messages)) = body.get_mut("messages") else {
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
    let prompts = [system.unwrap_or_default(), user["content"].take()];
    let prompts = prompts.iter().filter_map(Value::as_str);
    let prompts: Vec<&str> = prompts.filter(|prompt| !prompt.is_empty()).collect();
    user["content"] = json!(prompts.join("\n\n"));
}

/// The changes for each model, kept as long as the worker runs.
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
