//! What happens to a job, told to those who watch it. Each event is stored in the transaction of
//! what it tells, with the next number of its job.

mod compact;
mod signal;
mod snapshot;

use entity::job::{self, Phase, Status};
use entity::job_event;
use sea_orm::entity::prelude::*;
use sea_orm::{ConnectionTrait, Set};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use compact::{Compacted, compact_finished};
pub use signal::EventSignal;
pub(crate) use signal::notify;
pub use snapshot::{Snapshot, SnapshotProgress, SnapshotSection};

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
    /// The event's name and its data as a JSON object.
    pub fn to_parts(&self) -> Result<(String, Json), DbErr> {
        let error = |e: serde_json::Error| DbErr::Json(e.to_string());
        let parts = serde_json::to_value(self).map_err(error)?;
        let Parts { event, data } = serde_json::from_value(parts).map_err(error)?;
        Ok((event, data))
    }

    /// The event of a row. None if a newer version has written it.
    pub fn read(row: &job_event::Model) -> Option<JobEvent> {
        let parts = Parts {
            event: row.kind.clone(),
            data: serde_json::from_str(&row.data).ok()?,
        };
        serde_json::from_value(serde_json::to_value(parts).ok()?).ok()
    }
}

#[derive(Serialize, Deserialize)]
struct Parts {
    event: String,
    data: Json,
}

/// Inserts events with the numbers that their jobs' rows have counted in the same transaction.
pub(crate) async fn insert(
    db: &impl ConnectionTrait,
    events: impl IntoIterator<Item = (Uuid, i32, JobEvent)>,
) -> Result<(), DbErr> {
    let mut rows = Vec::new();
    for (job, seq, event) in events {
        let (kind, data) = event.to_parts()?;
        rows.push(job_event::ActiveModel {
            job_id: Set(job),
            seq: Set(seq),
            kind: Set(kind),
            data: Set(data.to_string()),
        });
    }
    for some in rows.chunks(MAX_ROWS) {
        job_event::Entity::insert_many(some.to_vec())
            .exec_without_returning(db)
            .await?;
    }
    Ok(())
}

/// Makes the end of a job, which is about to be queued again, a change of its status.
pub(crate) async fn replace_end(db: &impl ConnectionTrait, job: &job::Model) -> Result<(), DbErr> {
    let status = JobEvent::Status {
        status: job.status,
        attempt: job.attempt,
    };
    let (kind, data) = status.to_parts()?;
    job_event::Entity::replace_end(db, job.id, &kind, &data.to_string()).await
}

/// How many rows one statement has: databases limit its parameters.
const MAX_ROWS: usize = 1000;
