//! Traces of the calls to an agent.

use std::sync::Arc;

use shared::trace::Span;

use super::{Agent, AgentError, CallFuture, CallScope, Completion, CompletionRequest, OnEvent};

/// An agent whose calls are spans with OpenTelemetry's attributes for generative
/// AI. Prompts and answers are not recorded.
/// <https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/>
pub(super) struct Traced {
    agent: Arc<dyn Agent>,
    /// Such as `openai`.
    provider: &'static str,
}

impl Traced {
    pub(super) fn new(agent: Arc<dyn Agent>, provider: &'static str) -> Self {
        Traced { agent, provider }
    }

    fn start_span(&self, request: &CompletionRequest) -> Span {
        let operation = match self.scope() {
            CallScope::Prompt => "chat",
            CallScope::WholePost => "invoke_agent",
        };
        let span = Span::client(format_args!("{operation} {}", request.model));
        span.set_attribute("gen_ai.operation.name", operation);
        span.set_attribute("gen_ai.provider.name", self.provider);
        span.set_attribute("gen_ai.request.model", request.model.clone());
        span
    }
}

impl Agent for Traced {
    fn scope(&self) -> CallScope {
        self.agent.scope()
    }

    fn call<'a>(
        &'a self,
        request: &'a CompletionRequest,
        on_event: &'a OnEvent<'a>,
    ) -> CallFuture<'a> {
        Box::pin(async move {
            let span = self.start_span(request);
            let reply = span.scope(self.agent.call(request, on_event)).await;
            end_span(&span, &reply);
            reply
        })
    }
}

fn end_span(span: &Span, reply: &Result<Completion, AgentError>) {
    match reply {
        Ok(Completion { usage, .. }) => {
            span.set_attribute("gen_ai.usage.input_tokens", i64::from(usage.input_tokens));
            span.set_attribute("gen_ai.usage.output_tokens", i64::from(usage.output_tokens));
        }
        Err(error) => span.set_error(error.kind()),
    }
}
