use std::sync::Arc;

use futures_util::future::BoxFuture;
use shared::trace::Span;

use super::{Agent, AgentError, CallScope, Completion, CompletionRequest, Event};

/// An agent whose calls show in traces, under the names that OpenTelemetry has
/// for what calls to models consist of. What is asked and written is not told.
/// <https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/>
pub(super) struct Traced {
    agent: Arc<dyn Agent>,
    /// Who it is, such as `openai`.
    provider: &'static str,
}

impl Traced {
    /// `agent`, under the name of its provider.
    pub(super) fn new(agent: Arc<dyn Agent>, provider: &'static str) -> Self {
        Traced { agent, provider }
    }

    fn start_span(&self, request: &CompletionRequest) -> Span {
        let operation = match self.scope() {
            CallScope::Section => "chat",
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
        on_event: &'a (dyn Fn(Event) + Send + Sync),
    ) -> BoxFuture<'a, Result<Completion, AgentError>> {
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
