//! Helpers that tests of several crates share: a database for each test, a client of
//! the API, and stubs of the agents' providers.

use std::time::{Duration, Instant};

mod client;
mod event_reader;
mod json;
pub mod stub;
pub mod stub_openai;
mod test_database;
mod writing;

pub use client::{PASSWORD, TestClient, TestResponse, job_path, post_path};
pub use event_reader::EventReader;
pub use json::{assert_fields, is_finished, outcomes, text, time};
pub use test_database::{TestDatabase, block_in_thread, copy_migrated_sqlite};
pub use writing::{HEADINGS, OUTLINE, at_first, requested_part, write_part};

/// No test waits longer for anything.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Asserts that it was not longer ago.
#[track_caller]
pub fn assert_within(limit: Duration, since: Instant) {
    let took = since.elapsed();
    assert!(took < limit, "it took {took:?}");
}
