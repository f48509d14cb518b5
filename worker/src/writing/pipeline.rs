//! The recipe of a post: outline, sections, assembly. Each finished step is a
//! checkpoint, so an attempt begins at the first one that is missing.

use entity::job::Phase;
use entity::post::{self, PostContent};
use shared::queue::Progress;

use super::{
    Outline, PostBrief, WritingOptions, assemble, outline_prompt, read_outline, read_post,
    read_section, section_prompt,
};
use crate::agent::{AgentError, AgentErrorKind, CallScope, Event, Prompt, Usage};
use crate::attempt::{Attempt, ProgressTracker};
use crate::outcome::AttemptError;

const PERCENT_AFTER_OUTLINE: i32 = 10;
const PERCENT_AFTER_SECTIONS: i32 = 95;

/// The phase in which an attempt begins, before it is known what earlier ones have done.
pub(crate) fn first_phase(scope: CallScope) -> Phase {
    match scope {
        CallScope::WholePost => Phase::Writing,
        CallScope::Section => Phase::Outline,
    }
}

/// Writes the post of an attempt's job.
pub(crate) async fn write_post(attempt: &Attempt) -> Result<PostContent, AttemptError> {
    let (title, content) = match attempt.agent_scope() {
        CallScope::WholePost => write_in_one_call(attempt).await?,
        CallScope::Section => write_by_section(attempt).await?,
    };
    Ok(PostContent::new(Some(title), content))
}

/// Has the agent write the whole post in one call.
async fn write_in_one_call(attempt: &Attempt) -> Result<(String, String), AttemptError> {
    let progress = ProgressTracker::new(Progress {
        phase: Phase::Writing,
        percent: 0,
        words: 0,
    });
    let on_event = |event: Event| match event {
        Event::Progress { percent, .. } => {
            progress.raise_percent(i32::from(percent).min(PERCENT_AFTER_SECTIONS));
        }
        Event::Text(text) => progress.add_words(&text),
    };
    // A program that writes whole posts makes its own prompts.
    let reply = attempt
        .call(Prompt::default(), &progress, &on_event)
        .await?;
    let post = read_post(attempt.topic(), reply.title, &reply.text);
    post.ok_or_else(|| bad_output("the post has no text"))
}

/// Leads the agent from the outline through the sections.
async fn write_by_section(attempt: &Attempt) -> Result<(String, String), AttemptError> {
    let options = serde_json::from_value::<WritingOptions>(attempt.options().clone());
    let brief = PostBrief {
        topic: attempt.topic().to_owned(),
        options: options.unwrap_or_default(),
    };
    let mut steps = attempt.finished_steps().await?.into_iter();
    let outline = match steps.next() {
        Some(text) => {
            Outline::from_text(&text).ok_or_else(|| bad_output("can't read the stored outline"))?
        }
        None => write_outline(attempt, &brief).await?,
    };
    let mut sections: Vec<String> = steps.collect();
    if !sections.is_empty() {
        attempt.report(progress_after(&outline, &sections)).await?;
    }
    while let Some(prompt) = section_prompt(&brief, &outline, &sections) {
        let section = write_section(attempt, &outline, &sections, prompt).await?;
        sections.push(section);
    }
    Ok(assemble(&outline, &sections))
}

async fn write_outline(attempt: &Attempt, brief: &PostBrief) -> Result<Outline, AttemptError> {
    let progress = ProgressTracker::new(Progress {
        phase: Phase::Outline,
        percent: 0,
        words: 0,
    });
    let reply = attempt
        .call(outline_prompt(brief), &progress, &|_| {})
        .await?;
    let outline = read_outline(brief, &reply.text, reply.truncated);
    let done = progress_after(&outline, &[]);
    attempt
        .checkpoint(0, &outline.to_string(), done, reply.usage)
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
        let reply = attempt.call(prompt.clone(), &progress, &on_event).await?;
        usage = usage.and(reply.usage);
        if let Some(text) = read_section(outline, before, &reply.text, reply.truncated) {
            let sections = [before, std::slice::from_ref(&text)].concat();
            let done = progress_after(outline, &sections);
            attempt.checkpoint(number, &text, done, usage).await?;
            return Ok(text);
        }
        tracing::info!(section = number, "a section's answer has no text");
    }
    Err(bad_output("two answers for a section have no text"))
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
        words: sections.iter().map(|text| post::word_count(text)).sum(),
    }
}

fn percent_after(outline: &Outline, sections: usize) -> i32 {
    let share = (PERCENT_AFTER_SECTIONS - PERCENT_AFTER_OUTLINE) * sections as i32;
    PERCENT_AFTER_OUTLINE + share / outline.headings.len().max(1) as i32
}

fn bad_output(message: &str) -> AttemptError {
    AttemptError::Agent(AgentError::Retry {
        failure: AgentErrorKind::BadOutput,
        after: None,
        message: message.to_owned(),
    })
}
