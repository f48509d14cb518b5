//! Reading request bodies so that all faults are found at once.
//!
//! serde stops at the first fault and knows no rules, so a body is read field
//! by field here: each is taken, converted and checked, faults are gathered,
//! and what was not taken is unknown.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use shared::config::Model;
use tokio::time::timeout;

use crate::AppState;
use crate::error::{Error, FieldError, Result};

/// Something that a body can be read as.
pub(crate) trait FromFields: Sized {
    /// Takes the fields; None if any of them is at fault.
    fn from_fields(fields: &mut FieldReader) -> Option<Self>;
}

/// A JSON body that has been read and found good.
#[derive(Debug)]
pub(crate) struct ValidatedJson<T>(pub T);

/// Why a field's value is not good: a code and a message.
pub(crate) type Violation = (&'static str, String);

impl<T: FromFields> FromRequest<AppState> for ValidatedJson<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &AppState) -> Result<Self> {
        let is_json = is_json(request.headers());
        let bytes = read_bytes(request, state, BODY_READ_TIMEOUT).await?;
        // Where every field may be left out, so may the body.
        let value = if bytes.is_empty() && !is_json {
            Value::Object(Map::new())
        } else if is_json {
            parse(&bytes)?
        } else {
            return Err(Error::UnsupportedMediaType);
        };
        validate(value, &state.models).map(ValidatedJson)
    }
}

/// A body may take so long to come.
const BODY_READ_TIMEOUT: Duration = Duration::from_secs(60);

async fn read_bytes<S: Send + Sync>(
    request: Request,
    state: &S,
    patience: Duration,
) -> Result<Bytes> {
    let Ok(read) = timeout(patience, Bytes::from_request(request, state)).await else {
        return Err(Error::MalformedJson("it took too long to come".to_owned()));
    };
    read.map_err(|rejection| match rejection.status().as_u16() {
        413 => Error::PayloadTooLarge,
        _ => Error::MalformedJson("it broke off".to_owned()),
    })
}

fn parse(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|e| Error::MalformedJson(e.to_string()))
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(|value| value.trim().to_ascii_lowercase());
    media_type.is_some_and(|t| t == "application/json" || t.ends_with("+json"))
}

fn validate<T: FromFields>(value: Value, models: &Arc<[Model]>) -> Result<T> {
    let mut fields = FieldReader {
        models: models.clone(),
        prefix: String::new(),
        rest: Map::new(),
        faults: Vec::new(),
    };
    fields.begin_object(value);
    let read = T::from_fields(&mut fields);
    fields.end_object();
    match read {
        Some(body) if fields.faults.is_empty() => Ok(body),
        _ => Err(Error::Validation(fields.faults)),
    }
}

/// No more are listed; no honest body has so many.
const MAX_VIOLATIONS: usize = 50;

/// The fields of a body, and the faults found in them so far.
#[derive(Debug)]
pub(crate) struct FieldReader {
    /// The models that may be named.
    pub models: Arc<[Model]>,
    prefix: String,
    rest: Map<String, Value>,
    faults: Vec<FieldError>,
}

impl FieldReader {
    /// Takes a field that must be there and not null.
    pub(crate) fn required<T: DeserializeOwned, U>(
        &mut self,
        name: &str,
        check: impl FnOnce(T) -> std::result::Result<U, Violation>,
    ) -> Option<U> {
        match self.rest.remove(name) {
            None | Some(Value::Null) => {
                self.add_violation(name, ("required", "is required".to_owned()));
                None
            }
            Some(value) => self.convert(name, value, check),
        }
    }

    /// Takes a field that may be left out or null: `Some(None)` then.
    pub(crate) fn optional<T: DeserializeOwned, U>(
        &mut self,
        name: &str,
        check: impl FnOnce(T) -> std::result::Result<U, Violation>,
    ) -> Option<Option<U>> {
        match self.rest.remove(name) {
            None | Some(Value::Null) => Some(None),
            Some(value) => self.convert(name, value, check).map(Some),
        }
    }

    /// Takes an object that may be left out or null: `Some(None)` then.
    pub(crate) fn nested<T: FromFields>(&mut self, name: &str) -> Option<Option<T>> {
        let value = match self.rest.remove(name) {
            None | Some(Value::Null) => return Some(None),
            Some(value) => value,
        };
        let outer = std::mem::take(&mut self.rest);
        let inner_prefix = format!("{}{name}.", self.prefix);
        let prefix = std::mem::replace(&mut self.prefix, inner_prefix);
        let before = self.faults.len();
        self.begin_object(value);
        let read = T::from_fields(self);
        self.end_object();
        self.prefix = prefix;
        self.rest = outer;
        read.filter(|_| self.faults.len() == before).map(Some)
    }

    /// Takes an object that must be there and not null.
    pub(crate) fn nested_required<T: FromFields>(&mut self, name: &str) -> Option<T> {
        if matches!(self.rest.get(name), None | Some(Value::Null)) {
            self.rest.remove(name);
            self.add_violation(name, ("required", "is required".to_owned()));
            return None;
        }
        self.nested(name)?
    }

    fn convert<T: DeserializeOwned, U>(
        &mut self,
        name: &str,
        value: Value,
        check: impl FnOnce(T) -> std::result::Result<U, Violation>,
    ) -> Option<U> {
        let checked = serde_json::from_value(normalize_integer(value))
            .map_err(|e| ("invalid_type", format!("has the wrong type: {e}")))
            .and_then(check);
        match checked {
            Ok(good) => Some(good),
            Err(fault) => {
                self.add_violation(name, fault);
                None
            }
        }
    }

    /// Turns to the fields of `value`, which must be an object.
    fn begin_object(&mut self, value: Value) {
        match value {
            Value::Object(fields) => self.rest = fields,
            _ => {
                let path = self.prefix.trim_end_matches('.').to_owned();
                self.faults.push(FieldError {
                    field: path,
                    code: "invalid_type",
                    message: "must be an object".to_owned(),
                });
            }
        }
    }

    /// What was not taken is not known.
    fn end_object(&mut self) {
        for (name, _) in std::mem::take(&mut self.rest) {
            self.add_violation(&name, ("unknown_field", "is not a known field".to_owned()));
        }
    }

    fn add_violation(&mut self, name: &str, (code, message): Violation) {
        // An answer must not be much larger than its question.
        if self.faults.len() >= MAX_VIOLATIONS {
            return;
        }
        self.faults.push(FieldError {
            field: format!("{}{name}", self.prefix),
            code,
            message,
        });
    }
}

/// A whole number stays one with a point in it: JSON knows no difference, and
/// some clients write all numbers so.
fn normalize_integer(value: Value) -> Value {
    match value.as_f64() {
        // Up to here each whole number has a float of its own.
        Some(number) if value.is_f64() && number.fract() == 0.0 && number.abs() < 2f64.powi(53) => {
            Value::from(number as i64)
        }
        _ => value,
    }
}

/// Accepts any value of the right type.
///
/// # Errors
/// Never.
pub(crate) fn accept_any<T>(value: T) -> std::result::Result<T, Violation> {
    Ok(value)
}

/// Accepts text of `shortest` to `longest` characters that can be stored.
pub(crate) fn length(
    shortest: usize,
    longest: usize,
) -> impl Fn(String) -> std::result::Result<String, Violation> {
    move |value| {
        let length = value.chars().count();
        if length < shortest {
            return Err(too_short(shortest));
        }
        if length > longest {
            return Err((
                "too_long",
                format!("must have at most {longest} characters"),
            ));
        }
        // Postgres can't store it, and nobody can type it.
        if value.contains('\0') {
            return Err(("invalid", "must not contain NUL characters".to_owned()));
        }
        Ok(value)
    }
}

/// Accepts text as [`length`] does, after white space at its ends is removed. What
/// can't be seen at its ends does not make it long enough.
pub(crate) fn trimmed_length(
    shortest: usize,
    longest: usize,
) -> impl Fn(String) -> std::result::Result<String, Violation> {
    let text = length(shortest, longest);
    move |value| {
        let visible = value.trim_matches(is_blank).chars().count();
        if visible < shortest {
            return Err(too_short(shortest));
        }
        text(value.trim().to_owned())
    }
}

fn too_short(shortest: usize) -> Violation {
    let least = match shortest {
        1 => "must not be empty".to_owned(),
        n => format!("must have at least {n} characters"),
    };
    ("too_short", least)
}

/// Characters that leave nothing to see, besides white space and control characters:
/// those that Unicode has programs ignore where they can't show them, and the blank
/// of Braille. <https://www.unicode.org/reports/tr44/#Default_Ignorable_Code_Point>
const BLANK: [RangeInclusive<char>; 18] = [
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200f}',
    '\u{202a}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fff8}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

fn is_blank(c: char) -> bool {
    c.is_whitespace() || c.is_control() || BLANK.iter().any(|range| range.contains(&c))
}

/// What a pattern of the document has in a class for white space, with all else that
/// leaves nothing to see, up to where kinds of regular expressions differ in how they
/// write a character.
pub(crate) fn blank_class() -> String {
    let control = ['\u{0}'..='\u{1f}', '\u{7f}'..='\u{9f}'];
    let ranges = control.iter().chain(&BLANK);
    let class = ranges.filter_map(|range| {
        let start = u16::try_from(u32::from(*range.start())).ok()?;
        let end = u16::try_from(u32::from(*range.end())).ok()?;
        Some(match start == end {
            true => format!("\\u{start:04x}"),
            false => format!("\\u{start:04x}-\\u{end:04x}"),
        })
    });
    format!("\\s{}", class.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug)]
    struct Outer {
        name: String,
        inner: Option<Inner>,
    }

    #[derive(Debug)]
    struct Inner {
        count: Option<u8>,
    }

    impl FromFields for Outer {
        fn from_fields(fields: &mut FieldReader) -> Option<Self> {
            let name = fields.required("name", trimmed_length(2, 5));
            let inner = fields.nested("inner");
            Some(Outer {
                name: name?,
                inner: inner?,
            })
        }
    }

    impl FromFields for Inner {
        fn from_fields(fields: &mut FieldReader) -> Option<Self> {
            let count = fields.optional("count", accept_any)?;
            Some(Inner { count })
        }
    }

    fn of_outer(value: Value) -> Result<Outer> {
        validate(value, &Arc::from([]))
    }

    fn faults(value: Value) -> Vec<(String, &'static str)> {
        match of_outer(value) {
            Err(Error::Validation(faults)) => {
                faults.into_iter().map(|f| (f.field, f.code)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_body_is_read() {
        let outer = of_outer(json!({"name": " abc ", "inner": {"count": 3}})).unwrap();
        assert_eq!(outer.name, "abc");
        assert_eq!(outer.inner.unwrap().count, Some(3));
    }

    #[test]
    fn a_whole_number_may_have_a_point() {
        let outer = of_outer(json!({"name": "abc", "inner": {"count": 3.0}})).unwrap();
        assert_eq!(outer.inner.unwrap().count, Some(3));
        for count in [json!(3.5), json!(-3.0), json!(1e300)] {
            let fault = ("inner.count".to_owned(), "invalid_type");
            assert_eq!(
                faults(json!({"name": "abc", "inner": {"count": count}})),
                [fault]
            );
        }
    }

    #[test]
    fn null_is_the_same_as_left_out() {
        let outer = of_outer(json!({"name": "abc", "inner": null})).unwrap();
        assert!(outer.inner.is_none());
    }

    #[test]
    fn all_faults_are_found_at_once() {
        let found = faults(json!({"inner": {"count": "x", "more": 1}, "other": true}));
        let expected = [
            ("name", "required"),
            ("inner.count", "invalid_type"),
            ("inner.more", "unknown_field"),
            ("other", "unknown_field"),
        ];
        assert_eq!(
            found,
            expected.map(|(field, code)| (field.to_owned(), code))
        );
    }

    #[test]
    fn of_very_many_faults_some_are_told() {
        let fields = (0..1000).map(|n| (format!("f{n}"), json!(n)));
        let body = Value::Object(fields.collect());
        assert_eq!(faults(body).len(), MAX_VIOLATIONS);
    }

    #[test]
    fn a_body_that_is_no_object_is_at_fault() {
        assert_eq!(faults(json!([]))[0], (String::new(), "invalid_type"));
    }

    #[test]
    fn spaces_are_no_text() {
        assert_eq!(
            faults(json!({"name": "   "})),
            [("name".to_owned(), "too_short")]
        );
    }

    #[test]
    fn what_cannot_be_seen_is_no_text() {
        let invisible = [
            "\u{200b}\u{200b}",
            "\u{feff}\u{2060}",
            "\u{3164}\u{3164}",
            "\u{2800}\u{2800}",
            "\u{e0041}\u{e0042}",
            "\u{1}\u{2}",
            "a\u{200b}",
        ];
        for name in invisible {
            let fault = ("name".to_owned(), "too_short");
            assert_eq!(faults(json!({ "name": name })), [fault], "{name:?}");
        }
        // Joined to one character that is seen, and kept as they are.
        for name in ["👩\u{200d}👧", "می\u{200c}خ"] {
            let outer = of_outer(json!({ "name": name })).unwrap();
            assert_eq!(outer.name, name);
        }
    }

    #[test]
    fn a_nul_is_refused() {
        assert_eq!(
            faults(json!({"name": "a\0b"})),
            [("name".to_owned(), "invalid")]
        );
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let endless = futures_util::stream::pending::<std::io::Result<Bytes>>();
        let request = Request::new(axum::body::Body::from_stream(endless));
        let read = read_bytes(request, &(), Duration::from_millis(10)).await;
        assert!(matches!(read, Err(Error::MalformedJson(_))), "{read:?}");
    }
}
