//! The sections of a post's content: what stands under its highest headings, and before the first.

use std::ops::Range;

use pulldown_cmark::{Event, Options, Parser, Tag};

/// A section of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The heading without its marks; None for the introduction.
    pub heading: Option<String>,
    /// Where its text is, without the heading and the blank lines around it. Where it has none, the
    /// end of the heading.
    body: Range<usize>,
}

/// The sections of `markdown`, in order. A title above them belongs to none.
pub fn sections(markdown: &str) -> Vec<Section> {
    let headings = highest_headings(markdown);
    let start = headings.title.map_or(0, |title| title.end);
    let first = headings.ranges.first();
    let introduction = start..first.map_or(markdown.len(), |next| next.start);
    let mut sections = Vec::new();
    if !markdown[introduction.clone()].trim().is_empty() {
        sections.push(Section {
            heading: None,
            body: body(markdown, introduction),
        });
    }
    let ends = headings.ranges.iter().skip(1).map(|next| next.start);
    let ends = ends.chain([markdown.len()]);
    for (heading, end) in headings.ranges.iter().zip(ends) {
        let line = &markdown[heading.clone()];
        let line_end = heading.start + line.trim_end().len();
        sections.push(Section {
            heading: Some(heading_text(line).to_owned()),
            body: body(markdown, line_end..end),
        });
    }
    sections
}

/// The text of a heading's line without its marks. Those behind it are none unless they stand alone:
/// `## C#`.
pub fn heading_text(line: &str) -> &str {
    let text = line.trim().trim_start_matches('#').trim();
    let bare = text.trim_end_matches('#');
    if bare.is_empty() || bare.ends_with(char::is_whitespace) {
        bare.trim_end()
    } else {
        text
    }
}

impl Section {
    /// Its text, without the heading.
    pub fn text<'a>(&self, markdown: &'a str) -> &'a str {
        &markdown[self.body.clone()]
    }

    /// What stands before its text in the content that it is of, and behind it.
    pub fn around<'a>(&self, markdown: &'a str) -> (&'a str, &'a str) {
        (&markdown[..self.body.start], &markdown[self.body.end..])
    }

    /// The content that it is of with another text for it. All others stay byte for byte.
    pub fn with_text(&self, markdown: &str, text: &str) -> String {
        let (before, behind) = self.around(markdown);
        // A heading may have had no text.
        let gap = if self.heading.is_some() && self.body.is_empty() {
            "\n\n"
        } else {
            ""
        };
        format!("{before}{gap}{text}{behind}")
    }
}

/// The place of a text without the blank lines around it; its first line keeps its indentation.
fn body(markdown: &str, range: Range<usize>) -> Range<usize> {
    let text = &markdown[range.clone()];
    if text.trim().is_empty() {
        return range.start..range.start;
    }
    let blank = text.len() - text.trim_start().len();
    let start = text[..blank].rfind('\n').map_or(0, |at| at + 1);
    range.start + start..range.start + text.trim_end().len()
}

struct Headings {
    /// The only heading of the first level, if it stands above all others.
    title: Option<Range<usize>>,
    /// Those of the highest level below the title: each the whole line.
    ranges: Vec<Range<usize>>,
}

/// Headings that are marked by `#`, and stand in no quotation, list or code.
fn highest_headings(markdown: &str) -> Headings {
    let mut found: Vec<(u8, Range<usize>)> = Vec::new();
    let mut depth = 0_usize;
    for (event, range) in Parser::new_ext(markdown, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(tag) => {
                let source = &markdown[range.clone()];
                if let Tag::Heading { level, .. } = tag
                    && depth == 0
                    && source.trim_start().starts_with('#')
                {
                    found.push((level as u8, range));
                }
                depth += 1;
            }
            Event::End(_) => depth -= 1,
            _ => {}
        }
    }
    let is_title = |(level, range): &(u8, Range<usize>)| {
        *level == 1 && markdown[..range.start].trim().is_empty()
    };
    let mut title = None;
    if found.len() > 1 && is_title(&found[0]) && found[1..].iter().all(|(level, _)| *level > 1) {
        title = Some(found.remove(0).1);
    }
    let highest = found.iter().map(|(level, _)| *level).min();
    found.retain(|(level, _)| Some(*level) == highest);
    Headings {
        title,
        ranges: found.into_iter().map(|(_, range)| range).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POST: &str = "Hello.\n\n## Sun\n\nSix hours.\n\n### Shade\n\nNone.\n\n```\n## code\n```\n\n\
        ## Water ##\nDaily.\n\n\n## Empty\n\n> ## quoted\n";

    fn parts(markdown: &str) -> Vec<(Option<String>, &str)> {
        let sections = sections(markdown).into_iter();
        sections
            .map(|section| (section.heading.clone(), section.text(markdown)))
            .collect()
    }

    #[test]
    fn sections_stand_under_the_highest_headings() {
        let heading = |text: &str| Some(text.to_owned());
        let expected = [
            (None, "Hello."),
            (
                heading("Sun"),
                "Six hours.\n\n### Shade\n\nNone.\n\n```\n## code\n```",
            ),
            (heading("Water"), "Daily."),
            (heading("Empty"), "> ## quoted"),
        ];
        assert_eq!(parts(POST), expected);
        let titled = "# Pots\n\n## Sun\n\nMuch.\n\n## Water\n";
        assert_eq!(
            parts(titled),
            [(heading("Sun"), "Much."), (heading("Water"), "")]
        );
        assert_eq!(parts("# One\n\nA.\n\n# Two\n\nB.").len(), 2);
        assert_eq!(parts("# One\n\nA."), [(heading("One"), "A.")]);
        assert_eq!(parts("Just text."), [(None, "Just text.")]);
        assert_eq!(parts(" \n"), []);
    }

    #[test]
    fn a_mark_that_belongs_to_a_word_stays() {
        for (line, text) in [
            ("## Using C#\n", "Using C#"),
            ("## Using C# ##", "Using C#"),
            ("##   Sun   ", "Sun"),
            ("## ##", ""),
        ] {
            assert_eq!(heading_text(line), text);
        }
    }

    #[test]
    fn all_but_the_text_of_one_section_stays() {
        for (number, section) in sections(POST).iter().enumerate() {
            let new = section.with_text(POST, "Other\nwords.");
            let old = section.text(POST);
            let (before, behind) = POST.split_once(old).unwrap();
            assert_eq!(new, format!("{before}Other\nwords.{behind}"), "{number}");
            assert_eq!(sections(&new)[number].text(&new), "Other\nwords.");
        }
        let empty = "## Sun\n\n## Water\n\nDaily.\n";
        let new = sections(empty)[0].with_text(empty, "Much.");
        assert_eq!(new, "## Sun\n\nMuch.\n\n## Water\n\nDaily.\n");
        let indented = "## Code\n\n    make\n";
        assert_eq!(sections(indented)[0].text(indented), "    make");
    }
}
