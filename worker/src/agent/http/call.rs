//! One call to an agent behind HTTP, made again where the endpoint refuses what
//! can be left out.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer::{Answer, Outcome};
use super::endpoint::Endpoint;
use super::error::CallError;
use super::model_profiles::{Change, ModelProfiles, Object};
use super::refused_argument;
use crate::agent::{
    AgentError, AgentErrorKind, Completion, CompletionRequest, Limits, ModelSettings, OnEvent,
    Usage,
};

/// How often a request is changed in one call.
const MAX_CHANGES: usize = 8;

/// The tokens for the thoughts of a model that was seen to have some, unless the
/// operator says how many.
const THINKING_TOKENS: u32 = 8192;

/// An endpoint, and what is known of its models.
pub(in crate::agent) struct HttpAgent {
    endpoint: Endpoint,
    profiles: ModelProfiles,
    pub(in crate::agent) settings: ModelSettings,
    /// The tokens for the thoughts of a model of which nothing is known.
    pub(in crate::agent) default_thinking_tokens: u32,
}

impl HttpAgent {
    /// See [`Endpoint::new`].
    pub(in crate::agent) fn new(
        base: &str,
        path: &[&str],
        headers: &[(String, String)],
        limits: Limits,
    ) -> anyhow::Result<Self> {
        Ok(HttpAgent {
            endpoint: Endpoint::new(base, path, headers, limits)?,
            profiles: ModelProfiles::default(),
            settings: ModelSettings::default(),
            default_thinking_tokens: 0,
        })
    }

    pub(in crate::agent) fn host(&self) -> &str {
        self.endpoint.host()
    }

    /// Makes a call with the body that `build` makes for so many tokens.
    pub(in crate::agent) async fn call<'a>(
        &'a self,
        request: &'a CompletionRequest,
        on_event: &'a OnEvent<'a>,
        build: impl Fn(u32) -> Value + Send + Sync,
    ) -> Result<Completion, AgentError> {
        // An answer may hold anything: whatever we do not foresee in one must not
        // cost more than this answer.
        let call = AssertUnwindSafe(self.adapt(request, on_event, build));
        call.catch_unwind().await.unwrap_or_else(|panic| {
            let message = format!("reading the answer panicked: {}", panic_message(&*panic));
            Err(AgentError::retry(AgentErrorKind::BadOutput, message))
        })
    }

    async fn adapt<'a>(
        &'a self,
        request: &'a CompletionRequest,
        on_event: &'a OnEvent<'a>,
        build: impl Fn(u32) -> Value + Send + Sync,
    ) -> Result<Completion, AgentError> {
        let model = &request.model;
        let end = Instant::now() + self.endpoint.limits.total_timeout;
        let mut spent = Usage::default();
        let mut of_this_call = Vec::new();
        for _ in 0..MAX_CHANGES {
            let mut changes = self.profiles.get(model);
            changes.extend_from_slice(&of_this_call);
            let thinking_tokens = self.thinking_tokens(model, &changes);
            let body = build(request.max_tokens.saturating_add(thinking_tokens));
            let body = self.adapted(body, &changes);
            let expects_thoughts = changes.contains(&Change::ThinksUnmarked);
            let change = match self.attempt(&body, end, expects_thoughts, on_event).await {
                Ok(Outcome::Text(mut completion, traits)) => {
                    if traits.unopened {
                        self.profiles.add(model, Change::ThinksUnmarked);
                    }
                    if traits.thoughts
                        && completion.truncated
                        && self.may_think_more(model, &changes)
                    {
                        self.profiles.add(model, Change::Thinks);
                    }
                    completion.usage = spent.and(completion.usage);
                    return Ok(completion);
                }
                Ok(Outcome::OnlyThoughts(usage)) => {
                    spent = spent.and(usage);
                    if !self.may_think_more(model, &changes) {
                        return Err(only_thoughts(thinking_tokens));
                    }
                    Change::Thinks
                }
                Err(CallError::Provider(error)) => {
                    match refused_argument::find(&error, &body, request.max_tokens) {
                        Some(change) if !changes.contains(&change) => change,
                        _ => return Err(error.into()),
                    }
                }
                Err(CallError::Agent(error)) => return Err(error),
            };
            match change {
                Change::ContextRoom(_) => of_this_call.push(change),
                change => self.profiles.add(model, change),
            }
        }
        let message = "the endpoint refuses the request, however it is changed";
        Err(AgentError::fatal(AgentErrorKind::Rejected, message))
    }

    async fn attempt<'a>(
        &'a self,
        body: &Object,
        end: Instant,
        expects_thoughts: bool,
        on_event: &'a OnEvent<'a>,
    ) -> Result<Outcome, CallError> {
        let mut stream = self.endpoint.send(body, end).await?;
        let (limits, redactor) = (self.endpoint.limits, &self.endpoint.redactor);
        let outcome = Answer::read(&mut stream, limits, redactor, expects_thoughts, on_event);
        let outcome = outcome.await?;
        stream.finish().await;
        Ok(outcome)
    }

    fn thinking_tokens(&self, model: &str, changes: &[Change]) -> u32 {
        let default = match changes.contains(&Change::Thinks) {
            true => THINKING_TOKENS,
            false => self.default_thinking_tokens,
        };
        self.settings.thinking_tokens.of(model).unwrap_or(default)
    }

    /// Whether it is up to us, and was not done yet.
    fn may_think_more(&self, model: &str, changes: &[Change]) -> bool {
        self.settings.thinking_tokens.of(model).is_none() && !changes.contains(&Change::Thinks)
    }

    fn adapted(&self, body: Value, changes: &[Change]) -> Object {
        let mut body = match body {
            Value::Object(body) => body,
            _ => Object::new(),
        };
        for (name, value) in &self.settings.extra_body {
            match value {
                Value::Null => body.remove(name),
                value => body.insert(name.clone(), value.clone()),
            };
        }
        changes.iter().for_each(|change| change.apply(&mut body));
        body
    }
}

impl fmt::Debug for HttpAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

fn only_thoughts(thinking_tokens: u32) -> AgentError {
    let example = json!({ "reasoning_effort": "low" });
    let message = format!(
        "the model used all its tokens, for thoughts it seems, and wrote no text: raise \
         AGENT_THINKING_TOKENS (now {thinking_tokens}), or have it think less by AGENT_EXTRA_BODY, \
         such as {example}"
    );
    AgentError::retry(AgentErrorKind::BadOutput, message)
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let owned = || panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(owned).unwrap_or("no message")
}
