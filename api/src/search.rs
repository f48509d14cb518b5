//! Searching in text whatever its case.

use std::iter;

use sea_orm::sea_query::SimpleExpr;
use sea_orm::sea_query::extension::postgres::PgBinOper;
use sea_orm::sea_query::extension::sqlite::SqliteExpr;
use sea_orm::{DbBackend, ExprTrait};

/// Whether `text` contains `q`, whatever its case.
///
/// SQLite knows the case of ASCII letters only, and Postgres of those of its
/// locale, so the patterns name each letter in all its cases.
pub fn contains(backend: DbBackend, text: SimpleExpr, q: &str) -> SimpleExpr {
    match backend {
        DbBackend::Postgres => text.binary(PgBinOper::Regex, regex(q)),
        _ => text.glob(glob(q)),
    }
}

/// As in `[aA][bB]\*`.
fn regex(q: &str) -> String {
    let mut regex = String::new();
    for c in q.chars() {
        match cases(c) {
            Some(cases) => regex.push_str(&cases),
            None if c.is_ascii_punctuation() => regex.extend(['\\', c]),
            None => regex.push(c),
        }
    }
    regex
}

/// As in `*[aA][bB][*]*`.
fn glob(q: &str) -> String {
    let mut glob = String::from("*");
    for c in q.chars() {
        match cases(c) {
            Some(cases) => glob.push_str(&cases),
            None if matches!(c, '*' | '?' | '[') => glob.extend(['[', c, ']']),
            None => glob.push(c),
        }
    }
    glob.push('*');
    glob
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
