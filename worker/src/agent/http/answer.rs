//! What an endpoint answers, read up to its end and made into a completion.

use std::time::Duration;

use serde_json::Value;

use super::error::{CallError, ProviderError, is_error};
use super::event_stream::EventStream;
use super::json;
use super::redactor::Redactor;
use super::sse::{SseEvent, is_done};
use super::wire::{self, Chunk, Finish, Text};
use crate::agent::output_buffer::OutputBuffer;
use crate::agent::text::filter::{TextFilter, Traits, Update};
use crate::agent::text::refusal;
use crate::agent::{AgentError, AgentErrorKind, Completion, Limits, OnEvent, Usage, log_excerpt};

/// How long we wait for what follows the end of the text: the usage.
const USAGE_TIMEOUT: Duration = Duration::from_secs(1);

/// Thoughts are long, and dropped.
const RAW_BYTES_PER_TEXT_BYTE: usize = 8;

/// Names of events that only show that the server lives.
const KEEP_ALIVES: [&str; 4] = ["ping", "keepalive", "keep-alive", "heartbeat"];

/// How an answer ended, and what it cost either way.
pub(super) enum Outcome {
    Text(Completion, Traits),
    /// The limit was reached before there was any text, by thoughts, sent or hidden.
    OnlyThoughts(Usage),
}

/// The answer so far.
pub(super) struct Answer<'a> {
    output: OutputBuffer<'a>,
    filter: TextFilter,
    redactor: Redactor,
    limits: Limits,
    /// Thoughts came in a field of their own.
    thought: bool,
    refusal: String,
    /// Whether the text was cut, once it has ended.
    truncated: Option<bool>,
    /// The finish reason came in the same chunk as the last text.
    ended_with_text: bool,
    /// Text came after a finish reason: some endpoints send a reason in each chunk.
    premature: bool,
    /// A chunk had null for its finish reason.
    open: bool,
    done: bool,
    usage: Usage,
}

impl<'a> Answer<'a> {
    /// Reads an answer up to its end.
    pub(super) async fn read(
        stream: &mut EventStream,
        limits: Limits,
        redactor: &Redactor,
        expects_thoughts: bool,
        on_event: &'a OnEvent<'a>,
    ) -> Result<Outcome, CallError> {
        let mut answer = Answer {
            output: OutputBuffer::new(limits.max_bytes, on_event),
            filter: TextFilter::new(expects_thoughts),
            redactor: redactor.clone(),
            limits,
            thought: false,
            refusal: String::new(),
            truncated: None,
            ended_with_text: false,
            premature: false,
            open: false,
            done: false,
            usage: Usage::default(),
        };
        while !answer.done {
            match stream.next(answer.next_timeout()).await {
                Ok(Some(event)) => answer.add(&event)?,
                Ok(None) => break,
                // The text is whole: what became of the rest is no matter.
                Err(_) if answer.is_whole() => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(answer.finish(stream)?)
    }

    fn next_timeout(&self) -> Duration {
        if self.is_whole() && !self.ended_with_text {
            USAGE_TIMEOUT
        } else if self.output.is_empty() {
            self.limits.first_token_timeout
        } else {
            self.limits.idle_timeout
        }
    }

    fn is_whole(&self) -> bool {
        self.truncated.is_some() && !self.premature
    }

    fn add(&mut self, event: &SseEvent) -> Result<(), CallError> {
        let data = event.data.trim();
        if is_done(data) {
            self.done = true;
            return Ok(());
        }
        let is_error_event = event.name == "error";
        if !is_error_event && (KEEP_ALIVES.contains(&event.name.as_str()) || is_empty(data)) {
            return Ok(());
        }
        match json::parse(data) {
            Some(Value::Array(values)) if !is_error_event => values
                .iter()
                .try_for_each(|value| self.add_value(value, event)),
            Some(value @ Value::Object(_)) => self.add_value(&value, event),
            _ if self.is_whole() => Ok(()),
            _ if is_error_event => Err(self.provider_error(data)),
            _ => {
                let data = log_excerpt(&self.redactor.redact(data), 200);
                let message = format!("an event can't be read: {data}");
                Err(AgentError::retry(AgentErrorKind::BadOutput, message).into())
            }
        }
    }

    fn add_value(&mut self, value: &Value, event: &SseEvent) -> Result<(), CallError> {
        if is_error(value, &event.name) {
            return match self.is_whole() {
                true => Ok(()),
                false => Err(self.provider_error(&value.to_string())),
            };
        }
        Ok(self.add_chunk(wire::read(value, &event.name))?)
    }

    fn provider_error(&self, text: &str) -> CallError {
        let error = ProviderError::from_event(&self.redactor.redact(text));
        match self.output.is_empty() {
            true => CallError::Provider(error),
            false => CallError::Agent(error.into()),
        }
    }

    fn add_chunk(&mut self, chunk: Chunk) -> Result<(), AgentError> {
        let text = match &chunk.text {
            Text::Message(message) => self.new_part(message),
            Text::Delta(piece) => piece,
        };
        let has_text = !text.trim().is_empty();
        let update = self.filter.push(text);
        self.output_update(update)?;
        let most = self
            .limits
            .max_bytes
            .saturating_mul(RAW_BYTES_PER_TEXT_BYTE);
        if self.filter.raw().len() > most {
            let message = "the model's thoughts do not end";
            return Err(AgentError::retry(AgentErrorKind::BadOutput, message));
        }
        self.thought |= chunk.thought;
        self.refusal.push_str(&chunk.refusal);
        self.done |= chunk.last;
        // Some count only at the start, some only at the end, and zeros elsewhere.
        let usage = &mut self.usage;
        let nonzero = |count: Option<u32>| count.filter(|count| *count > 0);
        usage.input_tokens = nonzero(chunk.input_tokens).unwrap_or(usage.input_tokens);
        usage.output_tokens = nonzero(chunk.output_tokens).unwrap_or(usage.output_tokens);
        self.premature |= self.truncated.is_some() && has_text;
        self.end_text(chunk.finish, has_text)
    }

    fn output_update(&mut self, update: Update) -> Result<(), AgentError> {
        if update.restarted {
            self.output.discard();
        }
        self.output.write(update.text)
    }

    /// What is new in a message that may hold the text so far.
    fn new_part<'m>(&self, message: &'m str) -> &'m str {
        let known = self.filter.raw().trim();
        let new_part = message.trim_start().strip_prefix(known);
        new_part.filter(|_| !known.is_empty()).unwrap_or(message)
    }

    fn end_text(&mut self, finish: Finish, with_text: bool) -> Result<(), AgentError> {
        let truncated = match finish {
            // Some endpoints send an empty reason in each chunk, some in the last one.
            Finish::Empty if self.open => false,
            Finish::Absent | Finish::Empty => return Ok(()),
            Finish::Open => {
                self.open = true;
                return Ok(());
            }
            Finish::Stop => false,
            Finish::Length => true,
            Finish::Refused(reason) => {
                let reason = log_excerpt(&reason, 50);
                let message = format!("the model or the provider's filter refuses: {reason}");
                return Err(AgentError::fatal(AgentErrorKind::Rejected, message));
            }
            Finish::Failed(reason) => {
                let reason = log_excerpt(&reason, 50);
                let message = format!("the model stopped before its end: {reason}");
                return Err(AgentError::retry(AgentErrorKind::BadOutput, message));
            }
        };
        let was_truncated = self.truncated == Some(true) && !self.premature;
        self.truncated = Some(truncated || was_truncated);
        self.ended_with_text = with_text;
        Ok(())
    }

    /// An orderly end is a reason to end, an end mark, or a document that is whole.
    fn finish(mut self, stream: &EventStream) -> Result<Outcome, AgentError> {
        let (update, mut traits) = self.filter.finish();
        traits.thoughts |= self.thought;
        self.output_update(update)?;
        let text = self.output.text();
        let has_ended = self.truncated.is_some() || self.done || stream.is_document();
        let truncated = self.truncated.unwrap_or_default() && !traits.ended_by_token;
        let bad = |message: &str| Err(AgentError::retry(AgentErrorKind::BadOutput, message));
        match (text.trim().is_empty(), traits.thoughts) {
            _ if !self.refusal.trim().is_empty() => {
                return Err(refused(&self.redactor.redact(&self.refusal)));
            }
            (true, _) if truncated => return Ok(Outcome::OnlyThoughts(self.usage)),
            (true, false) => {
                let start = log_excerpt(&stream.start(), 200);
                return bad(&format!("no text in the answer: {start}"));
            }
            _ if !has_ended => {
                let message = "the stream ended before the answer did";
                return Err(AgentError::retry(AgentErrorKind::Unavailable, message));
            }
            (true, true) => return bad("the model thought, and wrote no text"),
            (false, _) if !truncated && refusal::is_refusal(text) => return Err(refused(text)),
            (false, _) => {}
        }
        let completion = Completion {
            title: None,
            text: self.output.finish()?,
            truncated,
            usage: self.usage,
        };
        Ok(Outcome::Text(completion, traits))
    }
}

fn refused(words: &str) -> AgentError {
    let message = format!(
        "the model refuses to write this: {}",
        log_excerpt(words, 300)
    );
    AgentError::fatal(AgentErrorKind::Rejected, message)
}

/// Whether data is there only to show that the server lives.
fn is_empty(data: &str) -> bool {
    let word = data.trim_matches('"').to_lowercase();
    ["", "null", "{}", "[]"].contains(&data) || KEEP_ALIVES.contains(&word.as_str()) || word == "ok"
}
