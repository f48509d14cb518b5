//! What a post is written from: pages and texts, given or found on the web, which are read once, and
//! the passages in them that have to do with what is being written.

mod addresses;
mod extract;
mod fetch;
mod passages;
pub(crate) mod pdf;
mod search;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use entity::job::{Phase, Warning, WarningCode};
use entity::source::{self, ReadSource, Status};
use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use self::fetch::{Fetcher, Page};
use crate::attempt::{Attempt, ProgressTracker};
use crate::config::{Config, own_program};
use crate::outcome::AttemptError;

pub(crate) use passages::{Passage, Passages, without_ending};
pub(crate) use search::{Search, SearchError, best};

/// How many sources of a post are read at once, no two of one host.
const READ_AT_ONCE: usize = 4;

/// How many PDFs a worker reads at once: each may take much memory.
const PDFS_AT_ONCE: usize = 2;

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
    /// Whether the model is asked about citations whose words do not tell.
    pub(crate) asks_model: bool,
}

/// What a post may cost before it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SourceLimits {
    /// How long searching may take, and reading. Each goes on with what it has.
    pub(crate) time: Duration,
    /// How much is read of pages, in bytes. Those that are being read then are read to their ends.
    pub(crate) bytes: usize,
    pub(crate) queries: usize,
    /// How many pages that a search has found.
    pub(crate) pages: usize,
}

/// Finds and reads the sources of posts; one for all jobs of a worker.
#[derive(Debug)]
pub struct Researcher {
    fetcher: Fetcher,
    search: Option<Search>,
    limits: SourceLimits,
    judges_citations: bool,
    /// The worker's own program, which reads PDFs.
    program: PathBuf,
    pdfs: Semaphore,
}

impl Researcher {
    /// A researcher as the settings describe it.
    ///
    /// # Errors
    /// When a setting is missing or can't be read, naming it, or if TLS can't be set up.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(Researcher {
            fetcher: Fetcher::new(&config.source_private_hosts)?,
            judges_citations: config.judge_citations,
            program: own_program()?,
            pdfs: Semaphore::new(PDFS_AT_ONCE),
            search: Search::new(&config.search, config.search_api_key.as_ref())?,
            limits: SourceLimits {
                time: Duration::from_secs(config.source_timeout_secs.into()),
                bytes: config.source_max_bytes as usize,
                queries: config.search_max_queries.into(),
                pages: config.search_max_pages.into(),
            },
        })
    }

    /// The search of the web, if there is one, and its limits.
    pub(crate) fn search(&self) -> Option<(&Search, SourceLimits)> {
        Some((self.search.as_ref()?, self.limits))
    }

    /// Reads the sources of an attempt's post, those that no attempt has read yet. None if the post
    /// is written without any.
    pub(crate) async fn read(&self, attempt: &Attempt) -> Result<Option<Sources>, AttemptError> {
        if !attempt.is_sourced() {
            return Ok(None);
        }
        let unread = attempt.sources().await?.into_iter();
        let unread: Vec<source::Model> = unread.filter(|row| row.status.is_none()).collect();
        if !unread.is_empty() {
            let reading = self.read_all(attempt, unread);
            attempt
                .run(&ProgressTracker::at_start(Phase::Reading), reading)
                .await??;
        }
        let rows = attempt.sources().await?;
        let list: Vec<Source> = rows.into_iter().filter_map(Source::from_row).collect();
        let topic = attempt.topic().to_owned();
        let asks_model = self.judges_citations;
        let checking = tokio::task::spawn_blocking(move || {
            let texts = list
                .iter()
                .map(|source| (source.number, source.text.as_str()));
            let passages = Passages::new(texts);
            let is_relevant = passages.has_any_about(&topic);
            is_relevant.then_some(Sources {
                list,
                passages,
                asks_model,
            })
        });
        let checked = attempt
            .run(&ProgressTracker::at_start(Phase::Checking), checking)
            .await?;
        let checked = checked.map_err(|panic| AttemptError::Panicked(panic.to_string()))?;
        match checked {
            Some(sources) => Ok(Some(sources)),
            None if attempt.writes_without_sources() => {
                let text = "nothing in the sources has to do with the topic";
                attempt
                    .warn([Warning::new(WarningCode::NoSources, None, text)])
                    .await?;
                Ok(None)
            }
            None => Err(AttemptError::NoSources),
        }
    }

    /// Reads sources, some at a time, and stores each as soon as it is read.
    async fn read_all(
        &self,
        attempt: &Attempt,
        unread: Vec<source::Model>,
    ) -> Result<(), AttemptError> {
        let until = Instant::now() + self.limits.time;
        let bytes = AtomicUsize::new(0);
        let reading = unread
            .into_iter()
            .map(|row| self.read_one(attempt, row, until, &bytes));
        let mut reading = stream::iter(reading).buffer_unordered(READ_AT_ONCE);
        while let Some(stored) = reading.next().await {
            stored?;
        }
        Ok(())
    }

    /// Reads a source and stores what was found. `bytes` have been read of the post's pages so far.
    async fn read_one(
        &self,
        attempt: &Attempt,
        row: source::Model,
        until: Instant,
        bytes: &AtomicUsize,
    ) -> Result<(), AttemptError> {
        let is_over = bytes.load(Ordering::Relaxed) > self.limits.bytes;
        let found = if is_over && row.url.is_some() {
            unread_source(Status::TooLarge)
        } else if row.url.is_some() {
            let found = timeout_at(until, self.read_source(&row, bytes)).await;
            found.unwrap_or_else(|_| unread_source(Status::Unreachable))
        } else {
            self.read_source(&row, bytes).await
        };
        tracing::info!(number = row.number, status = ?found.status, "read a source");
        attempt.store_source(&row, found).await
    }

    async fn read_page(&self, page: Page) -> Result<ReadSource, Status> {
        if page.is_pdf() {
            let turn = self.pdfs.acquire().await;
            let document = pdf::read(&self.program, &page.body).await?;
            drop(turn);
            return in_background(move || extract::read_document(document)).await;
        }
        in_background(move || extract::read_page(&page)).await
    }

    async fn read_source(&self, row: &source::Model, bytes: &AtomicUsize) -> ReadSource {
        let found = match &row.url {
            Some(url) => match self.fetcher.fetch(url).await {
                Ok(page) => {
                    bytes.fetch_add(page.body.len(), Ordering::Relaxed);
                    self.read_page(page).await
                }
                Err(status) => Err(status),
            },
            None => {
                let text = row.text.clone().unwrap_or_default();
                in_background(move || extract::read_text(&text)).await
            }
        };
        found.unwrap_or_else(unread_source)
    }
}

fn unread_source(status: Status) -> ReadSource {
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
