//! One file for each resource: its types and its handlers, nothing else.

pub mod admin;
pub mod blogs;
pub mod health;
pub mod jobs;
pub mod models;
pub mod scrape;
pub mod sessions;
pub mod sign_in;
pub mod users;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serializer;

/// Timestamps as the contract has them: RFC 3339 in UTC with milliseconds.
fn timestamp<S: Serializer>(
    time: &DateTime<Utc>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn optional_timestamp<S: Serializer>(
    time: &Option<DateTime<Utc>>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    match time {
        Some(time) => timestamp(time, serializer),
        None => serializer.serialize_none(),
    }
}
