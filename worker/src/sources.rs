//! What a post is written from: pages and texts, which are read once, and the passages in them that
//! have to do with what is being written.

mod addresses;
mod extract;
mod fetch;
mod passages;

use std::time::Duration;

use entity::job::{Phase, Warning, WarningCode};
use entity::source::{self, ReadSource, Status};
use shared::queue::Progress;
use tokio::time::{Instant, timeout, timeout_at};

use crate::attempt::{Attempt, ProgressTracker};
use crate::outcome::AttemptError;

pub use fetch::Fetcher;
pub(crate) use passages::{Passage, Passages, without_ending};

/// How long reading may take, for all sources of a post. It goes on with those that it has.
const MAX_READING: Duration = Duration::from_secs(120);

/// How long it may take to find the text of a page.
const MAX_EXTRACTION: Duration = Duration::from_secs(20);

/// A source that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// As citations name it.
    pub(crate) number: u32,
    pub(crate) url: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) site: Option<String>,
    pub(crate) text: String,
}

impl Source {
    fn from_row(row: source::Model) -> Option<Self> {
        let is_read = row.status == Some(Status::Read);
        Some(Source {
            number: row.number.try_into().ok()?,
            url: row.url,
            title: row.title,
            site: row.site,
            text: row.text.filter(|_| is_read)?,
        })
    }

    /// What it is called: by its title, or by its address.
    pub(crate) fn name(&self) -> &str {
        let title = self.title.as_deref().filter(|title| !title.is_empty());
        title.or(self.url.as_deref()).unwrap_or("–")
    }
}

/// The sources of a post that were read, with their passages.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) list: Vec<Source>,
    pub(crate) passages: Passages,
}

/// Reads the sources of an attempt's post, those that no attempt has read yet. None if the post is
/// written without any.
pub(crate) async fn read(
    attempt: &Attempt,
    fetcher: &Fetcher,
) -> Result<Option<Sources>, AttemptError> {
    if !attempt.is_sourced() {
        return Ok(None);
    }
    let rows = attempt.sources().await?;
    let is_unread = rows.iter().any(|row| row.status.is_none());
    if is_unread {
        let tracker = tracker(Phase::Reading);
        let reading = async {
            let until = Instant::now() + MAX_READING;
            for row in rows.iter().filter(|row| row.status.is_none()) {
                let found = timeout_at(until, read_source(fetcher, row)).await;
                let found = found.unwrap_or_else(|_| unread(Status::Unreachable));
                tracing::info!(number = row.number, status = ?found.status, "read a source");
                attempt.store_source(row, found).await?;
            }
            Ok::<_, AttemptError>(())
        };
        attempt.run(&tracker, reading).await??;
    }
    let rows = attempt.sources().await?;
    let list: Vec<Source> = rows.into_iter().filter_map(Source::from_row).collect();
    let topic = attempt.topic().to_owned();
    let checking = tokio::task::spawn_blocking(move || {
        let texts = list
            .iter()
            .map(|source| (source.number, source.text.as_str()));
        let passages = Passages::new(texts);
        let is_relevant = passages.has_any_about(&topic);
        is_relevant.then_some(Sources { list, passages })
    });
    let checked = attempt.run(&tracker(Phase::Checking), checking).await?;
    let checked = checked.map_err(|panic| AttemptError::Panicked(panic.to_string()))?;
    match checked {
        Some(sources) => Ok(Some(sources)),
        None if attempt.options()["without_sources"] == "write" => {
            let text = "nothing in the sources has to do with the topic";
            attempt
                .warn([Warning::new(WarningCode::NoSources, None, text)])
                .await?;
            Ok(None)
        }
        None => Err(AttemptError::NoSources),
    }
}

fn tracker(phase: Phase) -> ProgressTracker {
    ProgressTracker::new(Progress {
        phase,
        percent: 0,
        words: 0,
    })
}

async fn read_source(fetcher: &Fetcher, row: &source::Model) -> ReadSource {
    let found = match &row.url {
        Some(url) => match fetcher.fetch(url).await {
            Ok(page) => in_background(move || extract::read_page(&page)).await,
            Err(status) => Err(status),
        },
        None => {
            let text = row.text.clone().unwrap_or_default();
            in_background(move || extract::read_text(&text)).await
        }
    };
    found.unwrap_or_else(unread)
}

fn unread(status: Status) -> ReadSource {
    ReadSource {
        status,
        title: None,
        site: None,
        author: None,
        published_at: None,
        text: None,
    }
}

/// Off the threads that others wait for. What panics in a page of others' is a page that can't be read.
async fn in_background(
    read: impl FnOnce() -> Result<ReadSource, Status> + Send + 'static,
) -> Result<ReadSource, Status> {
    let read = timeout(MAX_EXTRACTION, tokio::task::spawn_blocking(read)).await;
    match read {
        Ok(Ok(read)) => read,
        Ok(Err(_)) | Err(_) => Err(Status::Unsupported),
    }
}
