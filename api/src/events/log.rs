//! The events of one job, as its readers get them.

use std::collections::VecDeque;
use std::sync::Arc;

use entity::job_event;
use serde::Serialize;
use serde_json::Value;
use shared::events::{Compacted, JobEvent, Snapshot, StoredEvents};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{Error, Result};

/// So much is kept for readers. One that is further behind is let go, and comes back by its
/// number.
const MAX_BYTES: usize = 256 * 1024;

/// An event as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Its number.
    pub(crate) seq: i32,
    /// Its name.
    pub(crate) name: String,
    /// Its data, a JSON object.
    pub(crate) data: Arc<str>,
}

/// Links from the end of a job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndLinks {
    #[serde(rename = "self")]
    itself: String,
    blog: String,
}

/// What a reader is to get next.
#[derive(Debug)]
pub(super) enum Next {
    Frames(Vec<Frame>),
    /// Nothing, until there are new events.
    Wait,
    /// Events that are not kept here any more.
    Behind,
    /// Nothing: the job has finished, or is deleted.
    Over,
}

/// The latest events of a job.
#[derive(Debug)]
pub(super) struct EventLog {
    post: Uuid,
    job: Uuid,
    /// What all events tell together, but for the end.
    snapshot: Snapshot,
    /// The end, if the job has not been retried since.
    end: Option<JobEvent>,
    /// The number of the last event.
    last: i32,
    /// The last events, without gaps between them.
    recent: VecDeque<Frame>,
    recent_bytes: usize,
    is_deleted: bool,
}

impl EventLog {
    /// The log of a job, with its first event, which is not stored.
    pub(super) fn new(job: Uuid, post: Uuid) -> Result<Self> {
        let mut log = EventLog {
            post,
            job,
            snapshot: Snapshot::default(),
            end: None,
            last: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
            is_deleted: false,
        };
        let queued = serde_json::to_value(JobEvent::queued()).map_err(Error::internal)?;
        log.add(1, queued)?;
        Ok(log)
    }

    pub(super) fn post(&self) -> Uuid {
        self.post
    }

    pub(super) fn last(&self) -> i32 {
        self.last
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    pub(super) fn delete(&mut self) {
        self.is_deleted = true;
    }

    /// Adds the next rows; events that it has already are ignored.
    pub(super) fn append(&mut self, rows: Vec<job_event::Model>) -> Result<()> {
        for row in rows {
            if row.seq <= self.last {
                continue;
            }
            let Some(compacted) = Compacted::read(&row) else {
                let StoredEvents { first, events } =
                    StoredEvents::read(&row).map_err(Error::internal)?;
                if first > self.last + 1 {
                    // The numbers were raised by a restore: no event follows on an earlier one.
                    self.recent.clear();
                    self.recent_bytes = 0;
                }
                for (seq, event) in (first..).zip(events) {
                    if seq > self.last {
                        self.add(seq, event)?;
                    }
                }
                continue;
            };
            self.snapshot = compacted.snapshot;
            self.recent.clear();
            self.recent_bytes = 0;
            match compacted.end {
                Some(end) => self.end(row.seq, end)?,
                None => {
                    self.end = None;
                    self.last = row.seq;
                }
            }
        }
        Ok(())
    }

    /// Adds the end of a job whose worker, of an earlier version, has told of none. `text` is what
    /// it has written, if nothing was told of that either.
    pub(super) fn add_missing_end(&mut self, text: Option<Snapshot>, end: JobEvent) -> Result<()> {
        if let Some(text) = text {
            self.snapshot = text;
            self.recent.clear();
            self.recent_bytes = 0;
            self.last += 1;
        }
        self.end(self.last + 1, end)
    }

    fn add(&mut self, seq: i32, mut event: Value) -> Result<()> {
        self.reopen()?;
        match JobEvent::read(&event) {
            Some(end @ JobEvent::End { .. }) => return self.end(seq, end),
            Some(event) => self.snapshot.apply(&event),
            // A newer version's: for clients that know it.
            None => {}
        }
        let name = event["event"].as_str().unwrap_or_default().to_owned();
        self.push(frame(seq, name, event["data"].take()));
        Ok(())
    }

    fn end(&mut self, seq: i32, end: JobEvent) -> Result<()> {
        let mut event = serde_json::to_value(&end).map_err(Error::internal)?;
        let links = EndLinks {
            itself: format!("/api/v1/jobs/{}", self.job),
            blog: format!("/api/v1/blogs/{}", self.post),
        };
        event["data"]["links"] = serde_json::to_value(links).map_err(Error::internal)?;
        self.push(frame(seq, "end".to_owned(), event["data"].take()));
        self.end = Some(end);
        Ok(())
    }

    /// The job was retried: its end was a change of its status, after which more follows.
    fn reopen(&mut self) -> Result<()> {
        let Some(end) = self.end.take() else {
            return Ok(());
        };
        self.snapshot.apply(&end);
        let status = JobEvent::Status {
            status: self.snapshot.status,
            attempt: self.snapshot.attempt,
        };
        let mut status = serde_json::to_value(status).map_err(Error::internal)?;
        if let Some(last) = self.recent.back_mut() {
            *last = frame(last.seq, "status".to_owned(), status["data"].take());
        }
        Ok(())
    }

    fn push(&mut self, frame: Frame) {
        self.last = frame.seq;
        self.recent_bytes += frame.data.len();
        self.recent.push_back(frame);
        while self.recent_bytes > MAX_BYTES && self.recent.len() > 1 {
            let oldest = self.recent.pop_front();
            self.recent_bytes -= oldest.map_or(0, |frame| frame.data.len());
        }
    }

    /// What follows the event `after`. Without one, or with one that is yet to come, all in one.
    pub(super) fn next(&self, after: Option<i32>) -> Result<Next> {
        if self.is_deleted {
            return Ok(Next::Over);
        }
        let Some(after) = after.filter(|after| *after <= self.last) else {
            return self.all_in_one().map(Next::Frames);
        };
        if after == self.last {
            return Ok(if self.has_ended() {
                Next::Over
            } else {
                Next::Wait
            });
        }
        let first = self.recent.front().map(|frame| frame.seq);
        if first.is_none_or(|first| first > after + 1) {
            return Ok(Next::Behind);
        }
        let frames = self.recent.iter().filter(|frame| frame.seq > after);
        Ok(Next::Frames(frames.cloned().collect()))
    }

    /// A snapshot, and the end, if the job has finished.
    pub(super) fn all_in_one(&self) -> Result<Vec<Frame>> {
        let end = self.recent.back().filter(|_| self.has_ended());
        let seq = end.map_or(self.last, |end| end.seq - 1);
        let data = serde_json::to_value(&self.snapshot).map_err(Error::internal)?;
        let snapshot = frame(seq, "snapshot".to_owned(), data);
        Ok([snapshot].into_iter().chain(end.cloned()).collect())
    }
}

fn frame(seq: i32, name: String, mut data: Value) -> Frame {
    data["seq"] = seq.into();
    Frame {
        seq,
        name,
        data: data.to_string().into(),
    }
}
