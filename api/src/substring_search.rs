//! Searching in text whatever its case.

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};
use sea_orm::sea_query::extension::postgres::PgBinOper;
use sea_orm::sea_query::{BinOper, SimpleExpr};
use sea_orm::{DbBackend, ExprTrait};

/// Whether `text` contains `q`, whatever its case.
///
/// Both databases look for a regular expression, in time that grows with the text
/// and no faster. SQLite's own patterns begin anew at each letter of it.
pub(crate) fn contains(backend: DbBackend, text: SimpleExpr, q: &str) -> SimpleExpr {
    let operator: BinOper = match backend {
        DbBackend::Postgres => PgBinOper::Regex.into(),
        _ => BinOper::Custom("REGEXP"),
    };
    text.binary(operator, pattern(q))
}

/// As in `[Aa][Bb]\*`. Postgres knows the case of the letters of its locale only,
/// so each is named in all its cases.
fn pattern(q: &str) -> String {
    let mut pattern = String::new();
    for c in q.chars() {
        match case_variants(c).as_slice() {
            [_, _, ..] => pattern.extend(["[", &String::from_iter(case_variants(c)), "]"]),
            // Escaped, these would be where words begin and end.
            _ if matches!(c, '<' | '>') => pattern.push(c),
            _ if c.is_ascii_punctuation() => pattern.extend(['\\', c]),
            _ => pattern.push(c),
        }
    }
    pattern
}

/// A character in all its cases, as Unicode's simple case folding has them: the
/// Greek sigma has three. All of them are letters where there is more than one.
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
