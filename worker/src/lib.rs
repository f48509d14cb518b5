//! Takes jobs from the queue and has an agent write the posts.
//!
//! [`run`] wires a worker together. The [`runner`] claims jobs, an [`attempt`] is one
//! try at a job, [`writing::pipeline`] is what it does, and [`outcome`] is how it ended.
//! [`maintenance`] runs beside them.

pub mod agent;
mod attempt;
pub mod config;
mod init;
mod job_store;
mod live_text;
pub mod maintenance;
pub mod metrics;
mod metrics_server;
mod outcome;
pub mod program;
mod runner;
mod sources;
mod telemetry;
pub mod writing;

pub use runner::run;
pub use sources::Researcher;
