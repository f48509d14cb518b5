//! Searching in text whatever its case.

use std::iter;

use sea_orm::sea_query::extension::postgres::PgBinOper;
use sea_orm::sea_query::{BinOper, SimpleExpr};
use sea_orm::{DbBackend, ExprTrait};

/// Whether `text` contains `q`, whatever its case.
///
/// Both databases look for a regular expression, in time that grows with the text
/// and no faster. SQLite's own patterns begin anew at each letter of it.
pub fn contains(backend: DbBackend, text: SimpleExpr, q: &str) -> SimpleExpr {
    let operator: BinOper = match backend {
        DbBackend::Postgres => PgBinOper::Regex.into(),
        _ => BinOper::Custom("REGEXP"),
    };
    text.binary(operator, pattern(q))
}

/// As in `[aA][bB]\*`. Postgres knows the case of the letters of its locale only,
/// so each is named in all its cases.
fn pattern(q: &str) -> String {
    let mut pattern = String::new();
    for c in q.chars() {
        match cases(c) {
            Some(cases) => pattern.push_str(&cases),
            // Escaped, these would be where words begin and end.
            None if matches!(c, '<' | '>') => pattern.push(c),
            None if c.is_ascii_punctuation() => pattern.extend(['\\', c]),
            None => pattern.push(c),
        }
    }
    pattern
}

/// A letter in all its cases, as in `[aA]`; None if it becomes several letters in
/// one of them.
fn cases(c: char) -> Option<String> {
    let single = c.to_lowercase().count() == 1 && c.to_uppercase().count() == 1;
    let cases: String = iter::once(c)
        .chain(c.to_lowercase())
        .chain(c.to_uppercase())
        .collect();
    (c.is_alphabetic() && single).then(|| format!("[{cases}]"))
}
