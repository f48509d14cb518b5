use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use eventsource_stream::{Event as SseEvent, EventStreamError, Eventsource};
use futures_util::{Stream, StreamExt};
use reqwest::Response;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::endpoint::{Endpoint, error_chain};
use super::error;
use crate::agent::output_buffer::OutputBuffer;
use crate::agent::{AgentError, AgentErrorKind, Completion, OnEvent, Usage, log_excerpt};

/// The most that one event, or what stands between two of them, may hold.
const MAX_EVENT_BYTES: usize = 256 * 1024;

/// Events carry a few letters of text each and some hundred bytes around them.
const EVENT_BYTES_PER_TEXT_BYTE: usize = 128;

/// How long we wait for what follows the end of the text: the usage.
const USAGE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why no more bytes come.
#[derive(Debug)]
enum StreamError {
    Transport(reqwest::Error),
    TooLong,
}

type Events = dyn Stream<Item = Result<SseEvent, EventStreamError<StreamError>>> + Send;

/// An answer as it comes.
pub(in crate::agent) struct EventStream<'a> {
    endpoint: &'a Endpoint,
    events: Pin<Box<Events>>,
    /// Bytes that have come since the last whole event.
    pending: Arc<AtomicUsize>,
    /// Bytes of all events.
    heard: usize,
    /// When the first event must be here.
    begin: Instant,
    /// When all must be here.
    end: Instant,
    draft: OutputBuffer<'a>,
    cut_short: Option<bool>,
    /// What the call cost, as far as it is known.
    pub(in crate::agent) usage: Usage,
}

impl<'a> EventStream<'a> {
    pub(in crate::agent) fn new(
        endpoint: &'a Endpoint,
        response: Response,
        start: Instant,
        begin: Instant,
        on_event: &'a OnEvent<'a>,
    ) -> Self {
        let pending = Arc::new(AtomicUsize::new(0));
        let counter = pending.clone();
        let bytes = response.bytes_stream().map(move |chunk| {
            let chunk = chunk.map_err(StreamError::Transport)?;
            let before = counter.fetch_add(chunk.len(), Ordering::Relaxed);
            if before > MAX_EVENT_BYTES {
                Err(StreamError::TooLong)
            } else {
                Ok(chunk)
            }
        });
        EventStream {
            endpoint,
            events: Box::pin(bytes.eventsource()),
            pending,
            heard: 0,
            begin,
            end: start + endpoint.limits.total_timeout,
            draft: OutputBuffer::new(endpoint.limits.max_bytes, on_event),
            cut_short: None,
            usage: Usage::default(),
        }
    }

    /// The next event, or none when the answer has come to its end.
    pub(in crate::agent) async fn next(&mut self) -> Result<Option<SseEvent>, AgentError> {
        let failure = match timeout_at(self.deadline(), self.events.next()).await {
            Ok(Some(Ok(event))) => match self.count_bytes(&event) {
                Ok(()) => return Ok(Some(event)),
                Err(failure) => failure,
            },
            Ok(Some(Err(error))) => self.stream_error(error),
            Ok(None) if self.heard == 0 => {
                AgentError::retry(AgentErrorKind::BadOutput, "no event in the answer")
            }
            Ok(None) => AgentError::retry(
                AgentErrorKind::Unavailable,
                "the stream ended before the answer did",
            ),
            Err(_) if Instant::now() >= self.end => {
                AgentError::retry(AgentErrorKind::Timeout, "the answer took too long")
            }
            Err(_) => AgentError::retry(AgentErrorKind::Timeout, "the answer stopped coming"),
        };
        // The text is whole: what became of the rest is no matter.
        if self.cut_short.is_some() {
            Ok(None)
        } else {
            Err(failure)
        }
    }

    /// Read an event's data.
    pub(in crate::agent) fn read<T: DeserializeOwned>(
        &self,
        event: &SseEvent,
    ) -> Result<T, AgentError> {
        let value: Value = serde_json::from_str(&event.data).map_err(|_| self.unreadable(event))?;
        if event.event == "error" || error::is_error(&value) {
            let redacted = self.endpoint.redact(&event.data);
            return Err(error::from_event(
                &serde_json::from_str(&redacted).unwrap_or(value),
            ));
        }
        serde_json::from_value(value).map_err(|_| self.unreadable(event))
    }

    /// Add a piece of the text.
    pub(in crate::agent) fn write(&mut self, piece: String) -> Result<(), AgentError> {
        self.draft.write(piece)
    }

    /// The provider says that the text is whole, or was cut at `max_tokens`.
    pub(in crate::agent) fn finish(&mut self, cut_short: bool) {
        self.cut_short = Some(cut_short);
    }

    /// What came of it, once [`EventStream::next`] has nothing more.
    pub(in crate::agent) fn into_completion(self) -> Result<Completion, AgentError> {
        Ok(Completion {
            title: None,
            text: self.draft.finish()?,
            truncated: self.cut_short.unwrap_or_default(),
            usage: self.usage,
        })
    }

    /// Until when we wait for the next event.
    fn deadline(&self) -> Instant {
        let limits = &self.endpoint.limits;
        let patience = match self.cut_short {
            Some(_) => Instant::now() + USAGE_TIMEOUT,
            None if self.heard == 0 => self.begin,
            None if self.draft.is_empty() => Instant::now() + limits.first_token_timeout,
            None => Instant::now() + limits.idle_timeout,
        };
        patience.min(self.end)
    }

    fn count_bytes(&mut self, event: &SseEvent) -> Result<(), AgentError> {
        let limits = &self.endpoint.limits;
        self.pending.store(0, Ordering::Relaxed);
        self.heard += event.data.len();
        if self.heard > limits.max_bytes.saturating_mul(EVENT_BYTES_PER_TEXT_BYTE) {
            return Err(AgentError::retry(
                AgentErrorKind::BadOutput,
                "the answer does not end",
            ));
        }
        Ok(())
    }

    fn stream_error(&self, error: EventStreamError<StreamError>) -> AgentError {
        match error {
            EventStreamError::Transport(StreamError::Transport(error)) => {
                let message = format!(
                    "the stream broke off: {}",
                    error_chain(&error.without_url())
                );
                AgentError::retry(AgentErrorKind::Unavailable, self.endpoint.redact(&message))
            }
            EventStreamError::Transport(StreamError::TooLong) => AgentError::retry(
                AgentErrorKind::BadOutput,
                format!("an event is longer than {MAX_EVENT_BYTES} bytes"),
            ),
            EventStreamError::Utf8(_) | EventStreamError::Parser(_) => AgentError::retry(
                AgentErrorKind::BadOutput,
                "the answer is no stream of events",
            ),
        }
    }

    fn unreadable(&self, event: &SseEvent) -> AgentError {
        let data = log_excerpt(&self.endpoint.redact(&event.data), 200);
        AgentError::retry(
            AgentErrorKind::BadOutput,
            format!("an event can't be read: {data}"),
        )
    }
}
