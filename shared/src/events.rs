//! What happens to a job, told to those who watch it. Each event is stored in the transaction of
//! what it tells, with the next number of its job.

mod compact;
mod raise;
mod signal;
mod snapshot;

use entity::job::{self, Phase, Status};
use entity::job_event;
use sea_orm::entity::prelude::*;
use sea_orm::{ConnectionTrait, IntoActiveModel, QuerySelect, Set};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use compact::{Compacted, compact_finished};
pub(crate) use raise::raise_numbers;
pub(crate) use signal::notify;
pub use signal::{CONNECTIONS, EventSignal};
pub use snapshot::{Snapshot, SnapshotProgress, SnapshotSection, SnapshotSource};

/// An event of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", content = "data")]
pub enum JobEvent {
    /// The job's status has changed, or another attempt has begun.
    #[serde(rename = "status")]
    Status {
        /// The new status.
        status: Status,
        /// The number of the attempt.
        attempt: i32,
    },
    /// The attempt is in another phase.
    #[serde(rename = "phase")]
    Phase {
        /// The new phase.
        phase: Phase,
    },
    /// All so far, in one: for who has no earlier event, or whose next one is not kept any more.
    /// It is never stored.
    #[serde(rename = "snapshot")]
    Snapshot(Snapshot),
    /// A source was found, or it is known what became of reading it.
    #[serde(rename = "source")]
    Source(SnapshotSource),
    /// The title and the headings, as far as they are known. Replaces an earlier outline; sections
    /// that are not in it are gone.
    #[serde(rename = "outline")]
    Outline {
        /// Null until it is known.
        title: Option<String>,
        /// The sections, in order.
        sections: Vec<OutlineSection>,
    },
    /// Text to be put behind that of a section.
    #[serde(rename = "delta")]
    Delta {
        /// Counted from 0.
        section: u32,
        /// Markdown.
        text: String,
    },
    /// What the section had is void: it begins anew.
    #[serde(rename = "section.reset")]
    SectionReset {
        /// Counted from 0.
        section: u32,
    },
    /// The section is written.
    #[serde(rename = "section.done")]
    SectionDone {
        /// Counted from 0.
        section: u32,
        /// Null for an introduction.
        heading: Option<String>,
        /// How many words it has.
        words: i32,
    },
    /// How far the job is.
    #[serde(rename = "progress")]
    Progress {
        /// 0 to 100.
        percent: i32,
        /// Words written so far.
        words: i32,
    },
    /// The job has finished.
    #[serde(rename = "end")]
    End {
        /// The final status.
        status: Status,
        /// Why it failed.
        error: Option<EndError>,
        /// The version of the post that the job has made; null if it has made none.
        version: Option<i32>,
    },
}

/// A section of an outline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutlineSection {
    /// Null for an introduction.
    pub heading: Option<String>,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndError {
    /// For programs; stable.
    pub code: String,
    /// For people.
    pub message: String,
    /// Whether another attempt could help.
    pub retryable: bool,
}

impl JobEvent {
    /// An event that is stored as JSON. None if a newer version has written it.
    pub fn read(event: &Json) -> Option<JobEvent> {
        JobEvent::deserialize(event).ok()
    }

    /// The event that a job has its present status.
    pub fn status(job: &job::Model) -> JobEvent {
        JobEvent::Status {
            status: job.status,
            attempt: job.attempt,
        }
    }

    /// The event that a job has finished, with the version of the post that it has made.
    pub fn end(job: &job::Model, version: Option<i32>) -> JobEvent {
        let error = |code: String| EndError {
            code,
            message: job.error_message.clone().unwrap_or_default(),
            retryable: job.error_retryable.unwrap_or_default(),
        };
        JobEvent::End {
            status: job.status,
            error: job.error_code.clone().map(error),
            version,
        }
    }

    /// The event that a job is queued, which is its first one.
    pub fn queued() -> JobEvent {
        JobEvent::Status {
            status: Status::Queued,
            attempt: 0,
        }
    }
}

/// Events of one job that were stored together.
#[derive(Debug)]
pub struct StoredEvents {
    /// The number of the first.
    pub first: i32,
    /// JSON objects with `event` and `data`.
    pub events: Vec<Json>,
}

impl StoredEvents {
    /// The events of a row.
    pub fn read(row: &job_event::Model) -> serde_json::Result<StoredEvents> {
        let events: Vec<Json> = serde_json::from_str(&row.data)?;
        Ok(StoredEvents {
            first: row.seq + 1 - events.len() as i32,
            events,
        })
    }
}

/// The kinds of rows that are not compacted.
const EVENTS: &str = "events";
pub(crate) const END: &str = "end";

/// Inserts the events of jobs, each with the number of its last one, which the job's row has
/// counted in the same transaction.
pub(crate) async fn insert(
    db: &impl ConnectionTrait,
    events: impl IntoIterator<Item = (Uuid, i32, Vec<JobEvent>)>,
) -> Result<(), DbErr> {
    let mut rows = Vec::new();
    for (job, last, events) in events {
        let is_end = matches!(events.last(), Some(JobEvent::End { .. }));
        rows.push(job_event::ActiveModel {
            job_id: Set(job),
            seq: Set(last),
            kind: Set(if is_end { END } else { EVENTS }.to_owned()),
            data: Set(to_json(&events)?),
        });
    }
    if rows.is_empty() {
        return Ok(());
    }
    job_event::Entity::insert_many(rows)
        .exec_without_returning(db)
        .await?;
    Ok(())
}

/// Makes the end of a job, which is about to be queued again, a change of its status.
pub(crate) async fn replace_end(db: &impl ConnectionTrait, job: &job::Model) -> Result<(), DbErr> {
    let ends = job_event::Entity::of_job(job.id).filter(job_event::Column::Kind.eq(END));
    // It may be about to be compacted: then it is an end no more.
    for row in ends.lock_exclusive().all(db).await? {
        let json = |error: serde_json::Error| DbErr::Json(error.to_string());
        let mut events = StoredEvents::read(&row).map_err(json)?.events;
        events.pop();
        events.push(serde_json::to_value(JobEvent::status(job)).map_err(json)?);
        let mut row = row.into_active_model();
        row.kind = Set(EVENTS.to_owned());
        row.data = Set(to_json(&events)?);
        row.update(db).await?;
    }
    Ok(())
}

fn to_json(events: &impl Serialize) -> Result<String, DbErr> {
    serde_json::to_string(events).map_err(|error| DbErr::Json(error.to_string()))
}
