//! Helpers that tests of several crates share: a database for each test, and stubs of
//! the agents' providers.

pub mod stub;
pub mod stub_openai;
mod test_database;

pub use test_database::{TestDatabase, block_in_thread};
