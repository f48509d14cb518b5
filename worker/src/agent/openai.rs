use serde::Deserialize;
use serde_json::{Value, json};

use super::http::endpoint::Endpoint;
use super::http::event_stream::EventStream;
use super::{
    Agent, AgentError, AgentErrorKind, CallFuture, CallScope, CompletionRequest, Limits, OnEvent,
    Usage,
};

/// What a model of OpenAI may think before it writes. The thoughts count
/// against the limit, and without room for them nothing is left for the text.
const REASONING_TOKENS: u32 = 4096;

/// Any endpoint that speaks OpenAI's chat completions: OpenAI itself, Ollama,
/// vLLM, llama.cpp, Groq and many more.
///
/// <https://platform.openai.com/docs/api-reference/chat/create>
#[derive(Debug)]
pub struct OpenAi {
    endpoint: Endpoint,
    repeat_penalty: Option<f64>,
}

impl OpenAi {
    /// `base_url` goes up to the version, such as `https://api.openai.com/v1`;
    /// the key is sent as a bearer token, the headers as they are.
    pub fn new(
        base_url: &str,
        key: Option<&str>,
        headers: &[(String, String)],
        limits: Limits,
    ) -> anyhow::Result<Self> {
        let key = key.map(|key| ("authorization".to_owned(), format!("Bearer {}", key.trim())));
        let headers: Vec<_> = key.into_iter().chain(headers.iter().cloned()).collect();
        let endpoint = Endpoint::new(base_url, &["chat", "completions"], &headers, limits)?;
        Ok(OpenAi {
            endpoint,
            repeat_penalty: None,
        })
    }

    /// Hold the model off repeating itself; 1.1 suits small ones. Only for
    /// servers that know the argument, as llama.cpp does: OpenAI answers 400
    /// to arguments that it does not know.
    pub fn with_repeat_penalty(mut self, penalty: f64) -> Self {
        self.repeat_penalty = Some(penalty);
        self
    }

    fn body(&self, request: &CompletionRequest) -> Value {
        let mut body = json!({
            "model": request.model,
            "messages": [
                { "role": "system", "content": request.system },
                { "role": "user", "content": request.prompt },
            ],
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        if self.endpoint.host() == "api.openai.com" {
            // The newer models refuse `max_tokens`, and any temperature but
            // their own; the older ones do as well without.
            body["max_completion_tokens"] = json!(request.max_tokens + REASONING_TOKENS);
        } else {
            body["max_tokens"] = json!(request.max_tokens);
            body["temperature"] = json!(0.4);
        }
        if let Some(penalty) = self.repeat_penalty {
            body["repeat_penalty"] = json!(penalty);
        }
        body
    }
}

impl Agent for OpenAi {
    fn scope(&self) -> CallScope {
        CallScope::Section
    }

    fn call<'a>(
        &'a self,
        request: &'a CompletionRequest,
        on_event: &'a OnEvent<'a>,
    ) -> CallFuture<'a> {
        Box::pin(async move {
            let mut answer = self.endpoint.send(&self.body(request), on_event).await?;
            while let Some(event) = answer.next().await? {
                if event.data != "[DONE]" {
                    read(answer.read(&event)?, &mut answer)?;
                }
            }
            answer.into_completion()
        })
    }
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    prompt_tokens: u32,
    #[serde(default)]
    completion_tokens: u32,
}

fn read(chunk: Chunk, answer: &mut EventStream<'_>) -> Result<(), AgentError> {
    if let Some(tokens) = chunk.usage {
        answer.usage = Usage {
            input_tokens: tokens.prompt_tokens,
            output_tokens: tokens.completion_tokens,
        };
    }
    // We ask for one choice; the chunk with the usage has none.
    let Some(choice) = chunk.choices.into_iter().next() else {
        return Ok(());
    };
    if choice
        .delta
        .refusal
        .is_some_and(|refusal| !refusal.is_empty())
    {
        return Err(AgentError::fatal(
            AgentErrorKind::Rejected,
            "the model refuses to write this",
        ));
    }
    answer.write(choice.delta.content.unwrap_or_default())?;
    match choice.finish_reason.as_deref() {
        None | Some("") => {}
        // Together says `eos` where the model stopped by itself.
        Some("stop" | "eos") => answer.finish(false),
        Some("length") => answer.finish(true),
        Some("content_filter") => {
            return Err(AgentError::fatal(
                AgentErrorKind::Rejected,
                "the provider's content filter stopped the text",
            ));
        }
        Some(other) => return Err(AgentError::unexpected_finish_reason(other)),
    }
    Ok(())
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
            prompt: "Write.".into(),
            max_tokens: 100,
        };
        let limits = Limits::within(std::time::Duration::from_secs(1));
        OpenAi::new(base_url, None, &[], limits)
            .unwrap()
            .body(&request)
    }

    #[test]
    fn openai_itself_gets_no_argument_that_its_newer_models_refuse() {
        let body = body("https://api.openai.com/v1");
        assert_eq!(body["max_completion_tokens"], 100 + REASONING_TOKENS);
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
