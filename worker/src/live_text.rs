//! What those who watch a job have been told of its text, and what to tell them next.

use std::time::Duration;

use entity::job;
use entity::text::word_count;
use sea_orm::DbErr;
use sea_orm::prelude::Uuid;
use shared::events::{
    JobEvent, OutlineSection, Snapshot, SnapshotProgress, SnapshotSection, SnapshotSource,
};
use shared::queue::{Lease, Progress};
use tokio::time::Instant;

use crate::job_store::JobStore;

/// A lease that was renewed so shortly before need not be renewed.
const RENEW_AFTER: Duration = Duration::from_millis(500);

/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// A post as it is to be seen while it is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PostView {
    pub(crate) title: Option<String>,
    pub(crate) sections: Vec<SnapshotSection>,
}

/// What a job's events have told.
#[derive(Debug)]
pub(crate) struct LiveText {
    /// None if it is not known, and has to be read from the database.
    pub(crate) told: Option<Snapshot>,
    /// The number of the last event.
    pub(crate) last_event: i32,
    /// When progress was last told.
    pub(crate) progress_told: Option<Instant>,
    /// When the lease was last renewed.
    pub(crate) renewed: Instant,
}

impl LiveText {
    /// What was told of a job that an attempt has just claimed.
    pub(crate) fn new(job: &job::Model) -> Self {
        // Before the first attempt: that it was queued, has begun, and with which phase.
        let is_first = job.last_event == 3;
        LiveText {
            told: is_first.then(|| Snapshot {
                attempt: job.attempt,
                status: job.status,
                phase: job.phase,
                ..Snapshot::default()
            }),
            last_event: job.last_event,
            progress_told: None,
            renewed: Instant::now(),
        }
    }

    /// Takes what was told. It is to be put back once it is known what is told next.
    pub(crate) async fn read(&mut self, store: &JobStore, job: Uuid) -> Result<Snapshot, DbErr> {
        if let Some(told) = self.told.take() {
            return Ok(told);
        }
        let (told, last_event) = store.told(job).await?;
        self.last_event = last_event;
        Ok(told)
    }

    /// Whether the lease is to be renewed even if there is nothing to tell.
    pub(crate) fn is_renewal_due(&self, lease: Lease) -> bool {
        self.renewed.elapsed() >= RENEW_AFTER.min(lease.length / 6)
    }

    pub(crate) fn is_progress_due(&self) -> bool {
        self.progress_told
            .is_none_or(|told| told.elapsed() >= PROGRESS_INTERVAL)
    }
}

/// The events that tell of `progress`.
pub(crate) fn progress_events(told: &Snapshot, progress: Progress) -> Vec<JobEvent> {
    let Progress {
        phase,
        percent,
        words,
    } = progress;
    let mut events = Vec::new();
    if told.phase != Some(phase) {
        events.push(JobEvent::Phase { phase });
    }
    if told.progress != (SnapshotProgress { percent, words }) {
        events.push(JobEvent::Progress { percent, words });
    }
    events
}

/// The events that tell what is new of `sources`.
pub(crate) fn source_events(told: &Snapshot, sources: &[SnapshotSource]) -> Vec<JobEvent> {
    let news = sources
        .iter()
        .filter(|source| !told.sources.contains(source));
    news.cloned().map(JobEvent::Source).collect()
}

/// The events that make what was told the same as `view`.
pub(crate) fn text_events(told: &Snapshot, view: &PostView) -> Vec<JobEvent> {
    let mut events = Vec::new();
    let headings = |sections: &[SnapshotSection]| -> Vec<OutlineSection> {
        let headings = sections.iter().map(|section| section.heading.clone());
        headings.map(|heading| OutlineSection { heading }).collect()
    };
    let sections = headings(&view.sections);
    if told.title != view.title || headings(&told.sections) != sections {
        let gone = told.sections.iter().enumerate().skip(sections.len());
        let gone = gone.filter(|(_, section)| !section.text.is_empty());
        events.extend(gone.map(|(at, _)| JobEvent::SectionReset { section: at as u32 }));
        let title = view.title.clone();
        events.push(JobEvent::Outline { title, sections });
    }
    for (at, now) in view.sections.iter().enumerate() {
        let section = at as u32;
        let before = told.sections.get(at);
        let text = before.map_or("", |before| before.text.as_str());
        let added = now.text.strip_prefix(text);
        if added.is_none() {
            events.push(JobEvent::SectionReset { section });
        }
        let text = added.unwrap_or(&now.text);
        if !text.is_empty() {
            let text = text.to_owned();
            events.push(JobEvent::Delta { section, text });
        }
        let was_done = added.is_some() && before.is_some_and(|before| before.done);
        if now.done && !was_done {
            events.push(JobEvent::SectionDone {
                section,
                heading: now.heading.clone(),
                words: word_count(&now.text),
            });
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(title: &str, sections: &[(&str, &str)]) -> PostView {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        PostView {
            title: some(title),
            sections: sections
                .iter()
                .map(|(heading, text)| SnapshotSection {
                    heading: some(heading),
                    text: (*text).to_owned(),
                    done: false,
                })
                .collect(),
        }
    }

    fn names(events: &[JobEvent]) -> Vec<String> {
        let json = events
            .iter()
            .map(|event| serde_json::to_value(event).unwrap());
        let names = json.map(|event| event["event"].as_str().unwrap().to_owned());
        names.collect()
    }

    #[test]
    fn events_tell_of_what_is_new_alone() {
        let mut told = Snapshot::default();
        for (now, expected) in [
            (view("T", &[]), vec!["outline"]),
            (view("T", &[("", "It is")]), vec!["outline", "delta"]),
            (view("T", &[("", "It is red.")]), vec!["delta"]),
            (view("T", &[("", "It is red.")]), vec![]),
            (
                view("T", &[("", "It is red."), ("Sun", "Much")]),
                vec!["outline", "delta"],
            ),
            (
                view("T", &[("", "It is red."), ("Sun", "Little")]),
                vec!["section.reset", "delta"],
            ),
            (
                view("T", &[("", "It is red.")]),
                vec!["section.reset", "outline"],
            ),
            (view("U", &[("", "It is red.")]), vec!["outline"]),
        ] {
            let events = text_events(&told, &now);
            assert_eq!(names(&events), expected, "{now:?}");
            events.iter().for_each(|event| told.apply(event));
            assert_eq!((&told.title, &told.sections), (&now.title, &now.sections));
        }
    }

    #[test]
    fn a_section_is_done_once_and_again_when_it_was_written_again() {
        let mut told = Snapshot::default();
        let mut now = view("T", &[("Sun", "Much of it.")]);
        now.sections[0].done = true;
        let mut tell = |now: &PostView| {
            let events = text_events(&told, now);
            events.iter().for_each(|event| told.apply(event));
            names(&events)
        };
        assert_eq!(tell(&now), ["outline", "delta", "section.done"]);
        assert_eq!(tell(&now), Vec::<String>::new());
        now.sections[0].text = "Little.".to_owned();
        assert_eq!(tell(&now), ["section.reset", "delta", "section.done"]);
    }
}
