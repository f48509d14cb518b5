//! A value that is looked up at most once in a while.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::Instrument;

/// A value with a maximum age. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Cached<T> {
    max_age: Duration,
    last: Arc<Mutex<Option<(Instant, T)>>>,
}

impl<T: Clone + Send + 'static> Cached<T> {
    pub(crate) fn new(max_age: Duration) -> Self {
        Cached {
            max_age,
            last: Arc::default(),
        }
    }

    /// The value. One task at a time looks it up, and completes that even if the caller is gone.
    /// None if it panics.
    pub(crate) async fn get(&self, look_up: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let mut last = self.last.clone().lock_owned().await;
        if let Some((_, value)) = last.as_ref().filter(|(at, _)| at.elapsed() < self.max_age) {
            return Some(value.clone());
        }
        let look_up = async move {
            let value = look_up.await;
            *last = Some((Instant::now(), value.clone()));
            value
        };
        tokio::spawn(look_up.in_current_span()).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_value_is_looked_up_once_in_a_while_however_many_ask() {
        let cached = Cached::new(Duration::from_secs(1));
        let looks = Arc::new(AtomicUsize::new(0));
        let get = || {
            let looks = looks.clone();
            cached.get(async move {
                sleep(Duration::from_millis(100)).await;
                looks.fetch_add(1, Ordering::Relaxed)
            })
        };
        assert_eq!(join_all([get(), get(), get()]).await, [Some(0); 3]);
        advance(Duration::from_millis(500)).await;
        assert_eq!(get().await, Some(0));
        advance(Duration::from_millis(500)).await;
        assert_eq!(get().await, Some(1));
    }
}
