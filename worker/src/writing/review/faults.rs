//! What is wrong with a draft, as far as rules can tell.

use std::collections::HashSet;

use entity::job::WarningCode;
use entity::text::word_count;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag};

use crate::writing::draft::{Draft, Section};
use crate::writing::repetition::{prose, prose_sentences, repeated_sentences};
use crate::writing::sentences::normalized;
use crate::writing::{PostBrief, language};

/// So far a post may be from the length that was asked for.
const LENGTH_TOLERANCE: f64 = 0.25;

/// Something that is wrong with a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) section: usize,
    /// None if it is repaired or left, but not told.
    pub(super) code: Option<WarningCode>,
    /// Whether it is only that the whole post has the wrong length.
    pub(super) is_length: bool,
    /// What the model is told.
    pub(super) advice: String,
    /// The text at fault.
    pub(super) text: String,
}

/// The words that each section has if all have as many.
pub(super) fn even_share(brief: &PostBrief, draft: &Draft) -> u32 {
    let sections = draft.sections.iter();
    let headed = sections.filter(|section| section.heading.is_some()).count();
    brief.words() / (headed as u32).max(1)
}

/// Whether a post is far from the length that the client has asked for.
pub(in crate::writing) fn is_length_off(brief: &PostBrief, draft: &Draft) -> bool {
    let share = f64::from(word_count(&draft.content())) / f64::from(brief.words());
    brief.options.words.is_some() && (share - 1.0).abs() > LENGTH_TOLERANCE
}

/// The sections that are to blame for a wrong length.
fn length_faults(brief: &PostBrief, draft: &Draft) -> Vec<Fault> {
    if !is_length_off(brief, draft) {
        return Vec::new();
    }
    let is_short = word_count(&draft.content()).max(0) < brief.words() as i32;
    let share = f64::from(even_share(brief, draft));
    let is_only_one = draft.sections.len() == 1;
    let sections = draft.sections.iter().enumerate();
    let to_blame = sections.filter(|(_, section)| {
        let words = f64::from(word_count(&section.body));
        let is_off = if is_short {
            words < share * (1.0 - LENGTH_TOLERANCE)
        } else {
            words > share * (1.0 + LENGTH_TOLERANCE)
        };
        is_off && (section.heading.is_some() || is_only_one) && is_only_prose(&section.body)
    });
    let advice = if is_short {
        "It is too short: tell more about the same, with details and reasons."
    } else {
        "It is too long: keep what matters most."
    };
    let fault = |(section, _): (usize, &Section)| Fault {
        section,
        code: None,
        is_length: true,
        advice: advice.to_owned(),
        text: String::new(),
    };
    to_blame.map(fault).collect()
}

/// Whether a text can be told in more or fewer words: not so lists, code, tables, images
/// and mathematics.
fn is_only_prose(text: &str) -> bool {
    let options = Options::ENABLE_TABLES | Options::ENABLE_MATH;
    !Parser::new_ext(text, options).any(|event| {
        matches!(
            event,
            Event::Start(Tag::List(_) | Tag::CodeBlock(_) | Tag::Table(_) | Tag::Image { .. })
                | Event::InlineMath(_)
                | Event::DisplayMath(_)
        )
    })
}

/// All that is wrong with a draft.
pub(super) fn all_faults(brief: &PostBrief, draft: &Draft) -> Vec<Fault> {
    let mut found = faults(brief, draft);
    found.extend(length_faults(brief, draft));
    found
}

/// What is wrong with the sections of a draft, but for their lengths.
pub(super) fn faults(brief: &PostBrief, draft: &Draft) -> Vec<Fault> {
    let mut found = Vec::new();
    let mut headings = HashSet::new();
    let mut openings: HashSet<String> = HashSet::new();
    for (at, section) in draft.sections.iter().enumerate() {
        let mut add = |code: Option<WarningCode>, advice: &str, text: &str| {
            found.push(Fault {
                section: at,
                code,
                is_length: false,
                advice: advice.to_owned(),
                text: text.to_owned(),
            });
        };
        let body = section.body.as_str();
        if !body.chars().any(char::is_alphanumeric) {
            add(None, "It has no text.", "");
            continue;
        }
        if let Some(heading) = &section.heading
            && !headings.insert(normalized(heading))
        {
            add(
                Some(WarningCode::Repeated),
                "An earlier section has the same heading. Tell something else.",
                heading,
            );
        }
        let before = draft.sections[..at]
            .iter()
            .map(|section| section.body.as_str());
        for sentence in repeated_sentences(before, body) {
            let advice = format!("This was said before: \"{sentence}\"");
            add(Some(WarningCode::Repeated), &advice, &sentence);
        }
        if let Some(first) = prose_sentences(body).first() {
            let opening: Vec<&str> = first.split_whitespace().take(4).collect();
            if opening.len() == 4 && !openings.insert(normalized(&opening.concat())) {
                let advice = format!(
                    "It begins like another section: \"{}\". Begin otherwise.",
                    opening.join(" ")
                );
                add(None, &advice, first);
            }
        }
        if let Some(tag) = &brief.options.language
            && language::is_other_language(tag, body)
        {
            let advice = format!("It is not written in {}.", language::name(tag));
            let start: String = body.chars().take(80).collect();
            add(Some(WarningCode::WrongLanguage), &advice, &start);
        }
        if let Some(advice) = structure_fault(section) {
            add(None, advice, "");
        }
        if let Some(sentence) = prose_sentences(body).iter().find(|s| is_about_itself(s)) {
            let advice = format!("Speak of the topic, not of the text: \"{sentence}\"");
            add(None, &advice, sentence);
        }
    }
    found
}

/// What is broken in a section's Markdown.
fn structure_fault(section: &Section) -> Option<&'static str> {
    let body = section.body.as_str();
    let has_gap = |line: &str| {
        let gap = line
            .split_once('[')
            .and_then(|(_, rest)| rest.split_once(']'));
        gap.is_some_and(|(name, behind)| {
            let small = name.to_lowercase();
            !behind.starts_with('(') && (small.starts_with("insert") || small.starts_with("your "))
        })
    };
    let mut fenced = false;
    for event in Parser::new_ext(body, Options::ENABLE_TABLES) {
        if let Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(_))) = event {
            fenced = true;
        }
    }
    let fences = body
        .lines()
        .filter(|line| line.trim_start().starts_with("```"))
        .count();
    if fenced && !fences.is_multiple_of(2) {
        return Some("A block of code in it is not closed.");
    }
    if prose(body)
        .iter()
        .any(|paragraph| paragraph.trim_start().starts_with('|'))
    {
        return Some("A table in it is broken.");
    }
    if body.lines().any(has_gap) {
        return Some("It has gaps that were left to be filled in.");
    }
    None
}

/// Whether a sentence is about the text or its author.
fn is_about_itself(sentence: &str) -> bool {
    const PHRASES: &[&str] = &[
        "as an ai ",
        "as a language model",
        "in this blog post",
        "in this article, we",
        "in this section, we",
        "this section will",
        "this blog post will",
        "in diesem blogbeitrag",
        "en este artículo",
        "dans cet article",
    ];
    let small = sentence.to_lowercase();
    PHRASES.iter().any(|phrase| small.contains(phrase))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(options: serde_json::Value, text: &str) -> Vec<(usize, Option<WarningCode>)> {
        let brief = PostBrief::new("Pots", &options);
        let faults = faults(&brief, &Draft::parse(text));
        faults
            .iter()
            .map(|fault| (fault.section, fault.code))
            .collect()
    }

    #[test]
    fn what_is_wrong_with_a_draft_is_found() {
        use WarningCode::{Repeated, WrongLanguage};
        let english = "Tomatoes need a lot of sun and a deep pot to grow well. Give them water \
            every morning, and more of it on hot days, because the soil dries out fast.";
        for (text, faults) in [
            ("# T\n\nHi.\n\n## One\n\n## Two\n\nText.", vec![(1, None)]),
            (
                "# T\n\nHi.\n\n## One\n\nA.\n\n## One\n\nB.",
                vec![(2, Some(Repeated))],
            ),
            (
                "# T\n\n## A\n\nWater the pots in the morning.\n\n## B\n\nWhy? Water the pots in the morning.",
                vec![(1, Some(Repeated))],
            ),
            (
                "# T\n\n## A\n\nGrowing tomatoes is very easy.\n\n## B\n\nGrowing tomatoes is very hard.",
                vec![(1, None)],
            ),
            ("# T\n\n## A\n\nRun:\n\n```sh\nls", vec![(0, None)]),
            ("# T\n\n## A\n\n| a | b |\n| 1 | 2 |", vec![(0, None)]),
            ("# T\n\n## A\n\nDear [Your Name], hello.", vec![(0, None)]),
            (
                "# T\n\n## A\n\nIn this blog post, we will look at pots.",
                vec![(0, None)],
            ),
            (
                &format!("# T\n\n## A\n\n{english}"),
                vec![(0, Some(WrongLanguage))],
            ),
            (
                "# T\n\nHi.\n\n## A\n\n- Same item in a list\n- Same item in a list\n\n[a](b) | c\n\n```sh\nls\n```\n\n| a |\n|---|\n| 1 |",
                vec![],
            ),
        ] {
            assert_eq!(
                found(serde_json::json!({"language": "de"}), text),
                faults,
                "{text}"
            );
        }
    }

    #[test]
    fn the_sections_are_found_that_are_to_blame_for_a_wrong_length() {
        let words = |count: usize| vec!["pots"; count].join(" ") + ".";
        let text = |one: usize, two: usize| {
            format!(
                "# T\n\nHi.\n\n## One\n\n{}\n\n## Two\n\n{}\n\n## Code\n\n```sh\nls\n```",
                words(one),
                words(two)
            )
        };
        for (asked, text, to_blame) in [
            (Some(300), text(40, 100), vec![1]),
            (Some(300), text(40, 50), vec![1, 2]),
            (Some(300), text(300, 100), vec![1]),
            (Some(300), text(150, 100), vec![]),
            (None, text(40, 50), vec![]),
            (Some(300), format!("# T\n\n{}", words(50)), vec![0]),
        ] {
            let brief = PostBrief::new("Pots", &serde_json::json!({ "words": asked }));
            let faults = length_faults(&brief, &Draft::parse(&text));
            let sections: Vec<usize> = faults.iter().map(|fault| fault.section).collect();
            assert_eq!(sections, to_blame, "{asked:?} {text}");
        }
    }
}
