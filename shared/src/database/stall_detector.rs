//! A server that has vanished without a word, as far as it is noticed.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sea_orm::{DbErr, RuntimeErr};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// For how long a server that was silent is not trusted.
const SUSPECT_FOR: Duration = Duration::from_secs(60);

/// Knows when a server was last silent, and tells those who wait to hear of it.
#[derive(Debug, Default)]
pub(super) struct StallDetector {
    last: Mutex<Option<Instant>>,
    told: Notify,
}

impl StallDetector {
    /// What `work` brings, or an error if it takes too long. That is told before
    /// the work is dropped, and its connection with it.
    pub(super) async fn with_timeout<T>(
        &self,
        longest: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, DbErr> {
        let mut work = pin!(work);
        if let Ok(done) = timeout(longest, work.as_mut()).await {
            return Ok(done);
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.told.notify_waiters();
        let why = "the database did not answer in time".to_owned();
        Err(DbErr::Conn(RuntimeErr::Internal(why)))
    }

    /// Whether the server was silent a while ago.
    pub(super) fn is_recent(&self) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() < SUSPECT_FOR)
    }

    /// Waits until the server is silent the next time.
    pub(super) async fn stalled(&self) {
        self.told.notified().await;
    }
}
