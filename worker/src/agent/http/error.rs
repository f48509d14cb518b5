//! What a provider's refusal means: try again, or never again.
//!
//! The statuses and types are those of
//! <https://platform.openai.com/docs/guides/error-codes> and
//! <https://docs.claude.com/en/api/errors>; compatible servers follow the
//! former more or less.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::agent::{AgentError, AgentErrorKind, MAX_RETRY_AFTER, log_excerpt};

/// Whether a JSON answer or event is a refusal.
pub(in crate::agent) fn is_error(value: &Value) -> bool {
    !body(value)["error"].is_null()
}

/// What the status and the body of an answer mean.
pub(in crate::agent) fn from_status(
    status: u16,
    after: Option<Duration>,
    text: &str,
) -> AgentError {
    let value = serde_json::from_str(text).unwrap_or(Value::Null);
    let told = error_message(&value).unwrap_or(text);
    classify(status, after, &error_codes(&value), told)
}

/// What an error inside an answer means that began well. It has no status of
/// its own: its code or its type tells which one it would have had.
pub(in crate::agent) fn from_event(value: &Value) -> AgentError {
    let kinds = error_codes(value);
    let number = error(value)["code"]
        .as_u64()
        .and_then(|code| u16::try_from(code).ok());
    let status = number.filter(|code| (400..600).contains(code));
    let status = status
        .or_else(|| kinds.iter().find_map(|kind| status_of(kind)))
        .unwrap_or(500);
    let text = value.to_string();
    classify(status, None, &kinds, error_message(value).unwrap_or(&text))
}

/// Read `Retry-After`: seconds, or a date.
pub(in crate::agent) fn retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    let wait = match value.trim().parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => {
            let date = DateTime::parse_from_rfc2822(value.trim()).ok()?;
            (date.to_utc() - now).to_std().unwrap_or_default()
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

fn classify(status: u16, after: Option<Duration>, kinds: &[&str], told: &str) -> AgentError {
    let kind: String = kinds
        .iter()
        .map(|kind| format!(" {}", log_excerpt(kind, 50)))
        .collect();
    let message = format!("status {status}{kind}: {}", log_excerpt(told, 300));
    let retry = |failure| AgentError::Retry {
        failure,
        after,
        message: message.clone(),
    };
    match status {
        _ if is_quota_exhausted(status, kinds, told) => {
            AgentError::fatal(AgentErrorKind::RateLimited, message)
        }
        408 | 504 => retry(AgentErrorKind::Timeout),
        409 | 425 => retry(AgentErrorKind::Unavailable),
        429 => retry(AgentErrorKind::RateLimited),
        500.. => retry(AgentErrorKind::Unavailable),
        400..500 => AgentError::fatal(AgentErrorKind::Rejected, message),
        // A redirect, above all: the URL is wrong.
        _ => AgentError::fatal(AgentErrorKind::Unavailable, message),
    }
}

/// Waiting helps against a rate limit, but not against an empty account.
/// Anthropic tells of that one in words only.
fn is_quota_exhausted(status: u16, kinds: &[&str], told: &str) -> bool {
    let kind = |kind: &&str| {
        matches!(
            *kind,
            "insufficient_quota" | "billing_hard_limit_reached" | "billing_error"
        )
    };
    let words = [
        "credit balance is too low",
        "reached your specified API usage limits",
    ];
    status == 402
        || kinds.iter().any(kind)
        || (status == 400 && words.iter().any(|words| told.contains(words)))
}

fn status_of(kind: &str) -> Option<u16> {
    Some(match kind {
        "invalid_request_error" | "context_length_exceeded" | "content_filter" => 400,
        "authentication_error" | "invalid_api_key" => 401,
        "permission_error" => 403,
        "not_found_error" | "model_not_found" => 404,
        "request_too_large" => 413,
        "rate_limit_error" | "rate_limit_exceeded" => 429,
        "timeout_error" => 504,
        "overloaded_error" => 529,
        _ => return None,
    })
}

/// Some wrap the object in a list.
fn body(value: &Value) -> &Value {
    value.get(0).unwrap_or(value)
}

/// Some leave out the object around the error.
fn error(value: &Value) -> &Value {
    let body = body(value);
    body.get("error").unwrap_or(body)
}

fn error_codes(value: &Value) -> Vec<&str> {
    let error = error(value);
    [&error["code"], &error["type"]]
        .into_iter()
        .filter_map(Value::as_str)
        .collect()
}

fn error_message(value: &Value) -> Option<&str> {
    let error = error(value);
    error["message"]
        .as_str()
        .or(error.as_str())
        .or(error["detail"].as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now = DateTime::parse_from_rfc3339("2026-11-22T10:00:00Z")
            .unwrap()
            .to_utc();
        let read = |value| retry_after(value, now).map(|wait| wait.as_millis());
        assert_eq!(read("0"), Some(0));
        assert_eq!(read(" 120 "), Some(120_000));
        assert_eq!(read("1.5"), Some(1500));
        assert_eq!(read("Sun, 22 Nov 2026 10:01:00 GMT"), Some(60_000));
        assert_eq!(read("Sun, 22 Nov 2026 09:00:00 GMT"), Some(0));
        assert_eq!(read("99999999999"), Some(MAX_RETRY_AFTER.as_millis()));
        for nonsense in ["", "soon", "-1", "NaN", "inf", "1e400"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn the_words_of_other_servers_are_found() {
        let message = |text: &str| from_status(503, None, text).to_string();
        let bodies = [
            r#"{"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}"#,
            r#"[{"error": {"code": 503, "message": "Loading model", "status": "UNAVAILABLE"}}]"#,
            r#"{"object": "error", "message": "Loading model", "code": 503}"#,
            r#"{"error": "Loading model"}"#,
            r#"{"detail": "Loading model"}"#,
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
}
