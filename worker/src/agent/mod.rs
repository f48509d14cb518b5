//! Agents write. The worker knows them by one trait, and each provider stands
//! in a file of its own.

mod answer;
mod anthropic;
mod draft;
mod group;
mod http;
mod lines;
mod openai;
mod refusal;
mod script;
mod supervise;
mod traced;

pub use anthropic::Anthropic;
pub use openai::OpenAi;
pub use script::Script;
pub use supervise::supervise;
pub use traced::Traced;

use std::time::Duration;

use futures_util::future::BoxFuture;

/// How much of a post one call to an agent is to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The worker leads: an outline, then one call a section.
    Step,
    /// The agent writes the whole post, title included, in one call.
    Post,
}

/// One call to an agent.
#[derive(Clone, Debug)]
pub struct Request {
    /// The job that the call is for.
    pub job_id: uuid::Uuid,
    /// What the post is about, as the client gave it.
    pub topic: String,
    /// The client's options, as the HTTP contract names them.
    pub options: serde_json::Value,
    /// The model to ask; one of those that the agent serves.
    pub model: String,
    /// Who the model is to be, for a [`Scope::Step`] agent.
    pub system: String,
    /// What it is to write now, for a [`Scope::Step`] agent.
    pub prompt: String,
    /// The most that the answer may hold, in the model's tokens.
    pub max_tokens: u32,
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
pub struct Reply {
    /// The post's title; only from a [`Scope::Post`] agent.
    pub title: Option<String>,
    /// The text, Markdown.
    pub text: String,
    /// Whether the text ends because `max_tokens` was reached, not because the
    /// model was done.
    pub cut_short: bool,
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
/// made from [`Failure`].
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AgentError {
    /// It may go better later.
    #[error("{failure}: {message}")]
    Retry {
        /// What went wrong, as the contract tells it.
        failure: Failure,
        /// The provider asked not to be called again sooner.
        after: Option<Duration>,
        /// For the log.
        message: String,
    },
    /// It will go wrong again, however often it is tried.
    #[error("{failure}: {message}")]
    Fatal {
        /// What went wrong, as the contract tells it.
        failure: Failure,
        /// For the log.
        message: String,
    },
}

/// Longer than that is no wait that anyone means; and adding it to the time of
/// day can't overflow.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

impl AgentError {
    /// The least pause that the agent wants because it is called too often; zero
    /// if it says none.
    pub(crate) fn wants_pause(&self) -> Option<Duration> {
        match self {
            AgentError::Retry {
                failure: Failure::RateLimited,
                after,
                ..
            } => Some(after.unwrap_or_default()),
            _ => None,
        }
    }

    /// What went wrong.
    pub fn failure(&self) -> Failure {
        match self {
            AgentError::Retry { failure, .. } | AgentError::Fatal { failure, .. } => *failure,
        }
    }

    fn retry(failure: Failure, message: impl Into<String>) -> Self {
        AgentError::Retry {
            failure,
            after: None,
            message: message.into(),
        }
    }

    /// A provider named a reason for its answer's end that we don't know.
    fn stopped_by(reason: &str) -> Self {
        let reason = excerpt(reason, 50);
        let message = format!("the model stopped for another reason: {reason}");
        AgentError::retry(Failure::BadOutput, message)
    }

    fn fatal(failure: Failure, message: impl Into<String>) -> Self {
        AgentError::Fatal {
            failure,
            message: message.into(),
        }
    }
}

/// The kinds of failure that the HTTP contract tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
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

impl Failure {
    /// All of them.
    pub const ALL: [Failure; 5] = [
        Failure::Unavailable,
        Failure::RateLimited,
        Failure::Rejected,
        Failure::Timeout,
        Failure::BadOutput,
    ];

    /// The contract's `error.code`.
    pub fn code(self) -> &'static str {
        match self {
            Failure::Unavailable => "agent_unavailable",
            Failure::RateLimited => "agent_rate_limited",
            Failure::Rejected => "agent_rejected",
            Failure::Timeout => "agent_timeout",
            Failure::BadOutput => "agent_bad_output",
        }
    }
}

impl std::fmt::Display for Failure {
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
    pub first_byte: Duration,
    /// Between two pieces of the answer, once there is text.
    pub silence: Duration,
    /// For the whole call.
    pub total: Duration,
    /// The most that an answer may hold, in bytes of text.
    pub bytes: usize,
}

impl Limits {
    /// Limits for calls that may take `total`; no single wait is longer.
    pub fn within(total: Duration) -> Self {
        Limits {
            connect: Duration::from_secs(10).min(total),
            first_byte: Duration::from_secs(120).min(total),
            silence: Duration::from_secs(60).min(total),
            total,
            bytes: 1024 * 1024,
        }
    }
}

/// Someone who writes.
///
/// To cancel a call, drop its future: the connection is closed, or the program
/// is killed with all that it started.
pub trait Agent: Send + Sync {
    /// How much one call writes.
    fn scope(&self) -> Scope;

    /// Make one call. `on_event` hears the text as it comes; it must not block.
    fn call<'a>(
        &'a self,
        request: &'a Request,
        on_event: &'a (dyn Fn(Event) + Send + Sync),
    ) -> BoxFuture<'a, Result<Reply, AgentError>>;
}

/// At most `most` characters of `text`, on one line: what others send us is
/// not to fill the log, nor to forge lines in it.
fn excerpt(text: &str, most: usize) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let clean: String = text.chars().take(most * 4).map(printable).collect();
    let words: Vec<&str> = clean.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
