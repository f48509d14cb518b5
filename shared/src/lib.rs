//! What the API and the workers share: settings, the database, the queue, logging, metrics and
//! traces.

pub mod batcher;
pub mod change_watcher;
pub mod cleanup;
pub mod clock;
pub mod config;
pub mod database;
pub mod events;
pub mod log;
pub mod metrics;
pub mod migrate;
pub mod private_file;
pub mod queue;
pub mod shutdown;
pub mod trace;
pub mod wal_index;
