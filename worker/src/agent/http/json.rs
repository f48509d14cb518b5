//! JSON as endpoints write it: not always what the standard allows.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::{Deserializer, Value};

/// Reads one value; none if it is not even nearly JSON.
pub(super) fn parse(text: &str) -> Option<Value> {
    let repaired = || serde_json::from_str(&repair(text)).ok();
    serde_json::from_str(text).ok().or_else(repaired)
}

/// Divides a body into its JSON values, and what is no JSON into lines: servers
/// write one value, one a line, or one with an end mark of a stream behind it.
pub(super) fn split(body: &str) -> Vec<String> {
    let is_json = serde_json::from_str::<IgnoredAny>(body).is_ok();
    let body = match is_json {
        true => Cow::Borrowed(body),
        false => Cow::Owned(repair(body)),
    };
    let mut parts = Vec::new();
    let mut rest = body.trim();
    while !rest.is_empty() {
        let mut values = Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        let length = match values.next() {
            Some(Ok(_)) if rest.starts_with(['{', '[']) => values.byte_offset(),
            _ => rest.find('\n').unwrap_or(rest.len()),
        };
        parts.push(rest[..length].trim().to_owned());
        rest = rest[length..].trim_start();
    }
    parts
}

/// Replaces what the standard forbids and servers write: `NaN` and `Infinity`,
/// control characters in strings, halves of surrogate pairs, unknown escapes.
fn repair(text: &str) -> String {
    let mut repaired = String::with_capacity(text.len() + 16);
    let mut in_string = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        match c {
            '"' => {
                in_string = !in_string;
                repaired.push(c);
            }
            '\\' if in_string => length = repair_escape(rest, &mut repaired),
            _ if in_string && c.is_ascii_control() => {
                repaired.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            'N' | 'I' | '-' if !in_string => {
                let number = ["NaN", "Infinity", "-Infinity"];
                match number.iter().find(|number| rest.starts_with(**number)) {
                    Some(number) => {
                        length = number.len();
                        repaired.push_str("null");
                    }
                    None => repaired.push(c),
                }
            }
            _ => repaired.push(c),
        }
        rest = &rest[length..];
    }
    repaired
}

/// Copies the escape sequence at the start of `rest` if it is a valid one, and
/// says how long it is.
fn repair_escape(rest: &str, repaired: &mut String) -> usize {
    let unit = |at: usize| {
        let hex = rest.get(at..).and_then(|rest| rest.strip_prefix("\\u"));
        hex.and_then(|hex| u16::from_str_radix(hex.get(..4)?, 16).ok())
    };
    match rest[1..].chars().next() {
        Some('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => {
            repaired.push_str(&rest[..2]);
            2
        }
        Some('u') => match (unit(0), unit(6)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => {
                repaired.push_str(&rest[..12]);
                12
            }
            (Some(0xd800..0xe000), _) => {
                repaired.push('\u{fffd}');
                6
            }
            (Some(_), _) => {
                repaired.push_str(&rest[..6]);
                6
            }
            (None, _) => {
                repaired.push_str("\\\\u");
                2
            }
        },
        _ => {
            repaired.push_str("\\\\");
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_nearly_json_is_read() {
        let cases = [
            (
                r#"{"a": NaN, "b": -Infinity, "c": -1}"#,
                json!({ "a": null, "b": null, "c": -1 }),
            ),
            ("{\"a\": \"one\ntwo\t\"}", json!({ "a": "one\ntwo\t" })),
            (
                r#"["\ud83d", "\ude00", "\ud83d\ude00", "Na\u004e"]"#,
                json!(["\u{fffd}", "\u{fffd}", "😀", "NaN"]),
            ),
            (
                r#"["it\'s", "\uzz", "NaN\\"]"#,
                json!(["it\\'s", "\\uzz", "NaN\\"]),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for text in ["", "{", "{\"a\": \"", "welcome", "\\", "\"\\"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_body_is_divided_into_its_values() {
        let pretty = "{\n  \"a\": 1\n}";
        assert_eq!(split(pretty), [pretty]);
        assert_eq!(
            split("{\"a\":1}\n\n{\"b\":2}{\"c\":3}"),
            ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]
        );
        assert_eq!(split("{\n}\ndata: [DONE]\n"), ["{\n}", "data: [DONE]"]);
        assert_eq!(split("{\"a\":"), ["{\"a\":"]);
        assert!(split(" \n").is_empty());
    }
}
