//! When a provider wants to be asked again: it says so in one of many headers,
//! or in words.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::agent::MAX_RETRY_AFTER;

/// Words of a message that stand before a time.
const PHRASES: [&str; 10] = [
    "try again in",
    "retry in",
    "retry after",
    "try again after",
    "again in about",
    "wait for",
    "please wait",
    "retrydelay",
    "retry_after",
    "estimated_time",
];

/// The pause that a refusal asks for: by its headers, or else by its body. When a
/// limit is renewed matters only to who has reached it.
pub(super) fn delay(
    status: u16,
    headers: &HeaderMap,
    body: &str,
    now: DateTime<Utc>,
) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let millis = text("retry-after-ms").and_then(|value| value.trim().parse::<f64>().ok());
    let wait = millis
        .and_then(|millis| Duration::try_from_secs_f64(millis / 1000.0).ok())
        .or_else(|| text(RETRY_AFTER.as_str()).and_then(|value| time(value, now)))
        .or_else(|| in_words(body))
        .or_else(|| limit_reset(headers, now).filter(|_| status == 429));
    wait.map(|wait| wait.min(MAX_RETRY_AFTER))
}

/// The same by a body alone.
pub(super) fn in_words(body: &str) -> Option<Duration> {
    let body = body.to_lowercase();
    let ends = PHRASES
        .iter()
        .filter_map(|phrase| Some(body.find(phrase)? + phrase.len()));
    let wait = ends.min().and_then(|end| {
        let start = |c: char| matches!(c, ' ' | '"' | '\'' | ':' | '=' | '`' | '\\');
        span(body[end..].trim_start_matches(start))
    });
    wait.map(|wait| wait.min(MAX_RETRY_AFTER))
}

/// When the limits that are used up are renewed.
fn limit_reset(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let resets = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str();
        if !name.contains("ratelimit") || !name.contains("reset") {
            return None;
        }
        let remaining = headers.get(name.replace("reset", "remaining"));
        let is_used_up = remaining.is_none_or(|left| left.as_bytes().starts_with(b"0"));
        is_used_up.then(|| time(value.to_str().ok()?, now))?
    });
    resets.max()
}

/// Seconds, a span such as `1m30s`, or a point in time.
fn time(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return match seconds {
            // Since 1970, that is; some count milliseconds.
            1e12.. => until(DateTime::from_timestamp_millis(seconds as i64)?, now),
            1e9.. => until(DateTime::from_timestamp(seconds as i64, 0)?, now),
            _ => Duration::try_from_secs_f64(seconds).ok(),
        };
    }
    let is_span = value.starts_with(|c: char| c.is_ascii_digit()) && !value.contains(['-', ',']);
    if is_span && let Some(span) = span(value) {
        return Some(span);
    }
    until(date(value)?, now)
}

/// A date as HTTP has it, in any of its three forms, or RFC 3339.
fn date(value: &str) -> Option<DateTime<Utc>> {
    let zoned =
        DateTime::parse_from_rfc2822(value).or_else(|_| DateTime::parse_from_rfc3339(value));
    let old = [
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %e %H:%M:%S %Y",
        "%a, %d-%b-%Y %H:%M:%S GMT",
    ];
    let mut old = old
        .iter()
        .filter_map(|form| NaiveDateTime::parse_from_str(value, form).ok());
    match zoned {
        Ok(date) => Some(date.to_utc()),
        Err(_) => old.next().map(|date| date.and_utc()),
    }
}

fn until(date: DateTime<Utc>, now: DateTime<Utc>) -> Option<Duration> {
    Some((date - now).to_std().unwrap_or_default())
}

/// The span at the start of a text, such as `20s`, `1m30.5s`, `6ms` or
/// `2 minutes`; a number alone is seconds.
fn span(text: &str) -> Option<Duration> {
    let mut total = None;
    let mut rest = text;
    while rest.starts_with(|c: char| c.is_ascii_digit()) {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, after) = rest.split_at(end.unwrap_or(rest.len()));
        let number: f64 = number.trim_end_matches('.').parse().ok()?;
        let unit_start = after.trim_start();
        let end = unit_start.find(|c: char| !c.is_ascii_alphabetic());
        let (unit, next) = unit_start.split_at(end.unwrap_or(unit_start.len()));
        let seconds = match unit {
            "ms" | "millisecond" | "milliseconds" => 0.001,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86400.0,
            _ => 1.0,
        };
        total = Some(total.unwrap_or(0.0) + number * seconds);
        rest = next.trim_start();
    }
    Duration::try_from_secs_f64(total?).ok()
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::parse_from_rfc3339("2026-11-22T10:00:00Z")
            .unwrap()
            .to_utc()
    }

    fn read(headers: &[(&str, &str)], body: &str) -> Option<u128> {
        let header = |(name, value): &(&str, &str)| {
            let name = HeaderName::try_from(*name).unwrap();
            (name, HeaderValue::try_from(*value).unwrap())
        };
        let headers = headers.iter().map(header).collect();
        delay(429, &headers, body, now()).map(|wait| wait.as_millis())
    }

    #[test]
    fn retry_after_is_read_in_every_form() {
        let day = MAX_RETRY_AFTER.as_millis();
        let cases = [
            ("0", 0),
            (" 120 ", 120_000),
            ("1.5", 1500),
            ("20s", 20_000),
            ("1m30s", 90_000),
            ("Sun, 22 Nov 2026 10:01:00 GMT", 60_000),
            ("Sunday, 22-Nov-26 10:01:00 GMT", 60_000),
            ("Sun Nov 22 10:01:00 2026", 60_000),
            ("2026-11-22T10:01:00Z", 60_000),
            ("Sun, 22 Nov 2026 09:00:00 GMT", 0),
            ("1795341660", 60_000),
            ("99999999", day),
        ];
        for (value, expected) in cases {
            assert_eq!(
                read(&[("retry-after", value)], ""),
                Some(expected),
                "{value}"
            );
        }
        for nonsense in ["", "soon", "-1", "NaN", "inf", "1e400", "-inf"] {
            assert_eq!(read(&[("retry-after", nonsense)], ""), None, "{nonsense}");
        }
    }

    #[test]
    fn the_most_exact_of_several_counts() {
        let both = [("retry-after", "2"), ("retry-after-ms", "1500")];
        assert_eq!(read(&both, "try again in 9s"), Some(1500));
        assert_eq!(read(&both[..1], "try again in 9s"), Some(2000));
        let resets = [
            ("x-ratelimit-reset-requests", "1m30s"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-tokens", "5h"),
            ("x-ratelimit-remaining-tokens", "100"),
        ];
        assert_eq!(read(&resets, "Slow down."), Some(90_000));
        assert_eq!(read(&resets, "Please try again in 20s."), Some(20_000));
        assert_eq!(
            read(&[("x-ratelimit-reset", "1795341630000")], ""),
            Some(30_000)
        );
        let anthropic = [("anthropic-ratelimit-requests-reset", "2026-11-22T10:00:07Z")];
        assert_eq!(read(&anthropic, ""), Some(7000));
    }

    #[test]
    fn times_in_words_are_read() {
        let cases = [
            ("Please try again in 20s. Visit", Some(20_000)),
            ("Please try again in 1m30.5s.", Some(90_500)),
            ("Please try again in 6ms.", Some(6)),
            ("Please retry after 10 seconds.", Some(10_000)),
            ("Try again in 2 minutes", Some(120_000)),
            (r#"{"retryDelay": "34s"}"#, Some(34_000)),
            (r#"{"retry_after": 3}"#, Some(3000)),
            ("Please retry in 34.074824224s.", Some(34_074)),
            (r#"{"error":"Loading","estimated_time":20.5}"#, Some(20_500)),
            ("Please try again later.", None),
            ("Too many requests", None),
        ];
        for (body, expected) in cases {
            assert_eq!(
                in_words(body).map(|wait| wait.as_millis()),
                expected,
                "{body}"
            );
        }
    }
}
