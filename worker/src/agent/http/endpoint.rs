//! What the providers behind HTTP share: where they are asked, and how.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, Url, redirect};
use serde::Serialize;
use serde_json::Value;
use shared::trace::Span;
use tokio::time::{Instant, timeout_at};

use super::error;
use super::event_stream::EventStream;
use crate::agent::{AgentError, AgentErrorKind, Limits, OnEvent, log_excerpt};

/// The most that we read of an answer that is no stream, and how long.
const MAX_ERROR_BYTES: usize = 64 * 1024;
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a provider is asked.
pub(in crate::agent) struct Endpoint {
    url: Url,
    client: Client,
    /// What must not appear in any message, should the provider echo it.
    secrets: Vec<String>,
    pub(in crate::agent) limits: Limits,
}

impl Endpoint {
    /// `path` is appended to that of `base`; all of `headers` count as secret.
    pub(in crate::agent) fn new(
        base: &str,
        path: &[&str],
        headers: &[(String, String)],
        limits: Limits,
    ) -> anyhow::Result<Self> {
        let mut url = Url::parse(base.trim()).context("the agent's URL can't be read")?;
        anyhow::ensure!(
            matches!(url.scheme(), "http" | "https") && url.has_host(),
            "the agent's URL must begin with http:// or https://"
        );
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let secrets = headers
            .iter()
            .flat_map(|(_, value)| value.split_whitespace());
        Ok(Endpoint {
            client: client(&url, headers, limits)?,
            // Anything shorter is no secret, but may well be a common word.
            secrets: secrets
                .filter(|word| word.len() >= 8)
                .map(str::to_owned)
                .collect(),
            url,
            limits,
        })
    }

    pub(in crate::agent) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// Send `body` and wait until the answer begins.
    pub(in crate::agent) async fn send<'a>(
        &'a self,
        body: &impl Serialize,
        on_event: &'a OnEvent<'a>,
    ) -> Result<EventStream<'a>, AgentError> {
        let start = Instant::now();
        let until = start
            + self
                .limits
                .first_token_timeout
                .min(self.limits.total_timeout);
        let mut request = self.client.post(self.url.clone()).json(body);
        // Only with a collector; a model of one's own may send its spans there, too.
        if let Some(traceparent) = Span::current().traceparent() {
            request = request.header("traceparent", traceparent);
        }
        let response = match timeout_at(until, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.send_error(error)),
            Err(_) => {
                return Err(AgentError::retry(
                    AgentErrorKind::Timeout,
                    "no answer began in time",
                ));
            }
        };
        if !response.status().is_success() || !may_be_stream(&response) {
            return Err(self.status_error(response).await);
        }
        Ok(EventStream::new(self, response, start, until, on_event))
    }

    fn send_error(&self, error: reqwest::Error) -> AgentError {
        let failure = if error.is_timeout() {
            AgentErrorKind::Timeout
        } else {
            AgentErrorKind::Unavailable
        };
        let message = format!(
            "can't ask {}: {}",
            self.host(),
            error_chain(&error.without_url())
        );
        AgentError::retry(failure, self.redact(&message))
    }

    /// What an answer says that is no stream.
    async fn status_error(&self, response: Response) -> AgentError {
        let status = response.status();
        let after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        let after = after.and_then(|value| error::retry_after(value, entity::clock::now()));
        let body = self.redact(&read_limited(response).await);
        if !status.is_success() {
            return error::from_status(status.as_u16(), after, &body);
        }
        match serde_json::from_str::<Value>(&body) {
            Ok(value) if error::is_error(&value) => error::from_event(&value),
            _ => AgentError::retry(
                AgentErrorKind::BadOutput,
                format!("no event stream, but: {}", log_excerpt(&body, 200)),
            ),
        }
    }

    pub(in crate::agent) fn redact(&self, message: &str) -> String {
        self.secrets
            .iter()
            .fold(message.to_owned(), |text, secret| {
                text.replace(secret, "***")
            })
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the headers nor the whole URL: both may hold a key.
        f.debug_struct("Endpoint")
            .field("host", &self.host())
            .finish_non_exhaustive()
    }
}

fn client(url: &Url, headers: &[(String, String)], limits: Limits) -> anyhow::Result<Client> {
    // An error only says that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();

    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let key = HeaderName::try_from(name)
            .with_context(|| format!("{name:?} can't be a header's name"))?;
        let mut value = HeaderValue::try_from(value.trim()).with_context(|| {
            format!("the value of the header {name} holds characters that can't be sent")
        })?;
        value.set_sensitive(true);
        map.insert(key, value);
    }
    let mut builder = Client::builder()
        .user_agent(concat!("blog-post-api/", env!("CARGO_PKG_VERSION")))
        .default_headers(map)
        .connect_timeout(limits.connect)
        // Servers close connections that were used, llama.cpp's after each
        // stream, and a call that meets the close fails. A call takes seconds,
        // so a connection of its own costs it nothing.
        .pool_max_idle_per_host(0)
        // A redirect would carry the key to whoever it names.
        .redirect(redirect::Policy::none());
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    if url.scheme() == "http" {
        // Building would fail in a container without certificates, for nothing.
        builder = builder.tls_certs_only([]);
    }
    builder.build().context("can't set up the HTTP client")
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Few servers forget the type of a stream; those that answer in JSON or HTML
/// mean it.
fn may_be_stream(response: &Response) -> bool {
    let kind = response
        .headers()
        .get(CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    !kind.starts_with(b"application/json") && !kind.starts_with(b"text/html")
}

async fn read_limited(mut response: Response) -> String {
    let until = Instant::now() + ERROR_BODY_TIMEOUT;
    let mut body = Vec::new();
    while let Ok(Ok(Some(chunk))) = timeout_at(until, response.chunk()).await {
        body.extend_from_slice(&chunk);
        if body.len() >= MAX_ERROR_BYTES {
            break;
        }
    }
    String::from_utf8_lossy(&body).into_owned()
}

/// reqwest tells the cause only in the errors below its own.
pub(in crate::agent) fn error_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
