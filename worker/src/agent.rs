//! Agents write. The worker knows them by one trait, and each provider stands
//! in a file of its own.

mod adaptive_limit;
mod anthropic;
mod http;
mod limited;
mod openai;
mod output_buffer;
mod script;
mod traced;

pub(crate) use adaptive_limit::{AdaptiveLimit, JobPermit};
pub use anthropic::Anthropic;
pub(crate) use limited::LimitedAgent;
pub use openai::OpenAi;
pub use script::Script;
pub use script::supervise;
use traced::Traced;

use std::time::Duration;

use futures_util::future::BoxFuture;

/// How much of a post one call to an agent is to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallScope {
    /// The worker leads: an outline, then one call a section.
    Section,
    /// The agent writes the whole post, title included, in one call.
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
    /// Who the model is to be, for a [`CallScope::Section`] agent.
    pub system: String,
    /// What it is to write now, for a [`CallScope::Section`] agent.
    pub prompt: String,
    /// The most that the answer may hold, in the model's tokens.
    pub max_tokens: u32,
}

/// What a model is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) system: String,
    pub(crate) user: String,
    /// The most that the answer may hold, in the model's tokens.
    pub(crate) max_tokens: u32,
}

/// What an agent says while it writes.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A further piece of the text.
    Text(String),
    /// How far the whole post is, by the agent's own account.
    Progress {
        /// 0 to 100.
        percent: u8,
        /// What it is doing, if it says.
        message: Option<String>,
    },
}

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

/// Tokens as the provider counted them; zero where it did not say.
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

/// Why a call brought no text.
///
/// The message is for operators: it goes to the log. What the client reads is
/// made from [`AgentErrorKind`].
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AgentError {
    /// It may go better later.
    #[error("{failure}: {message}")]
    Retry {
        /// What went wrong, as the contract tells it.
        failure: AgentErrorKind,
        /// The provider asked not to be called again sooner.
        after: Option<Duration>,
        /// For the log.
        message: String,
    },
    /// It will go wrong again, however often it is tried.
    #[error("{failure}: {message}")]
    Fatal {
        /// What went wrong, as the contract tells it.
        failure: AgentErrorKind,
        /// For the log.
        message: String,
    },
}

/// Longer than that is no wait that anyone means; and adding it to the time of
/// day can't overflow.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

impl AgentError {
    /// The least pause that the agent wants because it is called too often; zero
    /// if it says none.
    pub(crate) fn rate_limit_delay(&self) -> Option<Duration> {
        match self {
            AgentError::Retry {
                failure: AgentErrorKind::RateLimited,
                after,
                ..
            } => Some(after.unwrap_or_default()),
            _ => None,
        }
    }

    /// What went wrong.
    pub fn kind(&self) -> AgentErrorKind {
        match self {
            AgentError::Retry { failure, .. } | AgentError::Fatal { failure, .. } => *failure,
        }
    }

    fn retry(failure: AgentErrorKind, message: impl Into<String>) -> Self {
        AgentError::Retry {
            failure,
            after: None,
            message: message.into(),
        }
    }

    /// A provider named a reason for its answer's end that we don't know.
    fn unexpected_finish_reason(reason: &str) -> Self {
        let reason = log_excerpt(reason, 50);
        let message = format!("the model stopped for another reason: {reason}");
        AgentError::retry(AgentErrorKind::BadOutput, message)
    }

    fn fatal(failure: AgentErrorKind, message: impl Into<String>) -> Self {
        AgentError::Fatal {
            failure,
            message: message.into(),
        }
    }
}

/// The kinds of failure that the HTTP contract tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentErrorKind {
    /// It can't be reached, or answers that it can't serve.
    Unavailable,
    /// It asks us to slow down, or the quota is used up.
    RateLimited,
    /// It refuses: the key, the model, the size or the content of the request.
    Rejected,
    /// It was too slow: to connect, to begin, to go on or to end.
    Timeout,
    /// It answered, but not with a usable text.
    BadOutput,
}

impl AgentErrorKind {
    /// All of them.
    pub const ALL: [AgentErrorKind; 5] = [
        AgentErrorKind::Unavailable,
        AgentErrorKind::RateLimited,
        AgentErrorKind::Rejected,
        AgentErrorKind::Timeout,
        AgentErrorKind::BadOutput,
    ];

    /// The contract's `error.code`.
    pub fn code(self) -> &'static str {
        match self {
            AgentErrorKind::Unavailable => "agent_unavailable",
            AgentErrorKind::RateLimited => "agent_rate_limited",
            AgentErrorKind::Rejected => "agent_rejected",
            AgentErrorKind::Timeout => "agent_timeout",
            AgentErrorKind::BadOutput => "agent_bad_output",
        }
    }
}

impl std::fmt::Display for AgentErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

/// How long and how large a call may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Until the connection stands.
    pub connect: Duration,
    /// Until the agent says something, and from then on each wait until there
    /// is text: a local model reads the whole prompt, and others think, before
    /// they write a word, so this is not short.
    pub first_token_timeout: Duration,
    /// Between two pieces of the answer, once there is text.
    pub idle_timeout: Duration,
    /// For the whole call.
    pub total_timeout: Duration,
    /// The most that an answer may hold, in bytes of text.
    pub max_bytes: usize,
}

impl Limits {
    /// Limits for calls that may take `total`; no single wait is longer.
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

/// Someone who writes.
///
/// To cancel a call, drop its future: the connection is closed, or the program
/// is killed with all that it started.
pub trait Agent: Send + Sync {
    /// How much one call writes.
    fn scope(&self) -> CallScope;

    /// Make one call. `on_event` hears the text as it comes; it must not block.
    fn call<'a>(
        &'a self,
        request: &'a CompletionRequest,
        on_event: &'a (dyn Fn(Event) + Send + Sync),
    ) -> BoxFuture<'a, Result<Completion, AgentError>>;
}

/// At most `most` characters of `text`, on one line: what others send us is
/// not to fill the log, nor to forge lines in it.
fn log_excerpt(text: &str, most: usize) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let clean: String = text.chars().take(most * 4).map(printable).collect();
    let words: Vec<&str> = clean.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
