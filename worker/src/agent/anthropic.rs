use serde::Deserialize;
use serde_json::json;

use super::http::endpoint::Endpoint;
use super::http::event_stream::EventStream;
use super::{
    Agent, AgentError, AgentErrorKind, CallFuture, CallScope, CompletionRequest, Limits, OnEvent,
};

/// Anthropic's Messages API.
///
/// <https://docs.claude.com/en/api/messages>
#[derive(Debug)]
pub struct Anthropic {
    endpoint: Endpoint,
}

impl Anthropic {
    /// `base_url` is `https://api.anthropic.com`, or that of a gateway; with or
    /// without the version, since people write both.
    pub fn new(base_url: &str, key: &str, limits: Limits) -> anyhow::Result<Self> {
        let headers = [
            ("x-api-key".to_owned(), key.trim().to_owned()),
            ("anthropic-version".to_owned(), "2023-06-01".to_owned()),
        ];
        let base_url = base_url
            .trim()
            .trim_end_matches('/')
            .trim_end_matches("/v1");
        let endpoint = Endpoint::new(base_url, &["v1", "messages"], &headers, limits)?;
        Ok(Anthropic { endpoint })
    }
}

impl Agent for Anthropic {
    fn scope(&self) -> CallScope {
        CallScope::Section
    }

    fn call<'a>(
        &'a self,
        request: &'a CompletionRequest,
        on_event: &'a OnEvent<'a>,
    ) -> CallFuture<'a> {
        Box::pin(async move {
            // Without a temperature: the newer models refuse any but their own.
            let body = json!({
                "model": request.model,
                "max_tokens": request.max_tokens,
                "system": request.system,
                "messages": [{ "role": "user", "content": request.prompt }],
                "stream": true,
            });
            let mut answer = self.endpoint.send(&body, on_event).await?;
            while let Some(event) = answer.next().await? {
                read(answer.read(&event)?, &mut answer)?;
            }
            answer.into_completion()
        })
    }
}

/// <https://docs.claude.com/en/docs/build-with-claude/streaming>
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum StreamEvent {
    MessageStart {
        message: Start,
    },
    ContentBlockDelta {
        delta: Delta,
    },
    MessageDelta {
        delta: Stop,
        #[serde(default)]
        usage: Tokens,
    },
    /// Pings, the edges of blocks, and what is yet to be invented.
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Start {
    #[serde(default)]
    usage: Tokens,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Delta {
    TextDelta {
        text: String,
    },
    /// Thoughts, for one.
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Stop {
    stop_reason: Option<String>,
}

/// `input_tokens` leaves out what came from the cache or went into it.
#[derive(Default, Deserialize)]
struct Tokens {
    #[serde(default)]
    input_tokens: Option<u32>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u32>,
    #[serde(default)]
    cache_read_input_tokens: Option<u32>,
    #[serde(default)]
    output_tokens: Option<u32>,
}

fn read(event: StreamEvent, answer: &mut EventStream<'_>) -> Result<(), AgentError> {
    match event {
        StreamEvent::MessageStart { message } => add_usage(&message.usage, answer),
        StreamEvent::ContentBlockDelta {
            delta: Delta::TextDelta { text },
        } => answer.write(text)?,
        StreamEvent::MessageDelta { delta, usage } => {
            add_usage(&usage, answer);
            set_stop_reason(delta.stop_reason.as_deref(), answer)?;
        }
        StreamEvent::ContentBlockDelta {
            delta: Delta::Other,
        }
        | StreamEvent::Other => {}
    }
    Ok(())
}

/// The counts are those of the whole message so far, each time.
fn add_usage(tokens: &Tokens, answer: &mut EventStream<'_>) {
    if let Some(input) = tokens.input_tokens {
        let cached = [
            tokens.cache_creation_input_tokens,
            tokens.cache_read_input_tokens,
        ];
        let cached = cached.into_iter().flatten();
        answer.usage.input_tokens = cached.fold(input, u32::saturating_add);
    }
    if let Some(output) = tokens.output_tokens {
        answer.usage.output_tokens = output;
    }
}

/// <https://docs.claude.com/en/api/handling-stop-reasons>
fn set_stop_reason(reason: Option<&str>, answer: &mut EventStream<'_>) -> Result<(), AgentError> {
    match reason {
        None => {}
        Some("end_turn" | "stop_sequence") => answer.finish(false),
        Some("max_tokens" | "model_context_window_exceeded") => answer.finish(true),
        Some("refusal") => {
            return Err(AgentError::fatal(
                AgentErrorKind::Rejected,
                "the model refuses to write this",
            ));
        }
        Some(other) => return Err(AgentError::unexpected_finish_reason(other)),
    }
    Ok(())
}
