//! Reading the API's JSON.

use chrono::{DateTime, Utc};
use serde_json::Value;

/// The text of a JSON string.
#[track_caller]
pub fn text(value: &Value) -> String {
    let text = value.as_str();
    text.unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}

/// A time as the API writes all of them: in UTC, to the millisecond.
#[track_caller]
pub fn time(value: &Value) -> DateTime<Utc> {
    let text = text(value);
    assert_eq!(text.len(), "2026-11-22T10:00:00.000Z".len(), "{text}");
    assert!(text.ends_with('Z'), "{text}");
    text.parse().unwrap()
}

/// How a job's attempts ended, in their order.
#[track_caller]
pub fn outcomes(job: &Value) -> Vec<&str> {
    let attempts = job["attempts"].as_array().expect("it is no job").iter();
    attempts
        .map(|attempt| attempt["outcome"].as_str().unwrap_or("none"))
        .collect()
}

/// Whether a job is over.
pub fn is_finished(job: &Value) -> bool {
    ["succeeded", "failed", "canceled"].contains(&job["status"].as_str().unwrap())
}

/// Asserts that a JSON object has these fields, among others.
#[track_caller]
pub fn assert_fields(value: &Value, fields: Value) {
    assert!(has_fields(value, &fields), "{value:#}\nlacks {fields:#}");
}

pub(crate) fn has_fields(value: &Value, fields: &Value) -> bool {
    let has = |(name, field): (&String, &Value)| {
        let value = value.get(name);
        value.is_some_and(|value| has_fields(value, field))
    };
    match fields {
        Value::Object(fields) => value.is_object() && fields.iter().all(has),
        field => value == field,
    }
}
