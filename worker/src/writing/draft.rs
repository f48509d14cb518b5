//! A post as a capable model writes it in one answer: Markdown with a title, an
//! introduction, and sections under headings. Bodies are kept byte for byte.

use std::ops::Range;

use entity::sections::heading_text;
use pulldown_cmark::{Event, Options, Parser, Tag};
use shared::events::SnapshotSection;

use super::title;
use crate::live_text::PostView;

use super::sentences::{is_ended, normalized};

/// A post in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) title: Option<String>,
    pub(super) sections: Vec<Section>,
}

/// A part of a post.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    /// None for the introduction.
    pub(super) heading: Option<String>,
    /// Markdown, without blank lines around it.
    pub(super) body: String,
}

impl Draft {
    /// The parts of `text`. Its sections are what stands under the highest headings
    /// below the title, whatever level a model has given them.
    pub(super) fn parse(text: &str) -> Self {
        let mut headings = headings(text);
        let (title, start) = take_title(text, &mut headings);
        let level = headings.iter().map(|heading| heading.level).min();
        headings.retain(|heading| Some(heading.level) == level);
        let introduction = Heading {
            level: 0,
            range: start..start,
            text: String::new(),
        };
        let ends = headings.iter().map(|next| next.range.start);
        let ends: Vec<usize> = ends.chain([text.len()]).collect();
        let parts = [introduction].into_iter().chain(headings).zip(ends);
        let mut sections: Vec<Section> = parts
            .map(|(heading, end)| {
                let body = trim_blank_lines(&text[heading.range.end..end]);
                Section {
                    heading: (heading.level > 0).then_some(heading.text),
                    body: if level == Some(1) {
                        lower_headings(body)
                    } else {
                        body.to_owned()
                    },
                }
            })
            .collect();
        sections.retain(|section| section.heading.is_some() || !section.body.is_empty());
        if let Some(first) = sections.first_mut() {
            first.drop_label();
        }
        Draft { title, sections }
    }

    /// The post as it is to be seen while it is written. The first `done` sections are.
    pub(super) fn view(&self, done: usize) -> PostView {
        let sections = self.sections.iter().enumerate();
        let sections = sections.map(|(at, section)| SnapshotSection {
            heading: section.heading.clone(),
            text: section.body.clone(),
            done: at < done,
        });
        PostView {
            title: self.title.as_deref().and_then(title::clean),
            sections: sections.collect(),
        }
    }

    /// The post without its title, as it is stored.
    pub(super) fn content(&self) -> String {
        let sections: Vec<String> = self.sections.iter().map(Section::to_markdown).collect();
        sections.join("\n")
    }
}

/// Takes the title off the headings, and tells where the text below it begins. It may be
/// a line without marks.
fn take_title(text: &str, headings: &mut Vec<Heading>) -> (Option<String>, usize) {
    let Some(first) = headings.first() else {
        return (None, 0);
    };
    let above = text[..first.range.start].trim();
    let is_highest = !headings[1..].iter().any(|next| next.level <= first.level);
    if above.is_empty() && (first.level == 1 || is_highest) {
        let title = headings.remove(0);
        return (Some(without_label(&title.text)), title.range.end);
    }
    let line = above.lines().next().unwrap_or_default();
    let is_alone = line.len() == above.len() && !is_ended(line);
    if !line.is_empty()
        && (is_alone || line.starts_with("Title:"))
        && line.chars().count() <= MAX_TITLE_CHARS
    {
        let start = text.find(line).map_or(0, |at| at + line.len());
        return (Some(without_label(&plain(line))), start);
    }
    (None, 0)
}

fn without_label(title: &str) -> String {
    title.trim_start_matches("Title:").trim().to_owned()
}

impl Section {
    /// An introduction that is called so needs no heading.
    fn drop_label(&mut self) {
        let is_label = |text: &str| plain(text.trim_start_matches('#')) == "Introduction";
        if self.heading.as_deref().is_some_and(is_label) {
            self.heading = None;
        }
        if let Some((line, rest)) = self.body.split_once('\n')
            && self.heading.is_none()
            && is_label(line)
        {
            self.body = trim_blank_lines(rest).to_owned();
        }
    }

    pub(super) fn to_markdown(&self) -> String {
        match &self.heading {
            Some(heading) => format!("## {heading}\n\n{}\n", self.body),
            None => format!("{}\n", self.body),
        }
    }
}

/// The text of a section without its heading, if it begins with that.
pub(super) fn without_heading<'a>(text: &'a str, heading: &str) -> &'a str {
    let first = headings(text).into_iter().next();
    match first {
        Some(first)
            if text[..first.range.start].trim().is_empty()
                && normalized(&first.text).ends_with(&normalized(heading)) =>
        {
            trim_blank_lines(&text[first.range.end..])
        }
        _ => trim_blank_lines(text),
    }
}

/// Up to where a text that is still being written consists of whole sections: where
/// the last one begins.
pub(super) fn whole_sections_end(text: &str) -> usize {
    let lines_end = text.rfind('\n').map_or(0, |at| at + 1);
    let headings = headings(&text[..lines_end]);
    let is_title = |at: usize| at == 0 && headings[at].level == 1;
    let last = (0..headings.len()).rfind(|at| headings[*at].level <= 2 && !is_title(*at));
    last.map(|at| headings[at].range.start)
        .filter(|start| !text[..*start].trim().is_empty())
        .unwrap_or(0)
}

struct Heading {
    /// 1 to 6, or [`BOLD`].
    level: u8,
    /// The whole line.
    range: Range<usize>,
    /// Without the marks around it.
    text: String,
}

/// The level of a paragraph that is bold as a whole, where there are no other headings.
const BOLD: u8 = 7;

/// Longer bold paragraphs are sentences.
const MAX_BOLD_CHARS: usize = 100;

/// Longer lines at the top are text.
const MAX_TITLE_CHARS: usize = 120;

/// The headings of a text that stand in no quotation, list, or code.
fn headings(text: &str) -> Vec<Heading> {
    let mut found = Vec::new();
    let mut depth = 0_usize;
    for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(tag) => {
                if depth == 0 {
                    found.extend(heading(&tag, &text[range.clone()], range.clone()));
                }
                depth += 1;
            }
            Event::End(_) => depth -= 1,
            _ => {}
        }
    }
    // Bold ones count only where there are no others but the title.
    if found.iter().skip(1).any(|heading| heading.level != BOLD) {
        found.retain(|heading| heading.level != BOLD);
    }
    found
}

fn heading(tag: &Tag<'_>, source: &str, range: Range<usize>) -> Option<Heading> {
    let line = source.trim();
    match tag {
        // One that is underlined is mostly a paragraph before a rule.
        Tag::Heading { level, .. } if line.starts_with('#') => Some(Heading {
            level: *level as u8,
            range,
            text: plain(heading_text(line)),
        }),
        Tag::Paragraph => {
            let inside = line
                .strip_prefix("**")?
                .trim_end_matches(':')
                .strip_suffix("**")?;
            let is_heading =
                !inside.contains(['*', '\n']) && inside.chars().count() <= MAX_BOLD_CHARS;
            is_heading.then(|| Heading {
                level: if inside.starts_with("Title:") {
                    1
                } else {
                    BOLD
                },
                range,
                text: plain(inside),
            })
        }
        _ => None,
    }
}

/// A heading without bold marks around it and a colon behind it.
fn plain(text: &str) -> String {
    let text = text.trim().trim_end_matches(':').trim();
    let bare = text
        .strip_prefix("**")
        .and_then(|text| text.strip_suffix("**"));
    let bare = bare.filter(|text| !text.contains("**")).unwrap_or(text);
    bare.trim_end_matches(':').trim().to_owned()
}

fn trim_blank_lines(text: &str) -> &str {
    let blank = text.len() - text.trim_start().len();
    // The first line keeps its indentation: it may be code.
    let start = text[..blank].rfind('\n').map_or(0, |at| at + 1);
    text[start..].trim_end()
}

/// The text with its headings a level lower, for sections that had the level of titles.
fn lower_headings(body: &str) -> String {
    let mut lowered = body.to_owned();
    for heading in headings(body)
        .iter()
        .rev()
        .filter(|heading| heading.level < 6)
    {
        lowered.insert(heading.range.start, '#');
    }
    lowered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Option<String>, Vec<(Option<String>, String)>) {
        let draft = Draft::parse(text);
        let sections = draft.sections.into_iter();
        (draft.title, sections.map(|s| (s.heading, s.body)).collect())
    }

    fn post<'a>(
        title: &str,
        sections: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> (Option<String>, Vec<(Option<String>, String)>) {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let sections = sections.into_iter();
        (
            some(title),
            sections
                .map(|(heading, body)| (some(heading), body.to_owned()))
                .collect(),
        )
    }

    #[test]
    fn a_mark_at_the_end_of_a_heading_may_belong_to_it() {
        let found = parts("# Learning C#\n\n## Why C# ##\n\nTyped.");
        assert_eq!(found, post("Learning C#", [("Why C#", "Typed.")]));
    }

    #[test]
    fn a_post_has_a_title_an_introduction_and_sections() {
        let text = "# Red Gold\n\nAn introduction.\n\n## Sun\n\nMuch.\n\n### Shade\n\nSome.\n\n## Water\n\nMore.\n";
        assert_eq!(
            parts(text),
            post(
                "Red Gold",
                [
                    ("", "An introduction."),
                    ("Sun", "Much.\n\n### Shade\n\nSome."),
                    ("Water", "More.")
                ]
            )
        );
    }

    #[test]
    fn headings_may_have_any_level() {
        let sections = [("", "Hello."), ("Sun", "Much."), ("Water", "More.")];
        for text in [
            "# T\n\nHello.\n\n# Sun\n\nMuch.\n\n# Water\n\nMore.",
            "# T\n\nHello.\n\n### Sun\n\nMuch.\n\n### Water\n\nMore.",
            "## T\n\nHello.\n\n### Sun\n\nMuch.\n\n### Water\n\nMore.",
            "**Title: T**\n\nHello.\n\n**Sun**\n\nMuch.\n\n**Water:**\n\nMore.",
            "**Title: T**\n\nHello.\n\n## Sun\n\nMuch.\n\n## **Water**\n\nMore.",
            "# T #\nHello.\n## Sun ##\nMuch.\n## Water:\nMore.",
            "T\n\n# Introduction\n\nHello.\n\n# Sun\n\nMuch.\n\n# Water\n\nMore.",
            "Title: T\n\nIntroduction:\n\nHello.\n\n## Sun\n\nMuch.\n\n## Water\n\nMore.",
            "### Title: T\n\n#### Introduction:\nHello.\n\n#### Sun\n\nMuch.\n\n#### Water:\n\nMore.",
        ] {
            let (title, found) = parts(text);
            let (_, expected) = post("T", sections);
            assert_eq!(title.as_deref(), Some("T"), "{text}");
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn bodies_are_kept_byte_for_byte() {
        let body = "    indented code\n\n```sh\n# no heading\n## nor this\n```\n\n| a | b |\n|--:|---|\n| 1 | 2 |\n\n> ## quoted\n\n- **Bold**\n\n  ## in a list\n\nRefrain,  \nrefrain.\n\n$$x_1 * y$$ and a note.[^1]\n\n[^1]: *Here.*\n\nText\n---\n\n**Not a heading**\n\nEnd.";
        let text = format!("# T\n\nHello.\n\n## One\n\n{body}\n\n## Two\n\nEnd.\n");
        let draft = Draft::parse(&text);
        assert_eq!(draft.sections[1].body, body);
        assert_eq!(draft.content(), text.strip_prefix("# T\n\n").unwrap());
    }

    #[test]
    fn a_text_without_headings_is_an_introduction() {
        assert_eq!(parts("\nJust text.\n"), post("", [("", "Just text.")]));
        assert_eq!(parts("\n \n"), post("", []));
    }

    #[test]
    fn a_heading_without_a_body_is_kept_for_the_review() {
        let found = parts("# T\n\n## One\n\n## Two\n\nMore.");
        assert_eq!(found, post("T", [("One", ""), ("Two", "More.")]));
    }

    #[test]
    fn whole_sections_end_where_the_next_begins() {
        let text = "# T\n\nHello.\n\n## One\n\n```\n## code\n```\n\n## Two\n\nMore.";
        let whole = |end: usize| &text[..whole_sections_end(&text[..end])];
        assert_eq!(whole(4), "");
        assert_eq!(whole(15), "");
        let one = text.find("## One").unwrap();
        // The heading's line is not finished.
        assert_eq!(whole(one + 6), "");
        assert_eq!(whole(one + 7), &text[..one]);
        assert_eq!(whole(text.find("## Two").unwrap()), &text[..one]);
        assert_eq!(whole(text.len()), &text[..text.find("## Two").unwrap()]);
        assert_eq!(whole_sections_end("Sure!\n\n# T\n\nHello.\n"), 0);
    }
}
