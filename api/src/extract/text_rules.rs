//! Rules for text: its length, and how much of it is visible.

use std::ops::RangeInclusive;

use crate::extract::field_reader::Violation;

/// Accepts text of `shortest` to `longest` characters without NUL.
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
        // Postgres can't store it.
        if value.contains('\0') {
            return Err(("invalid", "must not contain NUL characters".to_owned()));
        }
        Ok(value)
    }
}

/// Accepts text as [`length`] does, after it is trimmed. Invisible characters at its ends do not
/// count.
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

/// Invisible characters, besides white space and control characters: Unicode's default ignorable
/// ones, and the blank Braille pattern.
/// <https://www.unicode.org/reports/tr44/#Default_Ignorable_Code_Point>
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

/// The invisible characters as a class of a regular expression, except for those beyond U+FFFF,
/// which dialects write differently.
pub(crate) fn blank_class() -> String {
    let control = ['\u{0}'..='\u{1f}', '\u{7f}'..='\u{9f}'];
    let ranges = control.iter().chain(&BLANK);
    let class = ranges.filter_map(|range| {
        let start = u16::try_from(u32::from(*range.start())).ok()?;
        let end = u16::try_from(u32::from(*range.end())).ok()?;
        Some(if start == end {
            format!("\\u{start:04x}")
        } else {
            format!("\\u{start:04x}-\\u{end:04x}")
        })
    });
    format!("\\s{}", class.collect::<String>())
}
