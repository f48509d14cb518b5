use std::sync::Arc;

use futures_util::future::BoxFuture;
use shared::trace::Span;

use super::{Agent, AgentError, Event, Reply, Request, Scope};

/// An agent whose calls show in traces, under the names that OpenTelemetry has
/// for what calls to models consist of. What is asked and written is not told.
/// <https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/>
pub struct Traced {
    agent: Arc<dyn Agent>,
    /// Who it is, such as `openai`.
    provider: &'static str,
}

impl Traced {
    /// `agent`, under the name of its provider.
    pub fn new(agent: Arc<dyn Agent>, provider: &'static str) -> Self {
        Traced { agent, provider }
    }

    fn begin(&self, request: &Request) -> Span {
        let operation = match self.scope() {
            Scope::Step => "chat",
            Scope::Post => "invoke_agent",
        };
        let span = Span::of_call(format_args!("{operation} {}", request.model));
        span.tell("gen_ai.operation.name", operation);
        span.tell("gen_ai.provider.name", self.provider);
        span.tell("gen_ai.request.model", request.model.clone());
        span
    }
}

impl Agent for Traced {
    fn scope(&self) -> Scope {
        self.agent.scope()
    }

    fn call<'a>(
        &'a self,
        request: &'a Request,
        on_event: &'a (dyn Fn(Event) + Send + Sync),
    ) -> BoxFuture<'a, Result<Reply, AgentError>> {
        Box::pin(async move {
            let span = self.begin(request);
            let reply = span.around(self.agent.call(request, on_event)).await;
            end(&span, &reply);
            reply
        })
    }
}

fn end(span: &Span, reply: &Result<Reply, AgentError>) {
    match reply {
        Ok(Reply { usage, .. }) => {
            span.tell("gen_ai.usage.input_tokens", i64::from(usage.input_tokens));
            span.tell("gen_ai.usage.output_tokens", i64::from(usage.output_tokens));
        }
        Err(error) => span.fail(error.failure()),
    }
}
