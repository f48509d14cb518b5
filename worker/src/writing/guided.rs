//! The way for the smallest models: fixed forms, one bounded question after the other,
//! and answers cleaned of what such models add.

mod deduplicate;
mod fallback_outline;
mod heading;
mod markdown_blocks;
mod outline;
mod prompts;
mod section;

use std::iter::repeat_with;

use entity::job::{Phase, Warning, WarningCode};
use entity::step;
use entity::text::word_count;
use shared::queue::Progress;

use self::deduplicate::is_repetitive;
use self::outline::{Outline, read_outline};
use self::section::read_section;
use super::draft::{Draft, Section};
use super::sentences::{normalized, sentences};
use super::{PERCENT_PLANNED, PERCENT_WRITTEN, PostBrief, bad_output, steps};
use crate::agent::{Event, Prompt, Usage};
use crate::attempt::{Attempt, ProgressTracker, UNSEEN};
use crate::outcome::AttemptError;

/// Whether a stored plan is an outline of this way.
pub(super) fn is_outline(text: &str) -> bool {
    !text.contains("<!--") && Outline::from_text(text).is_some()
}

/// Writes the draft, or what is missing of it. Of an outline that was reviewed it takes the title
/// and the headings.
pub(super) async fn write(
    attempt: &Attempt,
    brief: &PostBrief,
    finished: &[step::Model],
) -> Result<Draft, AttemptError> {
    let stored = finished.iter().find(|step| step.position == steps::PLAN);
    let outline = match (attempt.outline(), stored) {
        (Some(reviewed), _) => Outline::from(reviewed.clone()),
        (None, Some(step)) => Outline::from_text(&step.content)
            .ok_or_else(|| bad_output("can't read the stored outline"))?,
        (None, None) => write_outline(attempt, brief).await?,
    };
    attempt.check_review(|| match attempt.outline() {
        Some(reviewed) => reviewed.clone(),
        None => outline.clone().into(),
    })?;
    let finished = finished.iter().filter(|step| step.position > steps::PLAN);
    let finished = finished.map(|step| step.content.clone());
    let mut sections: Vec<String> = finished.take(outline.headings.len()).collect();
    while let Some(prompt) = prompts::section(brief, &outline, &sections) {
        let section = write_section(attempt, &outline, &sections, prompt).await?;
        sections.push(section);
    }
    Ok(draft(&outline, &sections))
}

/// The post with these of its sections written.
fn draft(outline: &Outline, written: &[String]) -> Draft {
    let bodies = written.iter().map(|body| body.trim().to_owned());
    let bodies = bodies.chain(repeat_with(String::new));
    let sections = outline.headings.iter().cloned().zip(bodies);
    Draft {
        title: Some(outline.title.clone()),
        sections: sections
            .map(|(heading, body)| Section {
                heading: Some(heading),
                body,
            })
            .collect(),
    }
}

async fn write_outline(attempt: &Attempt, brief: &PostBrief) -> Result<Outline, AttemptError> {
    let progress = ProgressTracker::new(Progress {
        phase: Phase::Outline,
        percent: 0,
        words: 0,
    });
    let reply = attempt
        .call(prompts::outline(brief), &progress, &|_| {}, UNSEEN)
        .await?;
    let outline = read_outline(brief, &reply.text, reply.truncated);
    let done = progress_after(&outline, &[]);
    attempt
        .checkpoint(steps::PLAN, &outline.to_string(), done, reply.usage)
        .await?;
    Ok(outline)
}

/// Writes the section that follows on `before`. Small models sometimes answer with
/// nothing usable; then they are asked once more.
async fn write_section(
    attempt: &Attempt,
    outline: &Outline,
    before: &[String],
    prompt: Prompt,
) -> Result<String, AttemptError> {
    let number = before.len() + 1;
    let start = progress_after(outline, before);
    let percent_to_come = percent_after(outline, number) - start.percent;
    let expected_words = (prompt.max_tokens as i32 * 3 / 4).max(1);
    let mut usage = Usage::default();
    for _ in 0..2 {
        let progress = ProgressTracker::new(start);
        let on_event = |event: Event| {
            let Event::Text(text) = event else { return };
            progress.add_words(&text);
            let words = (progress.words() - start.words).min(expected_words);
            progress.raise_percent(start.percent + percent_to_come * words / expected_words);
        };
        let view = |text: &str| {
            let bodies = [before, &[text.to_owned()]].concat();
            Some(draft(outline, &bodies).view(before.len()))
        };
        let reply = attempt
            .call(prompt.clone(), &progress, &on_event, &view)
            .await?;
        usage = usage.and(reply.usage);
        if let Some(text) = read_section(outline, before, &reply.text, reply.truncated) {
            let sections = [before, std::slice::from_ref(&text)].concat();
            let done = progress_after(outline, &sections);
            let cut = cut_sentences(before, &reply.text, &text, reply.truncated);
            let section = before.len() as u32;
            let warnings = cut
                .into_iter()
                .map(|(code, cut)| Warning::new(code, Some(section), cut));
            attempt.warn(warnings).await?;
            attempt
                .checkpoint(number as i32, &text, done, usage)
                .await?;
            return Ok(text);
        }
        tracing::info!(section = before.len(), "a section's answer has no text");
    }
    Err(bad_output("two answers for a section have no text"))
}

/// The sentences of an answer that are not in what was kept of it, and why.
fn cut_sentences<'a>(
    before: &[String],
    answer: &'a str,
    kept: &str,
    truncated: bool,
) -> Vec<(WarningCode, &'a str)> {
    let kept = normalized(kept);
    let before = normalized(&before.concat());
    let mut cut: Vec<(WarningCode, &str)> = Vec::new();
    let mut said = String::new();
    for sentence in answer.lines().flat_map(sentences) {
        let letters = normalized(sentence);
        let is_again = said.contains(&letters) || before.contains(&letters);
        if letters.is_empty() || kept.contains(&letters) && !said.contains(&letters) {
            said += &letters;
            continue;
        }
        let code = if is_repetitive(sentence) {
            WarningCode::Loop
        } else if is_again {
            WarningCode::Repeated
        } else {
            WarningCode::Chatter
        };
        cut.push((code, sentence));
    }
    if let Some((code, sentence)) = cut.last_mut()
        && truncated
        && answer.trim_end().ends_with(sentence.trim_end())
    {
        *code = WarningCode::CutSentence;
    }
    cut
}

/// How far a post is with these sections.
fn progress_after(outline: &Outline, sections: &[String]) -> Progress {
    let is_complete = sections.len() >= outline.headings.len();
    Progress {
        phase: if is_complete {
            Phase::Assembling
        } else {
            Phase::Writing
        },
        percent: percent_after(outline, sections.len()),
        words: sections.iter().map(|text| word_count(text)).sum(),
    }
}

fn percent_after(outline: &Outline, sections: usize) -> i32 {
    let share = (PERCENT_WRITTEN - PERCENT_PLANNED) * sections as i32;
    PERCENT_PLANNED + share / outline.headings.len().max(1) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_from_an_answer_is_told() {
        let before = ["Pots need holes at the bottom.".to_owned()];
        let answer = "Sure! Here is the section:\n\nWater it daily. Pots need holes at the bottom. Water it daily. And th";
        let cut = cut_sentences(&before, answer, "Water it daily.", true);
        assert_eq!(
            cut,
            [
                (WarningCode::Chatter, "Sure! "),
                (WarningCode::Chatter, "Here is the section:"),
                (WarningCode::Repeated, "Pots need holes at the bottom. "),
                (WarningCode::Repeated, "Water it daily. "),
                (WarningCode::CutSentence, "And th"),
            ]
        );
    }
}
