//! Keeps keys out of messages.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Replaces secrets that a provider echoes.
#[derive(Clone)]
pub(super) struct Redactor(Arc<[String]>);

impl Redactor {
    /// Every word of `values` is a secret.
    pub(super) fn new<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let words = values.flat_map(str::split_whitespace);
        // Anything shorter is no secret, but may well be a common word.
        let secrets = words.filter(|word| word.len() >= 8);
        Redactor(secrets.map(str::to_owned).collect())
    }

    pub(super) fn redact(&self, message: &str) -> String {
        let hide = |text: String, secret: &String| text.replace(secret, "***");
        self.0.iter().fold(message.to_owned(), hide)
    }

    /// Why a request or its answer broke off; reqwest tells that only in the
    /// errors below its own.
    pub(super) fn cause(&self, error: reqwest::Error) -> String {
        let error = error.without_url();
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        self.redact(&text)
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}
