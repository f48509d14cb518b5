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

/// How long something may take that waits for nothing, on a machine that is busy with other tests.
/// The faults that this tells take longer than it.
pub const SOON: Duration = Duration::from_secs(10);

/// How long a cancel or a stop may take: less than the 5 s after which a process gives up closing its
/// database, and than the third of a lease that a cancel would take if none was renewed more often.
pub const AT_ONCE: Duration = Duration::from_secs(4);

/// Asserts that it was no longer ago than `SOON`.
#[track_caller]
pub fn assert_soon(since: Instant) {
    let took = since.elapsed();
    assert!(took < SOON, "it took {took:?}");
}
