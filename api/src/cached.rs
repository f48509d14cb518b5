//! What is looked up once in a while, however often it is asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tracing::Instrument;

/// A value that is at most so old. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Cached<T> {
    max_age: Duration,
    last: Arc<Mutex<Option<(Instant, T)>>>,
}

impl<T: Clone + Send + 'static> Cached<T> {
    /// Nothing yet; what is looked up is good for `max_age`.
    pub(crate) fn new(max_age: Duration) -> Self {
        Cached {
            max_age,
            last: Arc::default(),
        }
    }

    /// The value. One task at a time looks it up, and to the end even if nobody
    /// waits for it any longer. None if that panics.
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
