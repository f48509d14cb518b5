//! The second look: what is wrong with a draft, and having those sections written again,
//! once. What is still wrong then becomes a warning.

mod faults;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use entity::job::{Phase, Warning, WarningCode};
use entity::step;
use entity::text::word_count;
use shared::queue::Progress;

pub(super) use self::faults::is_length_off;
use self::faults::{Fault, all_faults, even_share, faults};
use super::draft::Draft;
use super::one_call::is_in_other_language;
use super::{PERCENT_WRITTEN, PostBrief, by_section, prompts, steps};
use crate::agent::Event;
use crate::attempt::{Attempt, ProgressTracker, UNSEEN};
use crate::outcome::AttemptError;

/// No more sections are written again, except if all are in the wrong language.
const MAX_REWRITES: usize = 5;

/// Has what is wrong with the draft written again, and warns of what stays wrong.
pub(super) async fn improve(
    attempt: &Attempt,
    brief: &PostBrief,
    finished: &[step::Model],
    mut draft: Draft,
) -> Result<Draft, AttemptError> {
    let found = all_faults(brief, &draft);
    if !found.is_empty() {
        let view = draft.view(draft.sections.len());
        attempt.show(progress(&draft), view).await?;
    }
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
            None => {
                let advice = of_section.iter().map(|fault| fault.advice.clone());
                let words = section_words(brief, &draft, section);
                rewrite(
                    attempt,
                    brief,
                    &draft,
                    section,
                    advice.collect(),
                    words,
                    step,
                )
                .await?
            }
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

/// How bad a draft is, for comparing two.
pub(super) fn rank(brief: &PostBrief, draft: &Draft) -> impl Ord + use<> {
    (
        is_in_other_language(brief, draft),
        is_repetitive(brief, draft),
        is_length_off(brief, draft),
        faults(brief, draft).len(),
    )
}

/// A post that says so many things again is not worth reading.
const MAX_REPETITIONS: usize = 2;

pub(super) fn is_repetitive(brief: &PostBrief, draft: &Draft) -> bool {
    let faults = faults(brief, draft).into_iter();
    let repeated = faults.filter(|fault| fault.code == Some(WarningCode::Repeated));
    repeated.count() > MAX_REPETITIONS
}

/// Has a section written again, as `advice` says, and stores it as a step.
pub(super) async fn rewrite(
    attempt: &Attempt,
    brief: &PostBrief,
    draft: &Draft,
    number: usize,
    advice: Vec<String>,
    words: u32,
    step: i32,
) -> Result<String, AttemptError> {
    let section = &draft.sections[number];
    let title = draft.title.as_deref().unwrap_or(&brief.topic);
    let prompt = prompts::rewrite(brief, title, &draft.sections, number, &advice, words);
    let tracker = ProgressTracker::new(progress(draft));
    let reply = attempt
        .call(prompt, &tracker, &|_: Event| {}, UNSEEN)
        .await?;
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
pub(super) fn is_one_section(before: &str, after: &str, words: u32) -> bool {
    let has_headings = |text: &str| {
        let sections = Draft::parse(text).sections;
        sections.iter().any(|section| section.heading.is_some())
    };
    word_count(after) <= 2 * words as i32 && (has_headings(before) || !has_headings(after))
}

/// About how many words a section is to have: as many as now, but its share of the post if
/// it has none, or if the post has not the length that was asked for.
fn section_words(brief: &PostBrief, draft: &Draft, number: usize) -> u32 {
    let now = word_count(&draft.sections[number].body).max(0) as u32;
    let wanted = if now == 0 || is_length_off(brief, draft) {
        even_share(brief, draft)
    } else {
        now
    };
    wanted.clamp(40, 800)
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

fn length_warning(brief: &PostBrief, draft: &Draft) -> Option<Warning> {
    let (wanted, written) = (brief.words(), word_count(&draft.content()));
    let text = format!("{written} words instead of {wanted}");
    is_length_off(brief, draft).then(|| Warning::new(WarningCode::Length, None, &text))
}
#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_section_without_text_is_to_have_its_share() {
        let draft = Draft::parse("# T\n\nHi.\n\n## One\n\n## Two\n\nText.");
        let brief = PostBrief::new("Pots", &serde_json::json!({}));
        assert_eq!(section_words(&brief, &draft, 1), 250);
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
