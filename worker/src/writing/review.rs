//! The second look: what is wrong with a draft, and having those sections written again,
//! once. What is still wrong then becomes a warning.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use entity::job::{Phase, Warning, WarningCode};
use entity::step;
use entity::text::word_count;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag};
use shared::queue::Progress;

use super::draft::{Draft, Section};
use super::repetition::{prose, prose_sentences, repeated_sentences};
use super::sentences::normalized;
use super::{PERCENT_WRITTEN, PostBrief, by_section, language, prompts, steps};
use crate::agent::Event as AgentEvent;
use crate::attempt::{Attempt, ProgressTracker};
use crate::outcome::AttemptError;

/// No more sections are written again, except if all are in the wrong language.
const MAX_REWRITES: usize = 5;

/// So far a post may be from the length that was asked for.
const LENGTH_TOLERANCE: f64 = 0.25;

/// Something that is wrong with a section.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    section: usize,
    /// None if it is repaired or left, but not told.
    code: Option<WarningCode>,
    /// Whether it is only that the whole post has the wrong length.
    is_length: bool,
    /// What the model is told.
    advice: String,
    /// The text at fault.
    text: String,
}

/// Has what is wrong with the draft written again, and warns of what stays wrong.
pub(super) async fn improve(
    attempt: &Attempt,
    brief: &PostBrief,
    finished: &[step::Model],
    mut draft: Draft,
) -> Result<Draft, AttemptError> {
    let found = all_faults(brief, &draft);
    for (count, section) in sections_at_fault(&found).into_iter().enumerate() {
        let of_section: Vec<&Fault> = found.iter().filter(|f| f.section == section).collect();
        let is_foreign = of_section
            .iter()
            .any(|f| f.code == Some(WarningCode::WrongLanguage));
        if count >= MAX_REWRITES && !is_foreign {
            continue;
        }
        // The sections before it have brought the post to its length.
        let is_settled = of_section.iter().all(|f| f.is_length) && !is_length_off(brief, &draft);
        if is_settled {
            continue;
        }
        let step = steps::FIRST_REWRITE + section as i32;
        let stored = finished.iter().find(|stored| stored.position == step);
        let body = match stored {
            Some(stored) => stored.content.clone(),
            None => rewrite(attempt, brief, &draft, section, &of_section, step).await?,
        };
        if !is_one_section(
            &draft.sections[section].body,
            &body,
            section_words(brief, &draft, section),
        ) {
            continue;
        }
        let mut better = draft.clone();
        better.sections[section].body = body;
        if all_faults(brief, &better).len() < all_faults(brief, &draft).len() {
            draft = better;
        }
    }
    warn(attempt, brief, &draft).await?;
    Ok(draft)
}

/// Warns of what is wrong with a draft.
pub(super) async fn warn(
    attempt: &Attempt,
    brief: &PostBrief,
    draft: &Draft,
) -> Result<(), AttemptError> {
    let warnings: Vec<Warning> = faults(brief, draft)
        .into_iter()
        .filter_map(|fault| {
            let section = fault.section as u32;
            Some(Warning::new(fault.code?, Some(section), &fault.text))
        })
        .chain(length_warning(brief, draft))
        .collect();
    attempt.warn(warnings).await
}

async fn rewrite(
    attempt: &Attempt,
    brief: &PostBrief,
    draft: &Draft,
    number: usize,
    faults: &[&Fault],
    step: i32,
) -> Result<String, AttemptError> {
    let section = &draft.sections[number];
    let advice: Vec<String> = faults.iter().map(|fault| fault.advice.clone()).collect();
    let title = draft.title.as_deref().unwrap_or(&brief.topic);
    let words = section_words(brief, draft, number);
    let prompt = prompts::rewrite(brief, title, &draft.sections, number, &advice, words);
    let tracker = ProgressTracker::new(progress(draft));
    let reply = attempt.call(prompt, &tracker, &|_: AgentEvent| {}).await?;
    let heading = section.heading.as_deref().unwrap_or_default();
    let (body, warnings) = by_section::read_section(heading, number, &reply);
    attempt.warn(warnings).await?;
    attempt
        .checkpoint(step, &body, progress(draft), reply.usage)
        .await?;
    Ok(body)
}

/// Whether what was written anew is a section still, and not the whole post once more, which
/// small models write when they are asked for a part of it.
fn is_one_section(before: &str, after: &str, words: u32) -> bool {
    let has_headings = |text: &str| {
        let sections = Draft::parse(text).sections;
        sections.iter().any(|section| section.heading.is_some())
    };
    word_count(after) <= 2 * words as i32 && (has_headings(before) || !has_headings(after))
}

/// About how many words a section is to have: as many as now, but so that the post gets
/// the length that was asked for.
fn section_words(brief: &PostBrief, draft: &Draft, number: usize) -> u32 {
    let now = word_count(&draft.sections[number].body).max(0) as u32;
    let wanted = if is_length_off(brief, draft) {
        even_share(brief, draft)
    } else {
        now
    };
    wanted.clamp(40, 800)
}

/// The words that each section has if all have as many.
fn even_share(brief: &PostBrief, draft: &Draft) -> u32 {
    let sections = draft.sections.iter();
    let headed = sections.filter(|section| section.heading.is_some()).count();
    brief.words() / (headed as u32).max(1)
}

/// Whether a post is far from the length that the client has asked for.
fn is_length_off(brief: &PostBrief, draft: &Draft) -> bool {
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
fn all_faults(brief: &PostBrief, draft: &Draft) -> Vec<Fault> {
    let mut found = faults(brief, draft);
    found.extend(length_faults(brief, draft));
    found
}

fn progress(draft: &Draft) -> Progress {
    Progress {
        phase: Phase::Assembling,
        percent: PERCENT_WRITTEN,
        words: word_count(&draft.content()),
    }
}

/// The sections at fault, those with the most faults first.
fn sections_at_fault(faults: &[Fault]) -> Vec<usize> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for fault in faults {
        *counts.entry(fault.section).or_default() += 1;
    }
    let mut sections: Vec<usize> = counts.keys().copied().collect();
    sections.sort_by_key(|section| Reverse(counts[section]));
    sections
}

/// What is wrong with the sections of a draft, but for their lengths.
fn faults(brief: &PostBrief, draft: &Draft) -> Vec<Fault> {
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

fn length_warning(brief: &PostBrief, draft: &Draft) -> Option<Warning> {
    let (wanted, written) = (brief.words(), word_count(&draft.content()));
    let text = format!("{written} words instead of {wanted}");
    is_length_off(brief, draft).then(|| Warning::new(WarningCode::Length, None, &text))
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
    fn a_whole_post_is_no_section() {
        for (after, words, is_one) in [
            ("Clay breathes, and plastic does not.", 10, true),
            ("Clay breathes, and plastic does not.", 2, false),
            ("Clay breathes.\n\n### Size\n\nBig.", 10, false),
            ("Clay.\n\n```sh\n# measure\n```", 10, true),
        ] {
            assert_eq!(
                is_one_section("Clay is good.", after, words),
                is_one,
                "{after}"
            );
        }
        assert!(is_one_section("### A\n\nB.", "### A\n\nC.", 10));
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

    #[test]
    fn a_post_that_is_far_from_the_length_is_warned_of() {
        let draft = Draft::parse("# T\n\nOne two three.");
        let warning = |words: u32| {
            length_warning(
                &PostBrief::new("Pots", &serde_json::json!({"words": words})),
                &draft,
            )
        };
        assert_eq!(warning(500).unwrap().text, "3 words instead of 500");
        let unasked = PostBrief::new("Pots", &serde_json::json!({}));
        assert_eq!(length_warning(&unasked, &draft), None);
    }
}
