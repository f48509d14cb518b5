//! What the API and the workers must agree on: the settings that both read, how
//! the database is opened, the queue between them, and how they log.

pub mod changes;
pub mod config;
pub mod database;
pub mod log;
pub mod queue;
pub mod stop;
