//! Endpoints that speak OpenAI's chat completions.

use serde_json::{Value, json};

use super::http::call::HttpAgent;
use super::{Agent, CallFuture, CallScope, CompletionRequest, Limits, ModelSettings, OnEvent};

/// The tokens for the thoughts of OpenAI's own models: most of them think.
const THINKING_TOKENS: u32 = 4096;

/// Any endpoint that speaks OpenAI's chat completions: OpenAI itself, Ollama,
/// vLLM, llama.cpp, Groq and many more.
///
/// <https://platform.openai.com/docs/api-reference/chat/create>
#[derive(Debug)]
pub struct OpenAi {
    http: HttpAgent,
    repeat_penalty: Option<f64>,
}

impl OpenAi {
    /// `base_url` goes up to the version, such as `https://api.openai.com/v1`, or
    /// is the whole URL; the key is sent as a bearer token, the headers as they are.
    pub fn new(
        base_url: &str,
        key: Option<&str>,
        headers: &[(String, String)],
        limits: Limits,
    ) -> anyhow::Result<Self> {
        let key = key.map(|key| ("authorization".to_owned(), format!("Bearer {}", key.trim())));
        let headers: Vec<_> = key.into_iter().chain(headers.iter().cloned()).collect();
        let mut http = HttpAgent::new(base_url, &["chat", "completions"], &headers, limits)?;
        if is_openai(&http) {
            http.default_thinking_tokens = THINKING_TOKENS;
        }
        Ok(OpenAi {
            http,
            repeat_penalty: None,
        })
    }

    /// Sets what operators set for its models.
    pub fn with_settings(mut self, settings: ModelSettings) -> Self {
        self.http.settings = settings;
        self
    }

    /// Keeps the model from repeating itself; 1.1 suits small ones. Only for
    /// servers that know the argument, as llama.cpp does.
    pub fn with_repeat_penalty(mut self, penalty: f64) -> Self {
        self.repeat_penalty = Some(penalty);
        self
    }

    fn body(&self, request: &CompletionRequest, max_tokens: u32) -> Value {
        let mut messages = request.messages();
        messages.insert(0, json!({ "role": "system", "content": request.system }));
        let mut body = json!({
            "model": request.model,
            "messages": messages,
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        if is_openai(&self.http) {
            // The newer models refuse `max_tokens`, and any temperature but
            // their own; the older ones do as well without.
            body["max_completion_tokens"] = json!(max_tokens);
        } else {
            body["max_tokens"] = json!(max_tokens);
            body["temperature"] = json!(0.4);
        }
        if let Some(penalty) = self.repeat_penalty {
            body["repeat_penalty"] = json!(penalty);
        }
        body
    }
}

fn is_openai(http: &HttpAgent) -> bool {
    http.host() == "api.openai.com"
}

impl Agent for OpenAi {
    fn scope(&self) -> CallScope {
        CallScope::Prompt
    }

    fn call<'a>(
        &'a self,
        request: &'a CompletionRequest,
        on_event: &'a OnEvent<'a>,
    ) -> CallFuture<'a> {
        let build = |max_tokens| self.body(request, max_tokens);
        Box::pin(self.http.call(request, on_event, build))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(base_url: &str) -> Value {
        let request = CompletionRequest {
            job_id: uuid::Uuid::nil(),
            topic: "Tea".into(),
            options: Value::Null,
            model: "a-model".into(),
            system: "You write.".into(),
            example: None,
            prompt: "Write.".into(),
            max_tokens: 100,
        };
        let limits = Limits::within(std::time::Duration::from_secs(1));
        let agent = OpenAi::new(base_url, None, &[], limits).unwrap();
        agent.body(&request, 100 + agent.http.default_thinking_tokens)
    }

    #[test]
    fn openai_itself_gets_no_argument_that_its_newer_models_refuse() {
        let body = body("https://api.openai.com/v1");
        assert_eq!(body["max_completion_tokens"], 100 + THINKING_TOKENS);
        assert_eq!(
            (&body["max_tokens"], &body["temperature"]),
            (&Value::Null, &Value::Null)
        );
    }

    #[test]
    fn others_get_the_arguments_that_all_of_them_know() {
        let body = body("http://127.0.0.1:8012/v1");
        assert_eq!(
            (&body["max_tokens"], &body["temperature"]),
            (&json!(100), &json!(0.4))
        );
        assert_eq!(body["max_completion_tokens"], Value::Null);
    }
}
