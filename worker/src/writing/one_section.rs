//! One section of a finished post, written again as its owner wants it. All others stay as they
//! are, byte for byte.

use entity::grounding::is_list_of_sources;
use entity::job::{Phase, SectionTask};
use entity::post::PostContent;
use entity::sections::{Section, sections};
use entity::text::word_count;
use shared::events::{Snapshot, SnapshotSection};
use shared::queue::{Progress, WrittenPost};

use super::draft::{Draft, Section as DraftSection, without_heading};
use super::sentences::normalized;
use super::{
    PERCENT_WRITTEN, PostBrief, bad_output, by_section, chatter, grounding, prompts, rejected,
    steps, title,
};
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
        return Err(rejected(
            "the text that the section is of is not kept any more",
        ));
    };
    let title = title.unwrap_or_else(|| title::of_topic(&brief.topic));
    let number = task.number as usize;
    let Some(post) = Post::read(title, content, number) else {
        return Err(rejected("the post has no such section"));
    };
    let finished = attempt.finished_steps(steps::WRITING).await?;
    // The only one of its job.
    let step = steps::FIRST_REWRITE;
    let text = match finished.into_iter().find(|stored| stored.position == step) {
        Some(stored) => stored.content,
        None => post.rewrite(attempt, brief, task, step).await?,
    };
    let (text, texts) = match &brief.sources {
        Some(sources) => {
            let number = task.number;
            let (text, texts) =
                grounding::ground_section(attempt, brief, sources, number, &text).await?;
            (text, Some(texts))
        }
        None => (text, None),
    };
    attempt.count_warnings().await;
    let (mut content, mut view) = post.with_section(&text);
    let parts = sections(&content);
    let bodies = parts
        .iter()
        .map(|section| section.text(&content).to_owned());
    let bodies: Vec<String> = bodies.collect();
    let (Some(sources), Some(texts)) = (&brief.sources, texts) else {
        let content = PostContent::new(Some(post.title), content);
        return attempt.finish(content, view).await;
    };
    let grounding = grounding::measure(attempt, texts, bodies).await?;
    // What the section cites now stands in the list of sources, too.
    if let Some(list) = grounding::list_of_sources(brief, &sources.list, &grounding)
        && let (Some(part), Some(told)) = (parts.last(), view.sections.last_mut())
        && is_list_of_sources(part.text(&content))
        && is_list_of_sources(&told.text)
    {
        content = part.with_text(&content, &list.body);
        told.text = list.body;
    }
    let content = PostContent::new(Some(post.title), content).with_grounding(&grounding);
    attempt.finish(content, view).await
}

/// The post as it was.
struct Post {
    title: String,
    content: String,
    sections: Vec<Section>,
    /// Which of them is written again.
    number: usize,
    /// What is told of the post, so that it gives the content; None if nothing does but the content
    /// in one piece, for its owner may have formatted it in any way.
    told: Option<Told>,
}

/// The post in the form of events.
struct Told {
    sections: Vec<SnapshotSection>,
    /// Which of them is written again.
    open: usize,
}

impl Post {
    /// None if the content has no such section.
    fn read(title: String, mut content: String, number: usize) -> Option<Self> {
        // What events tell ends so.
        if !content.ends_with('\n') {
            content.push('\n');
        }
        let sections = sections(&content);
        let section = sections.get(number)?;
        let forms = [
            by_sections(&content, &sections, number),
            in_three(&content, section),
        ];
        let told = forms.into_iter().find(|told| told.content() == content);
        Some(Post {
            title,
            told,
            content,
            sections,
            number,
        })
    }

    /// The post with another text of the section, and as it is to be seen then.
    fn with_section(&self, text: &str) -> (String, PostView) {
        let Some(told) = &self.told else {
            let content = self.sections[self.number].with_text(&self.content, text);
            let whole = content.strip_suffix('\n').unwrap_or(&content);
            let view = self.view(vec![section(None, whole)]);
            return (content, view);
        };
        let told = told.with_text(text);
        (told.content(), self.view(told.sections))
    }

    /// The post while the section is written. Before it has a text, it is as it was.
    fn while_written(&self, text: &str) -> Option<PostView> {
        let mut told = self.told.as_ref()?.with_text(text);
        told.sections[told.open].done = false;
        (!text.is_empty()).then(|| self.view(told.sections))
    }

    fn view(&self, sections: Vec<SnapshotSection>) -> PostView {
        PostView {
            title: Some(self.title.clone()),
            sections,
        }
    }

    async fn rewrite(
        &self,
        attempt: &Attempt,
        brief: &PostBrief,
        task: &SectionTask,
        step: i32,
    ) -> Result<String, AttemptError> {
        let section = &self.sections[self.number];
        let drafted = self.sections.iter().map(|section| DraftSection {
            heading: section.heading.clone(),
            body: section.text(&self.content).to_owned(),
        });
        let drafted: Vec<DraftSection> = drafted.collect();
        let words = word_count(section.text(&self.content)).clamp(40, 800);
        let wish = task.instructions.as_deref();
        let number = self.number;
        let prompt =
            prompts::section_again(brief, &self.title, &drafted, number, wish, words as u32);
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
                let heading = section.heading.as_deref().unwrap_or_default();
                self.while_written(without_heading(&text, heading))
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

impl Told {
    fn with_text(&self, text: &str) -> Told {
        let mut sections = self.sections.clone();
        text.clone_into(&mut sections[self.open].text);
        let open = self.open;
        Told { sections, open }
    }

    fn content(&self) -> String {
        let told = Snapshot {
            sections: self.sections.clone(),
            ..Snapshot::default()
        };
        told.content()
    }
}

fn section(heading: Option<String>, text: &str) -> SnapshotSection {
    SnapshotSection {
        heading,
        text: text.to_owned(),
        done: true,
    }
}

/// Each section as one.
fn by_sections(content: &str, sections: &[Section], open: usize) -> Told {
    let told = sections
        .iter()
        .map(|part| section(part.heading.clone(), part.text(content)));
    Told {
        sections: told.collect(),
        open,
    }
}

/// What stands before the section's text, that text, and what stands behind it.
fn in_three(content: &str, part: &Section) -> Told {
    let (before, behind) = part.around(content);
    // These line breaks stand between sections, and at the end.
    let before = before.strip_suffix("\n\n").unwrap_or(before);
    let behind = behind.strip_suffix('\n').unwrap_or(behind);
    let behind = behind.strip_prefix("\n\n").unwrap_or(behind);
    let mut sections = Vec::new();
    if !before.is_empty() {
        sections.push(section(None, before));
    }
    let open = sections.len();
    sections.push(section(None, part.text(content)));
    if !behind.is_empty() {
        sections.push(section(None, behind));
    }
    Told { sections, open }
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
    let headed = whole
        .sections
        .iter()
        .filter(|other| other.heading.is_some());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_gives_the_content_however_it_is_formatted() {
        for (content, number, told) in [
            ("Hello.\n\n## Sun\n\nMuch.\n\n## Water\n\nDaily.\n", 1, 3),
            ("Hello.\n\n\n## Sun\n\nMuch.\n", 1, 2),
            ("# Pots\n\n## Sun\n\nMuch.\n\n## Water\n\nDaily.\n", 0, 3),
            ("### Sun\n\nMuch.\n", 0, 2),
            ("Hello.\n\n\n## Sun\n\nMuch.\n", 0, 2),
            ("## Sun\n\n\n\n## Water\n\nDaily.\n", 0, 2),
            ("Hello.\n## Sun\nMuch.\n", 1, 1),
            ("Hello.", 0, 1),
        ] {
            let post = Post::read("Pots".to_owned(), content.to_owned(), number).unwrap();
            for text in ["New.", "```\nopen", "## Odd\n\nNew."] {
                let (stored, view) = post.with_section(text);
                assert_eq!(view.sections.len(), told, "{content:?}");
                let told = Told {
                    sections: view.sections,
                    open: 0,
                };
                assert_eq!(told.content(), stored, "{content:?}");
                assert!(stored.contains(text), "{stored:?}");
            }
            assert!(post.while_written("").is_none());
        }
    }
}
