//! Titles and headings: single lines, with nothing about them but the words.

use crate::writing::sentences::normalized;

/// Marks around words that are not part of them.
const MARKS: &[char] = &[
    '"', '\'', '“', '”', '„', '‘', '’', '«', '»', '*', '_', '`', '#', '<', '>', '~', '|', '{', '}',
    '[', ']', '\\',
];

/// What models call the thing that they were asked for.
const LABELS: &[&str] = &[
    "title",
    "post title",
    "blog title",
    "blog post title",
    "heading",
    "headings",
    "section heading",
    "section headings",
    "section header",
    "section title",
    "section",
    "header",
    "headline",
    "subheading",
    "subheader",
    "subsection",
    "subtitle",
    "chapter",
    "part",
    "topic",
    "outline",
    "step",
    "h1",
    "h2",
    "h3",
    "blog post",
    "blog post outline",
    "titel",
    "überschrift",
    "abschnitt",
    "kapitel",
    "gliederung",
    "título",
    "titulo",
    "sección",
    "encabezado",
    "titre",
    "titolo",
    "sezione",
    "seção",
    "body",
    "content",
    "text",
    "paragraph",
    "draft",
    "answer",
    "response",
    "section body",
    "name",
    "first heading",
    "second heading",
    "third heading",
    "fourth heading",
    "fifth heading",
];

/// Headings that are about the post and not about the topic.
const EMPTY: &[&str] = &[
    "introduction",
    "intro",
    "conclusion",
    "conclusions",
    "summary",
    "recap",
    "overview",
    "outline",
    "references",
    "resources",
    "additional resources",
    "further reading",
    "feedback",
    "suggestions",
    "recommendations",
    "table of contents",
    "call to action",
    "author bio",
    "about the author",
    "title",
    "headings",
    "example",
    "examples",
    "main content",
    "final thoughts",
    "closing thoughts",
    "einleitung",
    "fazit",
    "introducción",
    "conclusión",
    "table des matières",
    "notes",
    "tags",
    "keywords",
    "end",
    "the end",
];

/// A heading without marks, numbers, labels and remarks; empty if nothing is
/// left.
pub(super) fn clean(line: &str) -> String {
    // Those that JSON had escaped, among them NUL, which Postgres can't store.
    let line = line.replace(char::is_control, " ");
    let mut text = line.trim();
    loop {
        let before = text;
        text = text.trim_start_matches(|c: char| {
            MARKS.contains(&c) || "-–—•·+=:,.)".contains(c) || c.is_whitespace()
        });
        text = without_number(text);
        text = without_label(text);
        text = text.trim_end_matches(|c: char| {
            MARKS.contains(&c) || ".:;,-–—=".contains(c) || c.is_whitespace()
        });
        text = without_remark(text);
        if text == before {
            break;
        }
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    words
        .join(" ")
        .replace(['*', '`', '"', '“', '”', '„', '#'], "")
}

/// Whether both say the same, whatever their marks and case.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (normalized(&clean(one)), normalized(&clean(other)));
    !one.is_empty() && one == other
}

/// Whether a cleaned heading says nothing about the topic.
pub(super) fn is_empty(heading: &str) -> bool {
    let small = heading.to_lowercase();
    normalized(heading).len() < 3
        || normalized(heading).chars().all(|c| c.is_ascii_digit())
        || EMPTY.contains(&small.as_str())
        || LABELS.contains(&small.as_str())
}

/// Whether it has a gap to be filled in: "[Your Name]", "[Insert date]".
pub(super) fn is_placeholder(text: &str) -> bool {
    const GAPS: &[&str] = &[
        "your ",
        "insert",
        "name",
        "author",
        "company",
        "add ",
        "image",
        "photo",
        "link",
        "date",
        "topic",
        "title",
        "placeholder",
        "city",
        "location",
        "product",
        "brand",
        "website",
        "email",
        "number",
        "section",
        "heading",
        "blog",
    ];
    text.to_lowercase().split('[').skip(1).any(|gap| {
        let inside = gap.split(']').next().unwrap_or_default();
        let behind = gap.get(inside.len() + 1..).unwrap_or_default();
        // `[text](address)` and `[text]: address` are links.
        GAPS.iter().any(|word| inside.starts_with(word))
            && inside.len() < 60
            && !behind.starts_with(['(', ':', '['])
    })
}

/// What a label at the line's start is put before, and whether there is one:
/// "Section 2 - Soil" is about "Soil".
fn without_label(text: &str) -> &str {
    let Some(mark) = text.find([':', '-', '–', '—', '.']) else {
        return text;
    };
    let label = text[..mark].trim_end_matches(|c: char| MARKS.contains(&c) || c.is_whitespace());
    if is_label(label) { &text[mark..] } else { text }
}

/// Whether these words name a piece of a post: "Title", "Heading 2".
pub(super) fn is_label(text: &str) -> bool {
    let small = text.to_lowercase();
    let name =
        small.trim_end_matches(|c: char| c.is_ascii_digit() || c == '#' || c.is_whitespace());
    LABELS.contains(&name)
        || LABELS.contains(&small.as_str())
        || ["one", "two", "three", "four", "five"]
            .iter()
            .any(|number| {
                small
                    .strip_suffix(number)
                    .is_some_and(|name| LABELS.contains(&name.trim_end()))
            })
}

/// The text behind "3.", "3)", "(3)", "b)" or "IV."
fn without_number(text: &str) -> &str {
    let inner = text.strip_prefix('(').unwrap_or(text);
    let end = inner
        .find(|c: char| !c.is_ascii_alphanumeric())
        .unwrap_or(inner.len());
    let (number, rest) = inner.split_at(end);
    let counts = !number.is_empty()
        && (number.len() <= 2 && number.bytes().all(|b| b.is_ascii_digit())
            || number.len() == 1 && rest.starts_with(')')
            || number.len() <= 4 && number.bytes().all(|b| b"IVX".contains(&b)));
    let marked = rest.starts_with([')', ':'])
        || rest.starts_with('.') && !rest[1..].starts_with(|c: char| c.is_ascii_digit());
    if counts && marked { rest } else { text }
}

/// The text before "(150 words)", "- 20 sentences" or "[2 paragraphs]".
fn without_remark(text: &str) -> &str {
    const UNITS: &[&str] = &[
        "word",
        "sentence",
        "paragraph",
        "minute",
        "line",
        "character",
        "wörter",
        "palabras",
        "mots",
    ];
    // "(3)" too; but a year may belong there.
    if let Some((before, number)) = text
        .strip_suffix(')')
        .and_then(|text| text.rsplit_once(" ("))
        && number.len() <= 2
        && number.bytes().all(|b| b.is_ascii_digit())
    {
        return before;
    }
    let small = text.to_lowercase();
    if small.len() != text.len() || !UNITS.iter().any(|unit| small.contains(unit)) {
        return text;
    }
    let Some(start) = text.rfind(['(', '[', ':', '-', '–', '—', ',']) else {
        return text;
    };
    let remark = &small[start..];
    let is_remark = remark.contains(|c: char| c.is_ascii_digit())
        && UNITS.iter().any(|unit| remark.contains(unit));
    if is_remark && remark.split_whitespace().count() <= 6 {
        &text[..start]
    } else {
        text
    }
}

/// The text in small letters with capitals where titles have them, if all of
/// it was in capitals and the topic is not.
pub(super) fn normalize_case(text: String, topic: &str) -> String {
    let shouts = |text: &str| {
        text.chars().filter(|c| c.is_uppercase()).count() > 5 && !text.contains(char::is_lowercase)
    };
    if !shouts(&text) || shouts(topic) {
        return text;
    }
    let as_in_topic = |word: &str| {
        topic
            .split_whitespace()
            .find(|known| *known == word && known.len() > 1)
            .map(str::to_owned)
    };
    let words: Vec<String> = text
        .split(' ')
        .enumerate()
        .map(|(at, word)| {
            as_in_topic(word).unwrap_or_else(|| {
                let small = word.to_lowercase();
                let minor = [
                    "a", "an", "the", "of", "on", "in", "to", "and", "or", "for", "with", "at",
                    "by",
                ];
                if at > 0 && minor.contains(&small.as_str()) {
                    small
                } else {
                    capitalized(&small)
                }
            })
        })
        .collect();
    words.join(" ")
}

/// The text with a capital at its start.
pub(super) fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

/// At most `most` characters of the text, ending with a word.
pub(super) fn truncated(text: &str, most: usize) -> &str {
    let Some((end, _)) = text.char_indices().nth(most) else {
        return text;
    };
    let cut = &text[..end];
    let word = if text[end..].starts_with(char::is_whitespace) {
        end
    } else {
        cut.rfind(char::is_whitespace).unwrap_or(end)
    };
    cut[..word].trim_end_matches(|c: char| c.is_whitespace() || ",;:-–—(".contains(c))
}
