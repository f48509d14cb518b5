//! A long post by a plan: what each section is to tell, then section by section, each
//! written with the plan and the end of the one before in view.

use std::fmt;

use entity::job::{Phase, Warning, WarningCode};
use entity::step;
use entity::text::word_count;
use shared::queue::Progress;

use super::draft::{Draft, Section, without_heading};
use super::repetition::loop_start;
use super::{PERCENT_PLANNED, PERCENT_WRITTEN, PostBrief, bad_output, chatter, prompts, sentences};
use crate::agent::{Completion, Event, Usage};
use crate::attempt::{Attempt, ProgressTracker};
use crate::outcome::AttemptError;

/// More sections than that no post of ours has.
const MAX_SECTIONS: usize = 20;

/// The plan of a post.
///
/// As text, to be kept between attempts, it is Markdown: `# Title`, and for each section
/// a line `## Heading <!-- what it tells -->`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) title: String,
    pub(super) sections: Vec<PlannedSection>,
}

/// What a section is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedSection {
    pub(super) heading: String,
    /// What it tells; empty if the plan does not say.
    pub(super) about: String,
}

/// Writes the draft, or what is missing of it.
pub(super) async fn write(
    attempt: &Attempt,
    brief: &PostBrief,
    steps: &[step::Model],
) -> Result<Draft, AttemptError> {
    let mut steps = steps.iter().map(|step| step.content.clone());
    let plan = match steps.next() {
        Some(text) => {
            Plan::from_text(&text).ok_or_else(|| bad_output("can't read the stored plan"))?
        }
        None => write_plan(attempt, brief).await?,
    };
    let mut sections: Vec<String> = steps.take(plan.sections.len()).collect();
    while sections.len() < plan.sections.len() {
        let section = write_section(attempt, brief, &plan, &sections).await?;
        sections.push(section);
    }
    let headings = plan.sections.into_iter().map(|section| section.heading);
    Ok(Draft {
        title: Some(plan.title),
        sections: headings
            .zip(sections)
            .map(|(heading, body)| Section {
                heading: Some(heading),
                body,
            })
            .collect(),
    })
}

async fn write_plan(attempt: &Attempt, brief: &PostBrief) -> Result<Plan, AttemptError> {
    let tracker = ProgressTracker::new(Progress {
        phase: Phase::Outline,
        percent: 0,
        words: 0,
    });
    let mut usage = Usage::default();
    for _ in 0..2 {
        let reply = attempt
            .call(prompts::plan(brief), &tracker, &|_| {})
            .await?;
        usage = usage.and(reply.usage);
        if let Some(plan) = Plan::read(&brief.topic, &reply.text) {
            let progress = progress(&plan, &[]);
            attempt
                .checkpoint(0, &plan.to_string(), progress, usage)
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
        let reply = attempt.call(prompt, &tracker, &on_event).await?;
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
fn read_section(heading: &str, number: usize, reply: &Completion) -> (String, Vec<Warning>) {
    let text = chatter::strip_chatter(&reply.text);
    let mut cuts: Vec<_> = chatter::around(&reply.text, &text)
        .map(|cut| (WarningCode::Chatter, cut.to_owned()))
        .collect();
    let mut body = without_heading(&text, heading).to_owned();
    if let Some(start) = loop_start(&body) {
        cuts.push((WarningCode::Loop, body.split_off(start)));
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

impl Plan {
    /// Reads back what `to_string` wrote, or an outline of the guided way.
    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let title = lines.next()?.strip_prefix("# ")?.to_owned();
        let section = |line: &str| {
            let line = line.strip_prefix("## ")?;
            let (heading, about) = line.split_once(" <!-- ").unwrap_or((line, ""));
            Some(PlannedSection {
                heading: heading.to_owned(),
                about: about.trim_end_matches("-->").trim().to_owned(),
            })
        };
        let sections: Vec<_> = lines.map(section).collect::<Option<_>>()?;
        (!sections.is_empty()).then_some(Plan { title, sections })
    }

    /// The plan in a model's answer; None if there are not even two sections in it.
    fn read(topic: &str, answer: &str) -> Option<Self> {
        let text = chatter::strip_wrapping(answer);
        let mut title = None;
        let mut sections: Vec<PlannedSection> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let marks = line.chars().take_while(|c| *c == '#').count();
            let item =
                line.trim_start_matches(|c: char| "#-*+•. )".contains(c) || c.is_ascii_digit());
            let is_section = marks > 1 || marks == 0 && item.len() < line.len();
            if marks == 1 && title.is_none() || title.is_none() && line.starts_with("Title:") {
                title = Some(plain(item.trim_start_matches("Title:")));
            } else if is_section {
                let (heading, about) = item.split_once([':', '：']).unwrap_or((item, ""));
                sections.push(PlannedSection {
                    heading: plain(heading),
                    about: plain(about),
                });
            } else if let Some(last) = sections.last_mut()
                && last.about.is_empty()
            {
                // It stands in a line of its own.
                last.about = plain(line);
            }
        }
        sections.retain(|section| section.heading.chars().any(char::is_alphanumeric));
        sections.truncate(MAX_SECTIONS);
        let title = title
            .filter(|title| !title.is_empty())
            .unwrap_or_else(|| topic.to_owned());
        (sections.len() > 1).then_some(Plan { title, sections })
    }

    /// The sections as a prompt lists them.
    pub(super) fn listed(&self) -> String {
        let lines = self.sections.iter().enumerate().map(|(at, section)| {
            let PlannedSection { heading, about } = section;
            let about = if about.is_empty() {
                String::new()
            } else {
                format!(": {about}")
            };
            format!("{}. {heading}{about}", at + 1)
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "# {}", self.title)?;
        self.sections.iter().try_for_each(|section| {
            write!(f, "\n## {}", section.heading)?;
            match section.about.replace("-->", "") {
                about if about.is_empty() => Ok(()),
                about => write!(f, " <!-- {about} -->"),
            }
        })
    }
}

/// One line without marks for bold and quotation.
fn plain(text: &str) -> String {
    text.trim()
        .trim_matches(['*', '"', '“', '”', '_', '[', ']', ' '])
        .to_owned()
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

    fn plan(title: &str, sections: &[(&str, &str)]) -> Plan {
        let section = |(heading, about): &(&str, &str)| PlannedSection {
            heading: (*heading).to_owned(),
            about: (*about).to_owned(),
        };
        Plan {
            title: title.to_owned(),
            sections: sections.iter().map(section).collect(),
        }
    }

    #[test]
    fn a_plan_is_read_from_whatever_form_a_model_gives_it() {
        let expected = plan(
            "Red Gold",
            &[("Sun", "How much of it."), ("Water", "And when.")],
        );
        for answer in [
            "# Red Gold\n## Sun: How much of it.\n## Water: And when.",
            "```markdown\n# Red Gold\n\n## Sun\nHow much of it.\n\n## Water\nAnd when.\n```",
            "# **Red Gold**\n1. **Sun**: How much of it.\n2. **Water**: And when.",
            "Title: \"Red Gold\"\n\n- Sun: How much of it.\n- Water: And when.",
        ] {
            assert_eq!(
                Plan::read("tomatoes", answer),
                Some(expected.clone()),
                "{answer}"
            );
        }
        assert_eq!(Plan::read("tomatoes", "I can't do that."), None);
    }

    #[test]
    fn a_plan_without_a_title_has_the_topic() {
        let read = Plan::read("番茄", "## 阳光：多少\n## 水：何时");
        assert_eq!(
            read,
            Some(plan("番茄", &[("阳光", "多少"), ("水", "何时")]))
        );
    }

    #[test]
    fn a_stored_plan_is_read_back() {
        let stored = plan(
            "Red Gold",
            &[("Sun", "How much: six hours."), ("Water", "")],
        );
        assert_eq!(Plan::from_text(&stored.to_string()), Some(stored));
        assert_eq!(Plan::from_text("Something else"), None);
    }
}
