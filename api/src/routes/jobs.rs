//! A user's generation jobs.

pub(crate) mod cancel;
pub(crate) mod events;
pub(crate) mod list;
pub(crate) mod read;
mod response;
pub(crate) mod retry;

pub(super) use response::{Job, JobSummary, job_response, set_retry_after};
