//! The worker's agent as attempts call it: at the pace that the provider allows,
//! measured and traced.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::adaptive_limit::AdaptiveLimit;
use super::{Agent, AgentError, CallScope, Completion, CompletionRequest, Event, OnEvent, Traced};
use crate::metrics::Metrics;

pub(crate) struct LimitedAgent {
    agent: Traced,
    limit: Arc<AdaptiveLimit>,
    /// How long a call may wait until it is made.
    timeout: Duration,
    metrics: Arc<Metrics>,
}

impl LimitedAgent {
    pub(crate) fn new(
        agent: Arc<dyn Agent>,
        provider: &'static str,
        limit: Arc<AdaptiveLimit>,
        timeout: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        LimitedAgent {
            agent: Traced::new(agent, provider),
            limit,
            timeout,
            metrics,
        }
    }

    pub(crate) fn scope(&self) -> CallScope {
        self.agent.scope()
    }

    /// Calls the agent. A call that is refused for its rate is made again when the
    /// provider allows it. If that is too late: the refusal, or None if this call itself
    /// was not refused, but others were.
    pub(crate) async fn call(
        &self,
        request: &CompletionRequest,
        on_event: &OnEvent<'_>,
    ) -> Result<Completion, Option<AgentError>> {
        let deadline = Instant::now() + self.timeout;
        let mut refusal = None;
        while let Some(permit) = self.limit.acquire_call(deadline).await {
            let reply = self.agent.call(request, on_event);
            let reply = self.metrics.call(&request.model, reply).await;
            permit.finish(&reply);
            match reply {
                Err(error) if error.rate_limit_delay().is_some() => refusal = Some(error),
                reply => return reply.map_err(Some),
            }
            on_event(Event::Restarted);
        }
        Err(refusal)
    }
}
