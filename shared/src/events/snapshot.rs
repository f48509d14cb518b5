//! What a job's events have told so far, in one.

use entity::job::{Phase, Status};
use entity::source;
use entity::text::word_count;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{JobEvent, OutlineSection};

/// The state of a job and of its text, as its events tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = JobSnapshot)]
pub struct Snapshot {
    /// The number of the attempt.
    pub attempt: i32,
    /// The job's status.
    pub status: Status,
    /// The phase of the running attempt; null if none runs.
    pub phase: Option<Phase>,
    /// How far the job is.
    pub progress: SnapshotProgress,
    /// What the post is written from, as far as it was found or read.
    #[serde(default)]
    pub sources: Vec<SnapshotSource>,
    /// Null until it is known.
    pub title: Option<String>,
    /// The sections so far, in order.
    pub sections: Vec<SnapshotSection>,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotProgress {
    /// 0 to 100.
    pub percent: i32,
    /// Words written so far.
    pub words: i32,
}

/// A source of a post that is being written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotSource {
    /// As citations name it.
    #[schema(minimum = 1, maximum = 20)]
    pub number: i32,
    /// Null if its text was given.
    pub url: Option<String>,
    /// Null until it is known.
    pub title: Option<String>,
    /// Null until it has been read.
    pub status: Option<source::Status>,
}

/// A section of a post that is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotSection {
    /// Null for an introduction.
    pub heading: Option<String>,
    /// Markdown.
    pub text: String,
    /// Whether it is written.
    pub done: bool,
}

impl Default for Snapshot {
    fn default() -> Self {
        Snapshot {
            attempt: 0,
            status: Status::Queued,
            phase: None,
            progress: SnapshotProgress::default(),
            sources: Vec::new(),
            title: None,
            sections: Vec::new(),
        }
    }
}

impl Snapshot {
    /// Adds the next event.
    pub fn apply(&mut self, event: &JobEvent) {
        match event {
            JobEvent::Status { status, attempt } => {
                self.attempt = *attempt;
                self.set_status(*status);
            }
            JobEvent::Snapshot(snapshot) => *self = snapshot.clone(),
            JobEvent::Phase { phase } => self.phase = Some(*phase),
            JobEvent::Source(source) => {
                let mut sources = self.sources.iter_mut();
                match sources.find(|known| known.number == source.number) {
                    Some(known) => *known = source.clone(),
                    None => self.sources.push(source.clone()),
                }
            }
            JobEvent::Outline { title, sections } => {
                self.title = title.clone();
                self.sections.resize_with(sections.len(), Default::default);
                for (section, OutlineSection { heading }) in self.sections.iter_mut().zip(sections)
                {
                    section.heading = heading.clone();
                }
            }
            JobEvent::Delta { section, text } => self.section(*section).text += text,
            JobEvent::SectionReset { section } => {
                let section = self.section(*section);
                section.text.clear();
                section.done = false;
            }
            JobEvent::SectionDone {
                section, heading, ..
            } => {
                let section = self.section(*section);
                section.heading = heading.clone();
                section.done = true;
            }
            JobEvent::Progress { percent, words } => {
                self.progress = SnapshotProgress {
                    percent: *percent,
                    words: *words,
                }
            }
            JobEvent::End { status, .. } => self.set_status(*status),
        }
    }

    /// The events that tell the sources and the whole text anew, whatever was told before.
    pub(crate) fn retold(&self) -> Vec<JobEvent> {
        let sections = self.sections.iter().enumerate();
        let sections = sections.flat_map(|(at, SnapshotSection { heading, text, .. })| {
            let section = at as u32;
            [
                JobEvent::SectionReset { section },
                JobEvent::Delta {
                    section,
                    text: text.clone(),
                },
                JobEvent::SectionDone {
                    section,
                    heading: heading.clone(),
                    words: word_count(text),
                },
            ]
        });
        let sources = self.sources.iter().cloned().map(JobEvent::Source);
        let outline = [self.outline()].into_iter();
        sources.chain(outline).chain(sections).collect()
    }

    /// The event that tells the title and the headings.
    pub(crate) fn outline(&self) -> JobEvent {
        let heading = |section: &SnapshotSection| OutlineSection {
            heading: section.heading.clone(),
        };
        JobEvent::Outline {
            title: self.title.clone(),
            sections: self.sections.iter().map(heading).collect(),
        }
    }

    fn set_status(&mut self, status: Status) {
        self.status = status;
        if !matches!(status, Status::Running | Status::Canceling) {
            self.phase = None;
        }
    }

    fn section(&mut self, at: u32) -> &mut SnapshotSection {
        let at = at as usize;
        if at >= self.sections.len() {
            self.sections.resize_with(at + 1, Default::default);
        }
        &mut self.sections[at]
    }

    /// The text of the sections: the content of the post, once it is written.
    pub fn content(&self) -> String {
        let sections = self.sections.iter().map(|section| match &section.heading {
            Some(heading) => format!("## {heading}\n\n{}\n", section.text),
            None => format!("{}\n", section.text),
        });
        sections.collect::<Vec<_>>().join("\n")
    }
}
