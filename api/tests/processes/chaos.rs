//! Everything dies while load runs, and then the books must balance: see
//! [`invariants`].
//!
//! Among all other tests these are short; `make chaos` makes them long.

mod invariants;
mod load;
mod worker_pool;

mod agent;
mod clocks;
mod connections;
mod disk;
mod frozen;
mod kills;

use std::time::Duration;

use rand::RngExt;
use testing::TestResponse;
use tokio::time::{Instant, sleep};

use crate::support::{ScriptedAgent, Service};

/// How long the load runs.
fn length() -> Duration {
    let seconds = std::env::var("CHAOS_SECONDS").ok();
    let seconds = seconds.map_or(3, |seconds| seconds.parse().expect("CHAOS_SECONDS"));
    Duration::from_secs(seconds)
}

/// Does something again and again while the load runs, with pauses of up to
/// `longest`.
async fn again_and_again(longest: Duration, mut what: impl AsyncFnMut()) {
    let end = Instant::now() + length();
    while Instant::now() < end {
        let share = rand::rng().random_range(0.1..=1.0);
        sleep(longest.mul_f64(share)).await;
        what().await;
    }
}

/// A service in which no job fails just because its workers died too often.
fn service(writer: &ScriptedAgent) -> Service {
    Service::of(writer)
        .set("JOB_MAX_ATTEMPTS", "100")
        .set("USER_MAX_ACTIVE_JOBS", "1000")
}

/// The client is told to ask again.
fn is_unavailable(answer: &TestResponse) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.body["code"], "unavailable");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
}
