//! Reads a JSON object field by field, so that all violations are reported at once.
//!
//! serde stops at the first error and knows no rules. Here each field is taken, converted and
//! checked, violations are gathered, and a field that was not taken is unknown.

use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, FieldError, Result};

/// A body that can be read without context.
pub(crate) trait FromFields: Sized {
    /// Takes the fields; None if any of them is invalid.
    fn from_fields(fields: &mut FieldReader) -> Option<Self>;
}

/// Why a value is invalid: a code and a message.
pub(crate) type Violation = (&'static str, String);

/// Reads an object, which must have no other fields than those `read` takes.
pub(crate) fn read_object<T>(
    value: Value,
    read: impl FnOnce(&mut FieldReader) -> Option<T>,
) -> Result<T> {
    let mut fields = FieldReader {
        prefix: String::new(),
        rest: Map::new(),
        violations: Vec::new(),
    };
    fields.begin_object(value);
    let object = read(&mut fields);
    fields.end_object();
    match object {
        Some(object) if fields.violations.is_empty() => Ok(object),
        _ => Err(Error::Validation(fields.violations)),
    }
}

/// No more violations are listed: a response must not be much larger than its request.
const MAX_VIOLATIONS: usize = 50;

/// The fields of an object that are not taken yet, and the violations so far.
#[derive(Debug)]
pub(crate) struct FieldReader {
    prefix: String,
    rest: Map<String, Value>,
    violations: Vec<FieldError>,
}

impl FieldReader {
    /// Takes a field that must be present and not null.
    pub(crate) fn required<T: DeserializeOwned, U>(
        &mut self,
        name: &str,
        check: impl FnOnce(T) -> std::result::Result<U, Violation>,
    ) -> Option<U> {
        let value = self.take_required(name)?;
        self.convert(name, value, check)
    }

    /// Takes a field that may be missing or null: `Some(None)` then.
    pub(crate) fn optional<T: DeserializeOwned, U>(
        &mut self,
        name: &str,
        check: impl FnOnce(T) -> std::result::Result<U, Violation>,
    ) -> Option<Option<U>> {
        match self.take(name) {
            Some(value) => self.convert(name, value, check).map(Some),
            None => Some(None),
        }
    }

    /// Takes an object that must be present and not null.
    pub(crate) fn nested_required<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut FieldReader) -> Option<T>,
    ) -> Option<T> {
        let value = self.take_required(name)?;
        self.read_nested(name, value, read)
    }

    /// Takes an object that may be missing or null: `Some(None)` then.
    pub(crate) fn nested<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut FieldReader) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.take(name) {
            Some(value) => self.read_nested(name, value, read).map(Some),
            None => Some(None),
        }
    }

    /// Takes a list of objects, so many of them.
    pub(crate) fn nested_list<T>(
        &mut self,
        name: &str,
        length: RangeInclusive<usize>,
        read: impl Fn(&mut FieldReader) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = self.take_required(name)?;
        self.read_list(name, value, length, read)
    }

    /// Takes a list of objects that may be missing or null: `Some(None)` then.
    pub(crate) fn optional_list<T>(
        &mut self,
        name: &str,
        length: RangeInclusive<usize>,
        read: impl Fn(&mut FieldReader) -> Option<T>,
    ) -> Option<Option<Vec<T>>> {
        match self.take(name) {
            Some(value) => self.read_list(name, value, length, read).map(Some),
            None => Some(None),
        }
    }

    fn read_list<T>(
        &mut self,
        name: &str,
        value: Value,
        length: RangeInclusive<usize>,
        read: impl Fn(&mut FieldReader) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Value::Array(values) = value else {
            self.add_violation(name, ("invalid_type", "must be a list".to_owned()));
            return None;
        };
        if !length.contains(&values.len()) {
            let code = if values.len() < *length.start() {
                "too_short"
            } else {
                "too_long"
            };
            let (start, end) = length.into_inner();
            self.add_violation(name, (code, format!("must have {start} to {end} entries")));
            return None;
        }
        let values = values.into_iter().enumerate();
        let items =
            values.map(|(at, value)| self.read_nested(&format!("{name}.{at}"), value, &read));
        // All of them, to find all violations.
        let items: Vec<Option<T>> = items.collect();
        items.into_iter().collect()
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.rest.remove(name).filter(|value| !value.is_null())
    }

    fn take_required(&mut self, name: &str) -> Option<Value> {
        let value = self.take(name);
        if value.is_none() {
            self.add_violation(name, ("required", "is required".to_owned()));
        }
        value
    }

    fn read_nested<T>(
        &mut self,
        name: &str,
        value: Value,
        read: impl FnOnce(&mut FieldReader) -> Option<T>,
    ) -> Option<T> {
        let outer = std::mem::take(&mut self.rest);
        let inner_prefix = format!("{}{name}.", self.prefix);
        let prefix = std::mem::replace(&mut self.prefix, inner_prefix);
        let before = self.violations.len();
        self.begin_object(value);
        let object = read(self);
        self.end_object();
        self.prefix = prefix;
        self.rest = outer;
        object.filter(|_| self.violations.len() == before)
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
            Err(violation) => {
                self.add_violation(name, violation);
                None
            }
        }
    }

    fn begin_object(&mut self, value: Value) {
        match value {
            Value::Object(fields) => self.rest = fields,
            _ => {
                let path = self.prefix.trim_end_matches('.').to_owned();
                self.violations.push(FieldError {
                    field: path,
                    code: "invalid_type",
                    message: "must be an object".to_owned(),
                });
            }
        }
    }

    fn end_object(&mut self) {
        for (name, _) in std::mem::take(&mut self.rest) {
            self.add_violation(&name, ("unknown_field", "is not a known field".to_owned()));
        }
    }

    fn add_violation(&mut self, name: &str, (code, message): Violation) {
        if self.violations.len() >= MAX_VIOLATIONS {
            return;
        }
        self.violations.push(FieldError {
            field: format!("{}{name}", self.prefix),
            code,
            message,
        });
    }
}

/// Makes an integer of a number such as `3.0`: JSON does not distinguish them, and some clients
/// write all numbers so.
fn normalize_integer(value: Value) -> Value {
    match value.as_f64() {
        // Up to here each integer has a float of its own.
        Some(number) if value.is_f64() && number.fract() == 0.0 && number.abs() < 2f64.powi(53) => {
            Value::from(number as i64)
        }
        _ => value,
    }
}

/// Accepts any value of the right type.
pub(crate) fn accept_any<T>(value: T) -> std::result::Result<T, Violation> {
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::text_rules::trimmed_length;
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
            let inner = fields.nested("inner", Inner::from_fields);
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
        read_object(value, Outer::from_fields)
    }

    fn violations(value: Value) -> Vec<(String, &'static str)> {
        match of_outer(value) {
            Err(Error::Validation(violations)) => {
                violations.into_iter().map(|f| (f.field, f.code)).collect()
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
            let violation = ("inner.count".to_owned(), "invalid_type");
            assert_eq!(
                violations(json!({"name": "abc", "inner": {"count": count}})),
                [violation]
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
        let found = violations(json!({"inner": {"count": "x", "more": 1}, "other": true}));
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
        assert_eq!(violations(body).len(), MAX_VIOLATIONS);
    }

    #[test]
    fn a_body_that_is_no_object_is_at_fault() {
        assert_eq!(violations(json!([]))[0], (String::new(), "invalid_type"));
    }

    #[test]
    fn spaces_are_no_text() {
        assert_eq!(
            violations(json!({"name": "   "})),
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
            let violation = ("name".to_owned(), "too_short");
            assert_eq!(violations(json!({ "name": name })), [violation], "{name:?}");
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
            violations(json!({"name": "a\0b"})),
            [("name".to_owned(), "invalid")]
        );
    }
}
