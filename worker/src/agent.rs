//! Agents: what writes the text. The worker knows them by the trait [`Agent`].

mod adaptive_limit;
mod anthropic;
mod error;
mod http;
mod limited;
mod model_settings;
mod openai;
mod output_buffer;
mod script;
mod text;
mod traced;

pub(crate) use adaptive_limit::{AdaptiveLimit, JobPermit};
pub use anthropic::Anthropic;
pub use error::{AgentError, AgentErrorKind};
pub(crate) use limited::LimitedAgent;
pub use model_settings::{ModelSettings, ThinkingTokens};
pub use openai::OpenAi;
pub use script::Script;
pub(crate) use script::supervise;
use traced::Traced;

use std::time::Duration;

use error::{MAX_RETRY_AFTER, log_excerpt};
use futures_util::future::BoxFuture;

/// How much of a post one call to an agent writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallScope {
    /// What the prompt asks for: the worker makes the prompts.
    Prompt,
    /// The whole post, title included.
    WholePost,
}

/// One call to an agent.
#[derive(Clone, Debug)]
pub struct CompletionRequest {
    /// The job that the call is for.
    pub job_id: uuid::Uuid,
    /// What the post is about, as the client gave it.
    pub topic: String,
    /// The client's options, as the HTTP contract names them.
    pub options: serde_json::Value,
    /// The model to ask; one of those that the agent serves.
    pub model: String,
    /// The system prompt, for a [`CallScope::Prompt`] agent.
    pub system: String,
    /// A prompt and its answer to go before, which show a [`CallScope::Prompt`] agent what
    /// is wanted.
    pub example: Option<Example>,
    /// The user prompt, for a [`CallScope::Prompt`] agent.
    pub prompt: String,
    /// The most that the text may hold, in the model's tokens.
    pub max_tokens: u32,
}

/// What a model is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) system: String,
    pub(crate) example: Option<Example>,
    pub(crate) user: String,
    /// The most that the answer may hold, in the model's tokens.
    pub(crate) max_tokens: u32,
}

/// A prompt and a good answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// What the user asked.
    pub prompt: String,
    /// What the model answered.
    pub answer: String,
}

impl CompletionRequest {
    /// The messages without the system prompt, as the providers' chat protocols have them.
    pub(crate) fn messages(&self) -> Vec<serde_json::Value> {
        let message = |role, text: &str| serde_json::json!({ "role": role, "content": text });
        let example = self.example.iter().flat_map(|example| {
            [
                message("user", &example.prompt),
                message("assistant", &example.answer),
            ]
        });
        example.chain([message("user", &self.prompt)]).collect()
    }
}

/// What an agent reports while it writes.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A further piece of the text.
    Text(String),
    /// The text so far was a thought, and is void.
    Discarded,
    /// The call is made again because of a rate limit: the text begins anew.
    Restarted,
    /// How far the whole post is, by the agent's own account.
    Progress {
        /// 0 to 100.
        percent: u8,
        /// What it is doing, if it says.
        message: Option<String>,
    },
}

/// Called with each event as it comes; it must not block.
pub type OnEvent<'a> = dyn Fn(Event) + Send + Sync + 'a;

/// A call under way. Dropping it cancels the call: the connection is closed, or
/// the program is killed with all that it started.
pub type CallFuture<'a> = BoxFuture<'a, Result<Completion, AgentError>>;

/// What an agent wrote.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// The post's title; only from a [`CallScope::WholePost`] agent.
    pub title: Option<String>,
    /// The text, Markdown.
    pub text: String,
    /// Whether the text ends because `max_tokens` was reached, not because the
    /// model was done.
    pub truncated: bool,
    /// What the call cost.
    pub usage: Usage,
}

/// Tokens as the provider counted them; zero where it did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Read by the model.
    pub input_tokens: u32,
    /// Written by the model.
    pub output_tokens: u32,
}

impl Usage {
    /// What two calls cost together.
    pub fn and(self, other: Usage) -> Usage {
        Usage {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
        }
    }
}

/// How long and how large a call may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// To establish a connection.
    pub connect: Duration,
    /// Until the agent's first sign of life, and from then on each wait until
    /// there is text: a local model reads the whole prompt, and others think,
    /// before they write a word, so this is not short.
    pub first_token_timeout: Duration,
    /// Between two pieces of the answer, once there is text.
    pub idle_timeout: Duration,
    /// For the whole call.
    pub total_timeout: Duration,
    /// The most that the text may hold, in bytes.
    pub max_bytes: usize,
}

impl Limits {
    /// Limits for calls that may take `total_timeout`; no single wait is longer.
    pub fn within(total_timeout: Duration) -> Self {
        Limits {
            connect: Duration::from_secs(10).min(total_timeout),
            first_token_timeout: Duration::from_secs(120).min(total_timeout),
            idle_timeout: Duration::from_secs(60).min(total_timeout),
            total_timeout,
            max_bytes: 1024 * 1024,
        }
    }
}

/// Writes text on request.
pub trait Agent: Send + Sync {
    /// How much one call writes.
    fn scope(&self) -> CallScope;

    /// Makes one call.
    fn call<'a>(
        &'a self,
        request: &'a CompletionRequest,
        on_event: &'a OnEvent<'a>,
    ) -> CallFuture<'a>;
}
