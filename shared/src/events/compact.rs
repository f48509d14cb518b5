//! What is kept of the events of finished jobs: one row.

use chrono::TimeDelta;
use entity::clock::now;
use entity::job_event::{Column, Entity, Model};
use sea_orm::entity::prelude::*;
use sea_orm::{DatabaseTransaction, DbErr};
use serde::{Deserialize, Serialize};

use super::{END, JobEvent, Snapshot, StoredEvents};

/// The kind of the row.
const KIND: &str = "compacted";

/// So long all events of a finished job are kept, for those who are watching it.
const DELAY: TimeDelta = TimeDelta::minutes(1);

/// What the events of a job tell up to its end. A row with it takes their place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compacted {
    /// What the events before the end told.
    pub snapshot: Snapshot,
    /// The end, which has the row's number; None before.
    pub end: Option<JobEvent>,
}

impl Compacted {
    /// What a row has that is one of these.
    pub fn read(row: &Model) -> Option<Compacted> {
        let is_compacted = row.kind == KIND;
        is_compacted
            .then(|| serde_json::from_str(&row.data).ok())
            .flatten()
    }

    /// What the events tell together.
    pub fn state(mut self) -> Snapshot {
        if let Some(end) = &self.end {
            self.snapshot.apply(end);
        }
        self.snapshot
    }

    /// What `rows`, a job's events in order, tell.
    pub fn of(rows: &[Model]) -> Self {
        let mut snapshot = Snapshot::default();
        let mut end = None;
        for row in rows {
            if let Some(earlier) = Compacted::read(row) {
                snapshot = earlier.snapshot;
                end = earlier.end;
                continue;
            }
            // An end after which the job was retried was a change of status.
            if let Some(earlier) = end.take() {
                snapshot.apply(&earlier);
            }
            let events = StoredEvents::read(row).map_or(Vec::new(), |stored| stored.events);
            for event in events.iter().filter_map(JobEvent::read) {
                match event {
                    JobEvent::End { .. } => end = Some(event),
                    event => snapshot.apply(&event),
                }
            }
        }
        Compacted { snapshot, end }
    }
}

/// Compacts the events of up to `limit` jobs that have finished some time ago, and returns how
/// many.
pub async fn compact_finished(tx: &DatabaseTransaction, limit: u64) -> Result<u64, DbErr> {
    let jobs = Entity::uncompacted(tx, now() - DELAY, limit).await?;
    for job in &jobs {
        compact(tx, *job).await?;
    }
    Ok(jobs.len() as u64)
}

async fn compact(tx: &DatabaseTransaction, job: Uuid) -> Result<(), DbErr> {
    let rows = Entity::of_job(job).all(tx).await?;
    // It may have been retried since.
    let Some(last) = rows.last().filter(|last| last.kind == END) else {
        return Ok(());
    };
    let compacted = serde_json::to_string(&Compacted::of(&rows));
    let compacted = compacted.map_err(|error| DbErr::Json(error.to_string()))?;
    Entity::delete_many()
        .filter(Column::JobId.eq(job))
        .filter(Column::Seq.lt(last.seq))
        .exec(tx)
        .await?;
    Entity::update_many()
        .col_expr(Column::Kind, Expr::value(KIND))
        .col_expr(Column::Data, Expr::value(compacted))
        .filter(Column::JobId.eq(job))
        .filter(Column::Seq.eq(last.seq))
        .exec(tx)
        .await?;
    Ok(())
}
