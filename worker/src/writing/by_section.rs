//! A long post by a plan: what each section is to tell, then section by section, each
//! written with the plan and the end of the one before in view.

use std::iter::repeat_with;

use entity::job::{Phase, Warning, WarningCode};
use entity::step;
use entity::text::word_count;
use shared::queue::Progress;

use super::draft::{Draft, Section, without_heading};
use super::plan::Plan;
use super::repetition::loop_start;
use super::{
    PERCENT_PLANNED, PERCENT_WRITTEN, PostBrief, bad_output, chatter, prompts, sentences, steps,
};
use crate::agent::{Completion, Event, Usage};
use crate::attempt::{Attempt, ProgressTracker, UNSEEN};
use crate::live_text::PostView;
use crate::outcome::AttemptError;

/// Writes the draft, or what is missing of it. An outline that was reviewed is the plan.
pub(super) async fn write(
    attempt: &Attempt,
    brief: &PostBrief,
    finished: &[step::Model],
) -> Result<Draft, AttemptError> {
    let stored = finished.iter().find(|step| step.position == steps::PLAN);
    let plan = match (attempt.outline(), stored) {
        (Some(outline), _) => Plan::from(outline.clone()),
        (None, Some(step)) => Plan::from_text(&step.content)
            .ok_or_else(|| bad_output("can't read the stored plan"))?,
        (None, None) => write_plan(attempt, brief).await?,
    };
    attempt.check_review(|| plan.clone().into())?;
    let finished = finished.iter().filter(|step| step.position > steps::PLAN);
    let finished = finished.map(|step| step.content.clone());
    let mut sections: Vec<String> = finished.take(plan.sections.len()).collect();
    while sections.len() < plan.sections.len() {
        let section = write_section(attempt, brief, &plan, &sections).await?;
        sections.push(section);
    }
    Ok(draft(&plan, &sections))
}

/// The post with these of its sections written.
fn draft(plan: &Plan, written: &[String]) -> Draft {
    let bodies = written.iter().cloned().chain(repeat_with(String::new));
    let sections = plan.sections.iter().zip(bodies);
    Draft {
        title: Some(plan.title.clone()),
        sections: sections
            .map(|(section, body)| Section {
                heading: Some(section.heading.clone()),
                body,
            })
            .collect(),
    }
}

/// The post as it is to be seen while the next section comes.
fn view(plan: &Plan, before: &[String], next: &str) -> PostView {
    let bodies = [before, &[next.to_owned()]].concat();
    draft(plan, &bodies).view(before.len())
}

async fn write_plan(attempt: &Attempt, brief: &PostBrief) -> Result<Plan, AttemptError> {
    let tracker = ProgressTracker::at_start(Phase::Outline);
    let mut usage = Usage::default();
    for _ in 0..2 {
        let reply = attempt
            .call(prompts::plan(brief), &tracker, &|_| {}, UNSEEN)
            .await?;
        usage = usage.and(reply.usage);
        if let Some(plan) = Plan::read(&brief.topic, &reply.text) {
            let progress = progress(&plan, &[]);
            attempt
                .checkpoint(steps::PLAN, &plan.to_string(), progress, usage)
                .await?;
            return Ok(plan);
        }
        tracing::info!("an answer has no plan");
    }
    Err(bad_output("two answers have no plan"))
}

async fn write_section(
    attempt: &Attempt,
    brief: &PostBrief,
    plan: &Plan,
    before: &[String],
) -> Result<String, AttemptError> {
    let number = before.len();
    let start = progress(plan, before);
    let share = (PERCENT_WRITTEN - PERCENT_PLANNED) / plan.sections.len() as i32;
    let expected = (brief.words() as i32 / plan.sections.len() as i32).max(1);
    let mut usage = Usage::default();
    for _ in 0..2 {
        let tracker = ProgressTracker::new(start);
        let on_event = |event: Event| {
            let Event::Text(text) = event else { return };
            tracker.add_words(&text);
            let words = (tracker.words() - start.words).min(expected);
            tracker.raise_percent(start.percent + share * words / expected);
        };
        let prompt = prompts::section(brief, plan, before);
        let view = |text: &str| {
            let text = chatter::strip_chatter(text);
            let body = without_heading(&text, &plan.sections[number].heading);
            Some(view(plan, before, body))
        };
        let reply = attempt.call(prompt, &tracker, &on_event, &view).await?;
        usage = usage.and(reply.usage);
        let (body, warnings) = read_section(&plan.sections[number].heading, number, &reply);
        if body.chars().any(char::is_alphanumeric) {
            let sections = [before, std::slice::from_ref(&body)].concat();
            let done = progress(plan, &sections);
            attempt.warn(warnings).await?;
            attempt
                .checkpoint(number as i32 + 1, &body, done, usage)
                .await?;
            return Ok(body);
        }
        tracing::info!(section = number, "a section's answer has no text");
    }
    Err(bad_output("two answers for a section have no text"))
}

/// The body in a section's answer, and what was cut from that.
pub(super) fn read_section(
    heading: &str,
    number: usize,
    reply: &Completion,
) -> (String, Vec<Warning>) {
    let text = chatter::strip_chatter(&reply.text);
    let mut cuts: Vec<_> = chatter::around(&reply.text, &text)
        .map(|cut| (WarningCode::Chatter, cut.to_owned()))
        .collect();
    let mut body = without_heading(&text, heading).to_owned();
    if let Some(start) = loop_start(&body) {
        let end = sentences::whole(&body[..start]).len();
        cuts.push((WarningCode::Loop, body.split_off(end)));
    } else if reply.truncated {
        let end = sentences::whole(&body).len();
        cuts.push((WarningCode::CutSentence, body.split_off(end)));
    }
    let warnings = cuts
        .iter()
        .filter(|(_, cut)| !cut.trim().is_empty())
        .map(|(code, cut)| Warning::new(*code, Some(number as u32), cut));
    (body.trim_end().to_owned(), warnings.collect())
}

/// How far a post is with these sections.
fn progress(plan: &Plan, sections: &[String]) -> Progress {
    let share = (PERCENT_WRITTEN - PERCENT_PLANNED) * sections.len() as i32;
    Progress {
        phase: Phase::Writing,
        percent: PERCENT_PLANNED + share / plan.sections.len() as i32,
        words: sections.iter().map(|text| word_count(text)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_that_ends_in_a_loop_ends_with_a_sentence() {
        let again = "To avoid harm, cut it at an angle, so that the stem is left alone. ";
        let text = format!("Cut above a pair of leaves. {}To avoid", again.repeat(6));
        let reply = Completion {
            text,
            ..Completion::default()
        };
        let (body, warnings) = read_section("Cutting", 1, &reply);
        assert_eq!(
            body,
            format!("Cut above a pair of leaves. {}", again.trim_end())
        );
        assert_eq!(warnings[0].code, WarningCode::Loop);
    }
}
