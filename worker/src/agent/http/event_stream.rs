//! The events of an answer as they come: bounded in time and in size.

use std::time::Duration;

use reqwest::Response;
use tokio::time::{Instant, timeout, timeout_at};

use super::redactor::Redactor;
use super::sse::{SseEvent, SseReader};
use crate::agent::{AgentError, AgentErrorKind, Limits};

/// The most that one event, or what stands between two of them, may hold.
const MAX_EVENT_BYTES: usize = 256 * 1024;

/// Events carry a few letters of text each and some hundred bytes around them.
const EVENT_BYTES_PER_TEXT_BYTE: usize = 128;

/// A whole answer in JSON has its letters escaped.
const JSON_BYTES_PER_TEXT_BYTE: usize = 8;

/// How long the end of the body may take after the last event.
const END_OF_BODY: Duration = Duration::from_millis(50);

/// What is kept of an answer's start, for messages.
const MAX_START_BYTES: usize = 1024;

/// The body of an answer.
pub(super) struct EventStream {
    response: Response,
    reader: SseReader,
    limits: Limits,
    redactor: Redactor,
    /// When the first byte must be here, and when the last.
    begin: Instant,
    end: Instant,
    start: Vec<u8>,
    bytes: usize,
    bytes_since_event: usize,
    ended: bool,
}

impl EventStream {
    pub(super) fn new(
        response: Response,
        limits: Limits,
        redactor: Redactor,
        (begin, end): (Instant, Instant),
    ) -> Self {
        EventStream {
            response,
            reader: SseReader::default(),
            limits,
            redactor,
            begin,
            end,
            start: Vec::new(),
            bytes: 0,
            bytes_since_event: 0,
            ended: false,
        }
    }

    /// The next event, or none at the body's end. Whatever comes is a sign of
    /// life; without any for `patience`, that is a timeout.
    pub(super) async fn next(
        &mut self,
        patience: Duration,
    ) -> Result<Option<SseEvent>, AgentError> {
        loop {
            if let Some(event) = self.reader.pop() {
                self.bytes_since_event = 0;
                return Ok(Some(event));
            }
            if self.ended {
                return Ok(None);
            }
            let deadline = match self.bytes {
                0 => self.begin,
                _ => self.end.min(Instant::now() + patience),
            };
            match timeout_at(deadline, self.response.chunk()).await {
                Ok(Ok(Some(bytes))) => self.push(&bytes)?,
                Ok(Ok(None)) => {
                    self.ended = true;
                    self.reader.end();
                }
                Ok(Err(error)) => {
                    let message = format!("the answer broke off: {}", self.redactor.cause(error));
                    return Err(AgentError::retry(AgentErrorKind::Unavailable, message));
                }
                Err(_) => {
                    let message = match Instant::now() >= self.end {
                        true => "the answer took too long",
                        false => "the answer stopped coming",
                    };
                    return Err(AgentError::retry(AgentErrorKind::Timeout, message));
                }
            }
        }
    }

    /// Waits a moment for the body's end, which comes right behind the last event: without it the
    /// connection can't be kept.
    pub(super) async fn finish(mut self) {
        let end = async { while let Ok(Some(_)) = self.response.chunk().await {} };
        // A server that does not end its answers costs us the connection.
        let _ = timeout(END_OF_BODY, end).await;
    }

    /// Whether the body was one JSON document, not a stream.
    pub(super) fn is_document(&self) -> bool {
        self.reader.is_document()
    }

    /// How the body begins, for messages.
    pub(super) fn start(&self) -> String {
        self.redactor.redact(&String::from_utf8_lossy(&self.start))
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), AgentError> {
        let missing = MAX_START_BYTES.saturating_sub(self.start.len());
        self.start.extend(bytes.iter().take(missing));
        self.bytes += bytes.len();
        self.bytes_since_event += bytes.len();
        self.reader.push(bytes);
        let (per_text_byte, most_at_once) = match self.reader.is_json() {
            true => (JSON_BYTES_PER_TEXT_BYTE, usize::MAX),
            false => (EVENT_BYTES_PER_TEXT_BYTE, MAX_EVENT_BYTES),
        };
        let most = self.limits.max_bytes.saturating_mul(per_text_byte);
        let message = if self.bytes_since_event > most_at_once {
            format!("an event is longer than {MAX_EVENT_BYTES} bytes")
        } else if self.bytes > most.saturating_add(MAX_EVENT_BYTES) {
            "the answer does not end".to_owned()
        } else {
            return Ok(());
        };
        Err(AgentError::retry(AgentErrorKind::BadOutput, message))
    }
}
