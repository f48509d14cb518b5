//! What a provider's error means: another call may succeed, or none will.
//!
//! The statuses and types are those of
//! <https://platform.openai.com/docs/guides/error-codes> and
//! <https://docs.claude.com/en/api/errors>; compatible servers follow the
//! former more or less.

use std::time::Duration;

use serde_json::Value;

use super::{json, retry_after};
use crate::agent::{AgentError, AgentErrorKind, log_excerpt};

/// An error as a provider told it.
#[derive(Debug, Default)]
pub(super) struct ProviderError {
    pub(super) status: u16,
    after: Option<Duration>,
    codes: Vec<String>,
    pub(super) message: String,
    /// The arguments that it is about, where it names them in a field.
    pub(super) arguments: Vec<String>,
}

/// Where errors stand in an object.
const ERRORS: [&str; 3] = ["error", "errors", "err"];
/// Where an error's message stands.
const MESSAGES: [&str; 9] = [
    "message",
    "detail",
    "msg",
    "error_message",
    "errorMessage",
    "error_msg",
    "error_description",
    "status_msg",
    "error",
];
/// Where an error's code stands.
const CODES: [&str; 7] = [
    "code",
    "type",
    "status",
    "error_type",
    "error_code",
    "errorCode",
    "status_code",
];

impl ProviderError {
    /// The error of an answer with a status of its own.
    pub(super) fn from_response(status: u16, after: Option<Duration>, body: &str) -> Self {
        let mut error = match json::parse(body) {
            Some(value) => ProviderError::read(&value),
            None => ProviderError::default(),
        };
        if error.message.is_empty() {
            error.message = html_title(body).unwrap_or(body).to_owned();
        }
        ProviderError {
            status,
            after,
            ..error
        }
    }

    /// The error in an answer that began well. It has no status of its own: its
    /// code or its words tell which one it would have had.
    pub(super) fn from_event(text: &str) -> Self {
        let mut error = match json::parse(text) {
            Some(value) => ProviderError::read(&value),
            None => ProviderError::default(),
        };
        if error.message.is_empty() {
            error.message = text.to_owned();
        }
        let numbers = error.codes.iter().filter_map(|code| code.parse().ok());
        let number = numbers.into_iter().find(|code| (400..600).contains(code));
        let words = || error.codes.iter().find_map(|code| status_of(code));
        let status = number.or_else(words).or_else(|| status_of(&error.message));
        ProviderError {
            status: status.unwrap_or(500),
            after: retry_after::in_words(&error.message),
            ..error
        }
    }

    fn read(value: &Value) -> Self {
        // Some wrap the object in a list.
        let value = value.get(0).unwrap_or(value);
        let choice = &value["choices"][0]["error"];
        let inner = ERRORS.iter().map(|name| &value[*name]);
        let inner = inner
            .chain([choice, &value["base_resp"]])
            .find(|inner| is_filled(inner));
        let inner = inner
            .map(|inner| inner.get(0).unwrap_or(inner))
            .unwrap_or(value);
        let mut error = ProviderError::default();
        for from in [inner, value] {
            let codes = CODES.iter().filter_map(|name| match &from[*name] {
                Value::String(code) => Some(code.clone()),
                Value::Number(code) => Some(code.to_string()),
                _ => None,
            });
            let new: Vec<String> = codes.filter(|code| !error.codes.contains(code)).collect();
            error
                .codes
                .extend(new.into_iter().filter(|code| code != "error"));
            error.read_message(from);
        }
        if let Some(text) = inner.as_str() {
            error.message = text.to_owned();
        }
        // What the provider behind a gateway said.
        if let Some(raw) = inner["metadata"]["raw"].as_str() {
            error.message.push_str(&format!(": {raw}"));
        }
        error
    }

    fn read_message(&mut self, from: &Value) {
        self.arguments
            .extend(from["param"].as_str().map(str::to_owned));
        self.read_validation(from);
        if !self.message.is_empty() {
            return;
        }
        let found = MESSAGES.iter().map(|name| &from[*name]);
        match found.into_iter().find(|found| is_filled(found)) {
            Some(Value::String(text)) => self.message.clone_from(text),
            Some(inner @ Value::Object(_)) => {
                self.read_message(inner);
                if self.message.is_empty() {
                    self.message = inner.to_string();
                }
            }
            Some(Value::Array(faults)) => {
                faults.iter().for_each(|fault| self.read_validation(fault));
                self.message = Value::Array(faults.clone()).to_string();
            }
            _ => {}
        }
    }

    /// One of the faults that pydantic finds in a request.
    fn read_validation(&mut self, fault: &Value) {
        let place = fault["loc"].as_array().into_iter().flatten();
        self.arguments
            .extend(place.filter_map(Value::as_str).map(str::to_owned));
    }
}

/// Why a request brought no text.
#[derive(Debug)]
pub(super) enum CallError {
    /// The provider says why; a changed request may do.
    Provider(ProviderError),
    /// Anything else.
    Agent(AgentError),
}

impl From<AgentError> for CallError {
    fn from(error: AgentError) -> Self {
        CallError::Agent(error)
    }
}

impl From<CallError> for AgentError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Provider(error) => error.into(),
            CallError::Agent(error) => error,
        }
    }
}

impl From<ProviderError> for AgentError {
    fn from(error: ProviderError) -> Self {
        let codes = error.codes.iter().take(3);
        let codes: String = codes
            .map(|code| format!(" {}", log_excerpt(code, 50)))
            .collect();
        let told = log_excerpt(&error.message, 300);
        let message = format!("status {}{codes}: {told}", error.status);
        let retry = |failure| AgentError::Retry {
            failure,
            after: error.after,
            message: message.clone(),
        };
        match error.status {
            _ if error.is_quota_exhausted() => {
                AgentError::fatal(AgentErrorKind::RateLimited, message)
            }
            408 | 504 | 524 => retry(AgentErrorKind::Timeout),
            409 | 424 | 425 | 498 | 499 => retry(AgentErrorKind::Unavailable),
            429 => retry(AgentErrorKind::RateLimited),
            400 | 403 if error.is_rate_limit() => retry(AgentErrorKind::RateLimited),
            500.. => retry(AgentErrorKind::Unavailable),
            400..500 => AgentError::fatal(AgentErrorKind::Rejected, message),
            // A redirect, above all: the URL is wrong.
            _ => AgentError::fatal(AgentErrorKind::Unavailable, message),
        }
    }
}

impl ProviderError {
    /// Some have another status for that.
    fn is_rate_limit(&self) -> bool {
        let message = self.message.to_lowercase();
        self.codes.iter().any(|code| status_of(code) == Some(429))
            || message.contains("rate limit")
            || message.contains("too many requests")
    }

    /// Waiting helps against a rate limit, but not against an empty account.
    fn is_quota_exhausted(&self) -> bool {
        let codes = [
            "insufficient_quota",
            "billing_hard_limit_reached",
            "billing_error",
            "exceeded_current_quota_error",
            "insufficient_balance",
            "insufficient_credits",
            "quota_exceeded",
            "arrearage",
            "1113",
        ];
        let words = [
            "credit balance is too low",
            "reached your specified api usage limits",
            "insufficient balance",
            "insufficient credit",
            "insufficient funds",
            "insufficient quota",
            "exceeded your monthly",
            "out of credits",
        ];
        let message = self.message.to_lowercase();
        let has_code = |code: &String| codes.contains(&code.to_lowercase().as_str());
        self.status == 402
            || self.codes.iter().any(has_code)
            || (matches!(self.status, 400 | 403 | 429)
                && words.iter().any(|words| message.contains(words)))
    }
}

/// Whether an object of an answer, or an event, is an error.
pub(super) fn is_error(value: &Value, event_name: &str) -> bool {
    let value = value.get(0).unwrap_or(value);
    let has_answer = ["choices", "content", "delta"];
    let has_answer = has_answer.iter().any(|name| is_filled(&value[*name]));
    let state = value["status"]
        .as_str()
        .or(value["type"].as_str())
        .unwrap_or_default();
    let is_waiting = ["progress", "process", "queue", "pending", "ping"];
    let is_waiting = is_waiting.iter().any(|name| state.contains(name));
    let told = MESSAGES.iter().any(|name| {
        let told = &value[*name];
        told.is_string() || (*name == "detail" && is_filled(told))
    });
    let status = value["base_resp"]["status_code"]
        .as_i64()
        .unwrap_or_default();
    ERRORS.iter().any(|name| is_filled(&value[*name]))
        || is_filled(&value["choices"][0]["error"])
        || event_name == "error"
        || [&value["type"], &value["object"]].contains(&&Value::from("error"))
        || value["success"] == false
        || status != 0
        || (told && !has_answer && !is_waiting)
}

/// Neither missing nor empty: many send such a field where there is no error.
fn is_filled(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) => false,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// The status that goes with an error's code or its words.
fn status_of(words: &str) -> Option<u16> {
    const STATUSES: [(u16, &str); 9] = [
        (
            429,
            "ratelimit toomanyrequests resourceexhausted throttl insufficientquota",
        ),
        (529, "overloaded"),
        (504, "timeout timedout deadlineexceeded"),
        (
            401,
            "authentication invalidapikey incorrectapikey unauthorized unauthenticated",
        ),
        (403, "permission forbidden accessdenied"),
        (404, "notfound doesnotexist"),
        (413, "toolarge"),
        (
            402,
            "billing insufficientcredit insufficientbalance paymentrequired",
        ),
        (
            400,
            "invalidrequest badrequest invalidargument contextlength maximumcontext contentfilter \
             unsupported notsupported invalidvalue",
        ),
    ];
    let words: String = words
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .collect();
    let words = words.to_lowercase();
    let fits =
        |(_, names): &&(u16, &str)| names.split_whitespace().any(|name| words.contains(name));
    STATUSES.iter().find(fits).map(|(status, _)| *status)
}

/// What a page of HTML is about.
fn html_title(body: &str) -> Option<&str> {
    let start = body.trim_start();
    if !start.starts_with('<') {
        return None;
    }
    let lower = start.to_ascii_lowercase();
    let begin = lower.find("<title")?;
    let begin = begin + lower[begin..].find('>')? + 1;
    let title = start[begin..begin + lower[begin..].find("</title")?].trim();
    (!title.is_empty()).then_some(title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_other_servers_are_found() {
        let message = |text: &str| {
            AgentError::from(ProviderError::from_response(503, None, text)).to_string()
        };
        let bodies = [
            r#"{"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}"#,
            r#"[{"error": {"code": 503, "message": "Loading model", "status": "UNAVAILABLE"}}]"#,
            r#"{"object": "error", "message": "Loading model", "code": 503}"#,
            r#"{"error": "Loading model"}"#,
            r#"{"error": {"message": {"detail": "Loading model"}}}"#,
            r#"{"errors": [{"message": "Loading model"}], "success": false}"#,
            r#"{"detail": "Loading model"}"#,
            r#"{"code": 500, "msg": "Loading model"}"#,
            r#"{"base_resp": {"status_code": 1000, "status_msg": "Loading model"}}"#,
            "<!DOCTYPE html>\n<HTML><head><Title lang=en> Loading model\n</Title>",
            "Loading model",
        ];
        for body in bodies {
            assert!(
                message(body).ends_with(": Loading model"),
                "{}",
                message(body)
            );
        }
    }

    #[test]
    fn an_error_without_a_status_has_that_of_its_code_or_words() {
        let cases = [
            (r#"{"error": {"code": "429", "message": "No."}}"#, 429),
            (
                r#"{"error": {"type": "overloaded_error", "message": "No."}}"#,
                529,
            ),
            (
                r#"{"error": {"status": "RESOURCE_EXHAUSTED", "message": "No."}}"#,
                429,
            ),
            (
                r#"{"error": {"type": "BadRequestError", "message": "No.", "code": null}}"#,
                400,
            ),
            (r#"{"error": "Incorrect API key provided"}"#, 401),
            (r#"{"error": {"message": "No."}, "code": 404}"#, 404),
            ("Rate limit reached", 429),
            ("Boom", 500),
        ];
        for (text, status) in cases {
            assert_eq!(ProviderError::from_event(text).status, status, "{text}");
        }
    }
}
