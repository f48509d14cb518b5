//! One section of a finished post, written again as its owner wants it. All others stay as they
//! are, byte for byte.

use entity::job::{Phase, SectionTask};
use entity::post::PostContent;
use entity::sections::{Section, sections};
use entity::text::word_count;
use shared::events::{Snapshot, SnapshotSection};
use shared::queue::{Progress, WrittenPost};

use super::draft::{Draft, Section as DraftSection};
use super::sentences::normalized;
use super::{PERCENT_WRITTEN, PostBrief, bad_output, by_section, chatter, prompts, rejected, steps, title};
use crate::agent::{Completion, Event, Usage};
use crate::attempt::{Attempt, ProgressTracker};
use crate::live_text::PostView;
use crate::outcome::AttemptError;

/// Writes the section, and gives the whole post with it.
pub(super) async fn write(
    attempt: &Attempt,
    brief: &PostBrief,
    task: &SectionTask,
) -> Result<WrittenPost, AttemptError> {
    let Some((title, content)) = attempt.base_text().await? else {
        return Err(rejected("the text that the section is of is not kept any more"));
    };
    let post = Post {
        title: title.unwrap_or_else(|| title::of_topic(&brief.topic)),
        sections: sections(&content),
        content,
    };
    if post.sections.len() <= task.number as usize {
        return Err(rejected("the post has no such section"));
    }
    let finished = attempt.finished_steps().await?;
    let step = steps::FIRST_REWRITE + task.number as i32;
    let text = match finished.into_iter().find(|stored| stored.position == step) {
        Some(stored) => stored.content,
        None => post.rewrite(attempt, brief, task, step).await?,
    };
    attempt.count_warnings().await;
    let content = post.with_section(task, &text);
    let view = view(&post.title, &content, None);
    attempt
        .finish(PostContent::new(Some(post.title), content), view)
        .await
}

/// The post as it was.
struct Post {
    title: String,
    content: String,
    sections: Vec<Section>,
}

impl Post {
    fn section(&self, task: &SectionTask) -> &Section {
        &self.sections[task.number as usize]
    }

    fn with_section(&self, task: &SectionTask, text: &str) -> String {
        let mut content = self.section(task).with_text(&self.content, text);
        // So that what the events tell is the stored text.
        if !content.ends_with('\n') {
            content.push('\n');
        }
        content
    }

    async fn rewrite(
        &self,
        attempt: &Attempt,
        brief: &PostBrief,
        task: &SectionTask,
        step: i32,
    ) -> Result<String, AttemptError> {
        let section = self.section(task);
        let drafted = self.sections.iter().map(|section| DraftSection {
            heading: section.heading.clone(),
            body: section.text(&self.content).to_owned(),
        });
        let drafted: Vec<DraftSection> = drafted.collect();
        let number = task.number as usize;
        let words = word_count(section.text(&self.content)).clamp(40, 800);
        let wish = task.instructions.as_deref();
        let prompt = prompts::section_again(brief, &self.title, &drafted, number, wish, words as u32);
        let mut usage = Usage::default();
        for _ in 0..2 {
            let tracker = ProgressTracker::new(progress(0));
            let on_event = |event: Event| {
                let Event::Text(text) = event else { return };
                tracker.add_words(&text);
                let written = tracker.words().min(words);
                tracker.raise_percent(PERCENT_WRITTEN * written / words);
            };
            let view = |text: &str| {
                let text = chatter::strip_chatter(text);
                let content = self.with_section(task, text.trim());
                Some(view(&self.title, &content, Some(number)))
            };
            let reply = attempt
                .call(prompt.clone(), &tracker, &on_event, &view)
                .await?;
            usage = usage.and(reply.usage);
            let (text, warnings) = read_answer(section, task, &reply);
            if text.contains(char::is_alphanumeric) {
                attempt.warn(warnings).await?;
                attempt
                    .checkpoint(step, &text, progress(word_count(&text)), usage)
                    .await?;
                return Ok(text);
            }
            tracing::info!(section = number, "a section's answer has no text");
        }
        Err(bad_output("two answers for a section have no text"))
    }
}

/// The section's text in an answer. Some models write others, too.
fn read_answer(
    section: &Section,
    task: &SectionTask,
    reply: &Completion,
) -> (String, Vec<entity::job::Warning>) {
    let heading = section.heading.as_deref().unwrap_or_default();
    let (text, warnings) = by_section::read_section(heading, task.number as usize, reply);
    let whole = Draft::parse(&chatter::strip_chatter(&reply.text));
    let is_it = |other: &&DraftSection| match (&other.heading, &section.heading) {
        (Some(other), Some(_)) => normalized(other) == normalized(heading),
        (other, asked) => other == asked,
    };
    let headed = whole.sections.iter().filter(|other| other.heading.is_some());
    let is_whole_post = headed.count() > 1;
    match whole.sections.iter().find(is_it) {
        Some(own) if is_whole_post => (own.body.clone(), warnings),
        _ => (text, warnings),
    }
}

fn progress(words: i32) -> Progress {
    Progress {
        phase: Phase::Writing,
        percent: if words > 0 { PERCENT_WRITTEN } else { 0 },
        words,
    }
}

/// The post as it is to be seen: by its sections if that gives the content, else in one piece, for
/// its owner may have formatted it in any way. Section `open` is being written.
fn view(title: &str, content: &str, open: Option<usize>) -> PostView {
    let told = |heading: Option<String>, text: &str, done| SnapshotSection {
        heading,
        text: text.to_owned(),
        done,
    };
    let parts = sections(content);
    let parts = parts.iter().enumerate().map(|(number, section)| {
        let text = section.text(content);
        told(section.heading.clone(), text, open != Some(number))
    });
    let mut post = Snapshot {
        sections: parts.collect(),
        ..Snapshot::default()
    };
    if post.content() != content {
        let text = content.strip_suffix('\n').unwrap_or(content);
        post.sections = vec![told(None, text, open.is_none())];
    }
    PostView {
        title: Some(title.to_owned()),
        sections: post.sections,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_gives_the_content_however_it_is_formatted() {
        for (content, count) in [
            ("Hello.\n\n## Sun\n\nMuch.\n\n## Water\n\nDaily.\n", 3),
            ("Hello.\n\n\n## Sun\nMuch.\n", 1),
            ("# Pots\n\n## Sun\n\nMuch.\n", 1),
            ("### Sun\n\nMuch.\n", 1),
            ("Hello.\n\n\n", 1),
        ] {
            let view = view("Pots", content, None);
            assert_eq!(view.sections.len(), count, "{content:?}");
            let told = Snapshot {
                sections: view.sections,
                ..Snapshot::default()
            };
            assert_eq!(told.content(), content);
        }
    }
}
