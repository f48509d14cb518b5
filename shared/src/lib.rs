//! What the API and the workers must agree on: the settings that both read, how
//! the database is opened, the queue between them, how they log and are measured.

pub mod changes;
pub mod clock;
pub mod config;
pub mod database;
pub mod log;
pub mod metrics;
pub mod migrate;
pub mod private_file;
pub mod prune;
pub mod queue;
pub mod stop;
pub mod trace;
