//! What the API and the workers must agree on: the settings that both read, how
//! the database is opened, the queue between them, how they log and are measured.

pub mod change_watcher;
pub mod cleanup;
pub mod clock;
pub mod config;
pub mod database;
pub mod log;
pub mod metrics;
pub mod migrate;
pub mod private_file;
pub mod queue;
pub mod shutdown;
pub mod trace;
