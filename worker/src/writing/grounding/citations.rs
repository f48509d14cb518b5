//! Citations in the Markdown of a section: `[2]` names the second source. Models write them in
//! several ways; in a post they have one form.

use std::ops::Range;

use entity::source::MAX_SOURCES;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use crate::writing::sentences;

/// A sentence of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sentence {
    /// Where it stands in the section, with its citations.
    pub(super) range: Range<usize>,
    /// Without its citations.
    pub(super) text: String,
    /// The sources that it names, in its order.
    pub(super) cited: Vec<u32>,
}

/// The sentences of a section, with the sources that they name. Code and headings are none.
pub(super) fn read_sentences(body: &str) -> Vec<Sentence> {
    let fixed = fixed_parts(body);
    let marks = marks(body, &fixed);
    let mut found = Vec::new();
    for block in prose_blocks(body) {
        let is_inside = |mark: &&Mark| block.contains(&mark.range.start);
        let inside: Vec<&Mark> = marks.iter().filter(is_inside).collect();
        let mut sentences = sentence_ranges(body, &block, &inside, &fixed);
        for mark in inside {
            assign(mark, &mut sentences);
        }
        for sentence in &mut sentences {
            let text = without(body, sentence.range.clone(), &marks);
            sentence.text = text.trim().to_owned();
        }
        found.extend(sentences);
    }
    found
}

/// A mark belongs to the sentence before it or in which it stands, at the start of a block to the next.
fn assign(mark: &Mark, sentences: &mut [Sentence]) {
    let before = sentences
        .iter()
        .rposition(|sentence| sentence.range.start < mark.range.start);
    let Some(sentence) = sentences.get_mut(before.unwrap_or(0)) else {
        return;
    };
    let range = &mut sentence.range;
    *range = range.start.min(mark.range.start)..range.end.max(mark.range.end);
    for number in &mark.numbers {
        if !sentence.cited.contains(number) {
            sentence.cited.push(*number);
        }
    }
}

/// The sentences of a block, as if it had no marks, and nothing in code or links were an end.
fn sentence_ranges(
    body: &str,
    block: &Range<usize>,
    marks: &[&Mark],
    fixed: &[Range<usize>],
) -> Vec<Sentence> {
    let mut plain = Vec::new();
    // Where each byte of `plain` stands in the body.
    let mut offsets = Vec::new();
    for at in block.clone() {
        if marks.iter().any(|mark| mark.range.contains(&at)) {
            continue;
        }
        let is_fixed = fixed.iter().any(|part| part.contains(&at));
        plain.push(if is_fixed { b'x' } else { body.as_bytes()[at] });
        offsets.push(at);
    }
    let plain = String::from_utf8_lossy(&plain);
    let mut at = 0;
    let mut found = Vec::new();
    for sentence in sentences(&plain) {
        let inside = sentence.trim();
        let first = at + sentence.len() - sentence.trim_start().len();
        at += sentence.len();
        let last = first + inside.len();
        if inside.contains(char::is_alphanumeric) && last <= offsets.len() {
            found.push(Sentence {
                range: offsets[first]..offsets[last - 1] + 1,
                text: String::new(),
                cited: Vec::new(),
            });
        }
    }
    found
}

/// The section with the citations of each sentence as `cited` has them: behind the sentence, in one
/// form. All others are taken out.
pub(super) fn with_citations(body: &str, cited: &[(Range<usize>, Vec<u32>)]) -> String {
    let fixed = fixed_parts(body);
    let marks = marks(body, &fixed);
    let mut text = String::new();
    let mut from = 0;
    for (range, numbers) in cited {
        // Not into code or a link.
        let inside = fixed
            .iter()
            .find(|part| part.start < range.end && range.end < part.end);
        let end = inside.map_or(range.end, |part| part.end).max(from);
        text += &without(body, from..end, &marks);
        from = end;
        text += &numbers
            .iter()
            .map(|number| format!("[{number}]"))
            .collect::<String>();
        // Else it would be a link, or its definition.
        if !numbers.is_empty() && body[from..].starts_with(['(', ':', '[']) {
            text.push(' ');
        }
    }
    text + &without(body, from..body.len(), &marks)
}

/// A text without any citations.
pub(super) fn without_citations(text: &str) -> String {
    without(text, 0..text.len(), &marks(text, &fixed_parts(text)))
}

/// A part of a text without its marks, and without the space that they leave.
fn without(body: &str, part: Range<usize>, marks: &[Mark]) -> String {
    let mut plain = String::new();
    let mut from = part.start;
    for mark in marks {
        if mark.range.start < from || mark.range.end > part.end {
            continue;
        }
        let before = &body[from..mark.range.start];
        let trimmed = before.trim_end_matches([' ', '\u{a0}']);
        from = mark.range.end;
        if trimmed.is_empty() || trimmed.ends_with('\n') {
            // The first of its line.
            plain += before;
            from += body[from..part.end].len() - body[from..part.end].trim_start_matches(' ').len();
        } else {
            plain += trimmed;
        }
    }
    plain + &body[from..part.end.max(from)]
}

/// A citation, perhaps of several sources.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    range: Range<usize>,
    numbers: Vec<u32>,
}

/// What stands before a number in a citation, in the ways in which models write them.
const LABELS: [&str; 8] = [
    "^", "#", "sources", "source", "passages", "passage", "src", "s",
];

/// The citations of a text: `[1]`, `[1, 2]`, `[S1]`, `[Source 1]`, `[^1]`, `【1】`.
fn marks(text: &str, fixed: &[Range<usize>]) -> Vec<Mark> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find(['[', '【']).map(|at| at + from) {
        let open = text[at..].chars().next().map_or(1, char::len_utf8);
        from = at + open;
        let close = if text[at..].starts_with('[') {
            ']'
        } else {
            '】'
        };
        let Some(length) = text[from..].find(close) else {
            continue;
        };
        let end = from + length + close.len_utf8();
        // A link, or its definition, or the place in an array, is none.
        let is_link = text[end..].starts_with(['(', ':']) && close == ']';
        let is_fixed = fixed.iter().any(|part| part.contains(&at));
        if is_link || is_fixed || text[..at].ends_with('\\') || is_array(&text[..at]) {
            continue;
        }
        if let Some(numbers) = numbers(&text[from..from + length]) {
            found.push(Mark {
                range: at..end,
                numbers,
            });
            from = end;
        }
    }
    found
}

/// Whether what stands before a bracket is the name of a variable rather than a word of a sentence.
fn is_array(before: &str) -> bool {
    let word = before.rsplit(char::is_whitespace).next();
    word.is_some_and(|word| word.contains(['_', '$']))
}

/// The numbers of `1`, `1, 2`, `S1`, `Source 1`; None if that is no citation.
fn numbers(inside: &str) -> Option<Vec<u32>> {
    let parts = inside.split([',', ';', '&']).map(str::trim);
    let number = |part: &str| {
        let small = part.to_lowercase();
        let label = LABELS.iter().find(|label| small.starts_with(**label));
        let digits = label.map_or(small.as_str(), |label| &small[label.len()..]);
        let number: u32 = digits.trim().parse().ok()?;
        // A larger number is a year, or the place in a list.
        let is_possible = label.is_some() || (1..=MAX_SOURCES as u32).contains(&number);
        (is_possible && digits.trim().bytes().all(|b| b.is_ascii_digit())).then_some(number)
    };
    parts.map(number).collect()
}

/// Blocks of prose, in bytes: paragraphs, list items and cells without code, headings and the rest.
fn prose_blocks(body: &str) -> Vec<Range<usize>> {
    let mut blocks: Vec<Range<usize>> = Vec::new();
    let mut skipped = 0;
    let mut is_new = true;
    for (event, range) in Parser::new_ext(body, options()).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { .. } | Tag::CodeBlock(_)) => skipped += 1,
            Event::End(TagEnd::Heading(_) | TagEnd::CodeBlock) => {
                skipped -= 1;
                is_new = true;
            }
            Event::Start(Tag::Paragraph | Tag::Item | Tag::TableCell)
            | Event::End(TagEnd::Paragraph | TagEnd::Item | TagEnd::TableCell) => is_new = true,
            Event::Text(_)
            | Event::Code(_)
            | Event::SoftBreak
            | Event::HardBreak
            | Event::Start(
                Tag::Emphasis
                | Tag::Strong
                | Tag::Strikethrough
                | Tag::Link { .. }
                | Tag::Image { .. },
            ) if skipped == 0 => {
                match blocks.last_mut().filter(|_| !is_new) {
                    Some(block) => block.end = block.end.max(range.end),
                    None => blocks.push(range),
                }
                is_new = false;
            }
            _ => {}
        }
    }
    blocks
}

/// What stays as it is: code, links, images, notes and HTML.
fn fixed_parts(text: &str) -> Vec<Range<usize>> {
    let is_fixed = |event: &Event<'_>| {
        matches!(
            event,
            Event::Code(_)
                | Event::FootnoteReference(_)
                | Event::Html(_)
                | Event::InlineHtml(_)
                | Event::Start(Tag::CodeBlock(_) | Tag::Link { .. } | Tag::Image { .. })
        )
    };
    let events = Parser::new_ext(text, options()).into_offset_iter();
    let fixed = events.filter(|(event, _)| is_fixed(event));
    fixed.map(|(_, range)| range).collect()
}

/// How Markdown is read here.
pub(super) fn options() -> Options {
    Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cited(body: &str) -> Vec<(String, Vec<u32>)> {
        let sentences = read_sentences(body).into_iter();
        sentences.map(|found| (found.text, found.cited)).collect()
    }

    #[test]
    fn a_citation_belongs_to_the_sentence_before_it() {
        let some = |text: &str, numbers: &[u32]| (text.to_owned(), numbers.to_vec());
        for (body, expected) in [
            (
                "It is red [1]. It is sweet.[2] Yes.",
                vec![
                    some("It is red.", &[1]),
                    some("It is sweet.", &[2]),
                    some("Yes.", &[]),
                ],
            ),
            (
                "It is red.[1][3] It is sweet. [2]",
                vec![some("It is red.", &[1, 3]), some("It is sweet.", &[2])],
            ),
            (
                "- It is red [S1, S2]\n- **It** is `a[1]` [Source 3].\n",
                vec![some("It is red", &[1, 2]), some("**It** is `a[1]`.", &[3])],
            ),
            (
                "番茄很红。[1]它很甜【2】。",
                vec![some("番茄很红。", &[1]), some("它很甜。", &[2])],
            ),
            (
                "## Sun [1]\n\n```\nx = y[1]\n```\n\n| a [2] | b |\n|---|---|\n| c | d [3] |\n",
                vec![
                    some("a", &[2]),
                    some("b", &[]),
                    some("c", &[]),
                    some("d", &[3]),
                ],
            ),
            (
                "See [the guide](https://a.example) and [a] and [1](x).",
                vec![some(
                    "See [the guide](https://a.example) and [a] and [1](x).",
                    &[],
                )],
            ),
        ] {
            assert_eq!(cited(body), expected, "{body}");
        }
    }

    #[test]
    fn citations_are_written_in_one_way() {
        let body = "It is red [S1]. It is **sweet**【2】 and [9] old.\n\n- Yes [Source 2, 3]\n";
        let sentences = read_sentences(body);
        let kept: Vec<(Range<usize>, Vec<u32>)> = sentences
            .iter()
            .map(|found| {
                (
                    found.range.clone(),
                    found.cited.iter().copied().filter(|n| *n < 4).collect(),
                )
            })
            .collect();
        assert_eq!(
            with_citations(body, &kept),
            "It is red.[1] It is **sweet** and old.[2]\n\n- Yes[2][3]\n"
        );
    }
}
