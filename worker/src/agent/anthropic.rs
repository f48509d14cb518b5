//! Anthropic's Messages API.

use serde_json::json;

use super::http::call::HttpAgent;
use super::{Agent, CallFuture, CallScope, CompletionRequest, Limits, ModelSettings, OnEvent};

/// Anthropic's Messages API.
///
/// <https://docs.claude.com/en/api/messages>
#[derive(Debug)]
pub struct Anthropic {
    http: HttpAgent,
}

impl Anthropic {
    /// `base_url` is `https://api.anthropic.com`, or that of a gateway; with or
    /// without the version, or the whole URL, since people write all of them.
    pub fn new(
        base_url: &str,
        key: &str,
        headers: &[(String, String)],
        limits: Limits,
    ) -> anyhow::Result<Self> {
        let own = [
            ("x-api-key".to_owned(), key.trim().to_owned()),
            ("anthropic-version".to_owned(), "2023-06-01".to_owned()),
        ];
        let headers: Vec<_> = own.into_iter().chain(headers.iter().cloned()).collect();
        let http = HttpAgent::new(base_url, &["messages"], &headers, limits)?;
        Ok(Anthropic { http })
    }

    /// Sets what operators set for its models.
    pub fn with_settings(mut self, settings: ModelSettings) -> Self {
        self.http.settings = settings;
        self
    }
}

impl Agent for Anthropic {
    fn scope(&self) -> CallScope {
        CallScope::Prompt
    }

    fn call<'a>(
        &'a self,
        request: &'a CompletionRequest,
        on_event: &'a OnEvent<'a>,
    ) -> CallFuture<'a> {
        // Without a temperature: the newer models refuse any but their own.
        let build = |max_tokens| {
            json!({
                "model": request.model,
                "max_tokens": max_tokens,
                "system": request.system,
                "messages": request.messages(),
                "stream": true,
            })
        };
        Box::pin(self.http.call(request, on_event, build))
    }
}
