//! Why a call to an agent failed, and whether another one may succeed.

use std::fmt;
use std::time::Duration;

/// Why a call brought no text.
///
/// The message is for operators: it goes to the log. What the client reads is
/// made from [`AgentErrorKind`].
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AgentError {
    /// Another call may succeed.
    #[error("{failure}: {message}")]
    Retry {
        /// What went wrong.
        failure: AgentErrorKind,
        /// The provider asked not to be called again sooner.
        after: Option<Duration>,
        /// For the log.
        message: String,
    },
    /// Every further call would fail, too.
    #[error("{failure}: {message}")]
    Fatal {
        /// What went wrong.
        failure: AgentErrorKind,
        /// For the log.
        message: String,
    },
}

/// The longest pause that a provider is believed to mean; and adding it to the
/// time of day can't overflow.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

impl AgentError {
    /// The least pause that the agent asked for when it refused a call for its
    /// rate limit; zero if it named none.
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

    pub(super) fn retry(failure: AgentErrorKind, message: impl Into<String>) -> Self {
        AgentError::Retry {
            failure,
            after: None,
            message: message.into(),
        }
    }

    pub(super) fn fatal(failure: AgentErrorKind, message: impl Into<String>) -> Self {
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
    /// Its rate limit is reached, or its quota is used up.
    RateLimited,
    /// It refuses the key, the model, the size or the content of the request.
    Rejected,
    /// It was too slow to connect, to begin, to go on or to end.
    Timeout,
    /// Its answer is no usable text.
    BadOutput,
}

impl AgentErrorKind {
    /// All kinds.
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

impl fmt::Display for AgentErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// At most `max_chars` characters of `text`, on one line: foreign text must
/// neither fill the log nor forge lines in it.
pub(super) fn log_excerpt(text: &str, max_chars: usize) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let start: String = text.chars().take(max_chars * 4).map(printable).collect();
    let words: Vec<&str> = start.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
