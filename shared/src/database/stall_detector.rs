//! Detects an unresponsive Postgres server by timeouts.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sea_orm::{DbErr, RuntimeErr};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// How long after a timeout connections are tested before they are used again.
const SUSPECT_FOR: Duration = Duration::from_secs(60);

/// Remembers the last timeout, and notifies of new ones.
#[derive(Debug, Default)]
pub(super) struct StallDetector {
    last: Mutex<Option<Instant>>,
    timed_out: Notify,
}

impl StallDetector {
    /// Awaits `work` for at most `limit`. A timeout is recorded before `work` is dropped, so that
    /// the pool tests its connection.
    pub(super) async fn with_timeout<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, DbErr> {
        let mut work = pin!(work);
        if let Ok(done) = timeout(limit, work.as_mut()).await {
            return Ok(done);
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.timed_out.notify_waiters();
        let why = "the database did not answer in time".to_owned();
        Err(DbErr::Conn(RuntimeErr::Internal(why)))
    }

    /// Whether there was a timeout lately.
    pub(super) fn is_recent(&self) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() < SUSPECT_FOR)
    }

    /// Waits for the next timeout.
    pub(super) async fn stalled(&self) {
        self.timed_out.notified().await;
    }
}
