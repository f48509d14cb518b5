//! Case-insensitive search in text.

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};
use sea_orm::sea_query::extension::postgres::PgBinOper;
use sea_orm::sea_query::{BinOper, SimpleExpr};
use sea_orm::{DbBackend, ExprTrait};

/// Whether `text` contains `q`, case-insensitive.
///
/// Both databases match a regular expression, in time linear in the text. SQLite's LIKE starts anew
/// at each letter.
pub(crate) fn contains(backend: DbBackend, text: SimpleExpr, q: &str) -> SimpleExpr {
    let operator: BinOper = match backend {
        DbBackend::Postgres => PgBinOper::Regex.into(),
        _ => BinOper::Custom("REGEXP"),
    };
    text.binary(operator, pattern(q))
}

/// A pattern such as `[Aa][Bb]\*`. Postgres knows the case of its locale's letters only, so each
/// case is listed.
fn pattern(q: &str) -> String {
    let mut pattern = String::new();
    for c in q.chars() {
        match case_variants(c).as_slice() {
            [_, _, ..] => pattern.extend(["[", &String::from_iter(case_variants(c)), "]"]),
            // Escaped, these would be word boundaries.
            _ if matches!(c, '<' | '>') => pattern.push(c),
            _ if c.is_ascii_punctuation() => pattern.extend(['\\', c]),
            _ => pattern.push(c),
        }
    }
    pattern
}

/// All cases of a character by Unicode's simple case folding: the Greek sigma has three. If there
/// are several, all are letters.
fn case_variants(c: char) -> Vec<char> {
    let mut class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
    class.case_fold_simple();
    let ranges = class.ranges().iter();
    ranges
        .flat_map(|range| range.start()..=range.end())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_named_in_all_their_cases_and_signs_as_they_are() {
        assert_eq!(pattern("aB1*"), "[Aa][Bb]1\\*");
        for sigma in ["Σ", "σ", "ς"] {
            assert_eq!(pattern(sigma), "[Σςσ]");
        }
        assert_eq!(pattern("<[^]>"), "<\\[\\^\\]>");
        assert_eq!(pattern("東京"), "東京");
    }
}
