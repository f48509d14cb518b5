//! Where a provider is asked, and how a request is sent there.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue, LOCATION,
};
use reqwest::{Client, Response, Url, redirect};
use shared::trace::Span;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use super::error::{CallError, ProviderError};
use super::event_stream::EventStream;
use super::model_profiles::Object;
use super::redactor::Redactor;
use super::retry_after;
use crate::agent::{AgentError, AgentErrorKind, Limits};

/// The most that is read of an error's body, and how long.
const MAX_ERROR_BYTES: usize = 64 * 1024;
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);

const MAX_REDIRECTS: usize = 3;

/// How long a connection is kept for the next call: less than the five seconds of servers that keep
/// it shortest.
const IDLE_CONNECTION: Duration = Duration::from_secs(4);

/// How soon a request fails that was sent on a connection which the server was closing. One that is
/// refused later may have cost something.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);

/// Where a provider is asked.
pub(super) struct Endpoint {
    /// Of several that may be meant, the one that answers.
    urls: Vec<Url>,
    used: AtomicUsize,
    /// Keeps connections for the next calls.
    client: Client,
    /// Opens a connection for each call.
    connecting: Client,
    /// Whether it has answered, so that there may be connections that were kept.
    has_answered: AtomicBool,
    pub(super) redactor: Redactor,
    pub(super) limits: Limits,
}

impl Endpoint {
    /// `path` is appended to that of `base`, if it does not end with it; all of
    /// `headers` count as secret.
    pub(super) fn new(
        base: &str,
        path: &[&str],
        headers: &[(String, String)],
        limits: Limits,
    ) -> anyhow::Result<Self> {
        let base = Url::parse(base.trim()).context("the agent's URL can't be read")?;
        anyhow::ensure!(
            matches!(base.scheme(), "http" | "https") && base.has_host(),
            "the agent's URL must begin with http:// or https://"
        );
        let query = base
            .query_pairs()
            .filter(|(name, _)| name.to_lowercase().contains("key"));
        let query: Vec<String> = query.map(|(_, value)| value.into_owned()).collect();
        let values = headers.iter().map(|(_, value)| value.as_str());
        Ok(Endpoint {
            client: client(&base, headers, limits, usize::MAX)?,
            connecting: client(&base, headers, limits, 0)?,
            has_answered: AtomicBool::new(false),
            redactor: Redactor::new(values.chain(query.iter().map(String::as_str))),
            urls: completion_urls(&base, path),
            used: AtomicUsize::new(0),
            limits,
        })
    }

    pub(super) fn host(&self) -> &str {
        self.urls[0].host_str().unwrap_or_default()
    }

    /// Sends `body`, and waits until the answer begins. An answer that is not
    /// streamed begins when it is whole.
    pub(super) async fn send(&self, body: &Object, end: Instant) -> Result<EventStream, CallError> {
        let begin = match body.get("stream").is_some_and(|stream| *stream == true) {
            true => end.min(Instant::now() + self.limits.first_token_timeout),
            false => end,
        };
        // Another call may change it meanwhile.
        let used = self.used.load(Ordering::Relaxed);
        let mut response = self.post(used, body, begin).await?;
        if matches!(response.status().as_u16(), 404 | 405) && self.urls.len() > 1 {
            let other = 1 - used;
            let second = self.post(other, body, begin).await?;
            if !matches!(second.status().as_u16(), 404 | 405) {
                self.used.store(other, Ordering::Relaxed);
                response = second;
            }
        }
        if !response.status().is_success() {
            return Err(CallError::Provider(self.read_error(response).await));
        }
        if let Some(encoding) = response.headers().get(CONTENT_ENCODING)
            && encoding != "identity"
        {
            let message = format!("the answer is encoded as {encoding:?}, for which nobody asked");
            return Err(AgentError::retry(AgentErrorKind::BadOutput, message).into());
        }
        Ok(EventStream::new(
            response,
            self.limits,
            self.redactor.clone(),
            (begin, end),
        ))
    }

    async fn post(
        &self,
        url: usize,
        body: &Object,
        begin: Instant,
    ) -> Result<Response, AgentError> {
        let sent = Instant::now();
        let mut result = self.send_with(&self.client, url, body, begin).await;
        // Servers close connections that were used, llama.cpp's after each stream.
        if let Ok(Err(error)) = &result
            && self.has_answered.load(Ordering::Relaxed)
            && !error.is_connect()
            && sent.elapsed() < CLOSED_WITHIN
        {
            result = self.send_with(&self.connecting, url, body, begin).await;
        }
        match result {
            Ok(Ok(response)) => {
                self.has_answered.store(true, Ordering::Relaxed);
                Ok(response)
            }
            Ok(Err(error)) => Err(self.send_error(error)),
            Err(_) => Err(AgentError::retry(
                AgentErrorKind::Timeout,
                "no answer began in time",
            )),
        }
    }

    async fn send_with(
        &self,
        client: &Client,
        url: usize,
        body: &Object,
        begin: Instant,
    ) -> Result<reqwest::Result<Response>, Elapsed> {
        let mut request = client.post(self.urls[url].clone()).json(body);
        // Only with a collector; a model of one's own may send its spans there, too.
        if let Some(traceparent) = Span::current().traceparent() {
            request = request.header("traceparent", traceparent);
        }
        timeout_at(begin, request.send()).await
    }

    fn send_error(&self, error: reqwest::Error) -> AgentError {
        let failure = if error.is_timeout() {
            AgentErrorKind::Timeout
        } else {
            AgentErrorKind::Unavailable
        };
        let cause = self.redactor.cause(error);
        AgentError::retry(
            failure,
            format!("can't send a request to {}: {cause}", self.host()),
        )
    }

    async fn read_error(&self, response: Response) -> ProviderError {
        let status = response.status();
        let headers = response.headers().clone();
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.filter(|_| status.is_redirection());
        let mut body = self.redactor.redact(&read_limited(response).await);
        if let Some(location) = location {
            // Without its query, which may hold a key.
            let location = location.split('?').next().unwrap_or_default();
            body = format!(
                "the endpoint has moved to {}",
                self.redactor.redact(location)
            );
        }
        let status = status.as_u16();
        let after = retry_after::delay(status, &headers, &body, entity::clock::now());
        ProviderError::from_response(status, after, &body)
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

/// Where completions are to be asked for, given what people write: the server
/// alone, or up to the version, or the whole path. Of a server alone it is not
/// known whether it has versions.
fn completion_urls(base: &Url, path: &[&str]) -> Vec<Url> {
    let mut base = base.clone();
    base.set_path(base.path().to_owned().trim_end_matches('/'));
    let given = base.path().split('/').filter(|segment| !segment.is_empty());
    let given: Vec<&str> = given.collect();
    let known = (0..=path.len())
        .rev()
        .find(|n| given.ends_with(&path[..*n]));
    let known = known.unwrap_or_default();
    let start = &given[..given.len() - known];
    let with = |version: Option<&str>| {
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            (0..known).for_each(|_| {
                segments.pop();
            });
            segments.pop_if_empty().extend(version).extend(path);
        }
        url
    };
    let is_version = |segment: &&str| {
        let number = segment.strip_prefix('v').unwrap_or_default();
        number.starts_with(|c: char| c.is_ascii_digit())
    };
    let has_version = start.last().is_some_and(is_version);
    match (known == path.len(), path) {
        (false, ["messages"]) if !has_version => vec![with(Some("v1"))],
        (false, ["chat", ..]) if start.is_empty() => vec![with(Some("v1")), with(None)],
        _ => vec![with(None)],
    }
}

/// A client that keeps up to so many connections that are not in use.
fn client(
    url: &Url,
    headers: &[(String, String)],
    limits: Limits,
    max_idle: usize,
) -> anyhow::Result<Client> {
    // An error only says that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();

    let mut map = HeaderMap::new();
    // A compressed stream comes in blocks. Some compress it all the same.
    map.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
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
        .pool_max_idle_per_host(max_idle)
        .pool_idle_timeout(IDLE_CONNECTION)
        .redirect(redirect::Policy::custom(redirect_within_server));
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    if url.scheme() == "http" {
        // Building would fail in a container without certificates, for nothing.
        builder = builder.tls_certs_only([]);
    }
    builder.build().context("can't set up the HTTP client")
}

/// Follows a redirect that keeps the method and the server, as for a slash at the
/// path's end. Any other would carry the key to whoever it names.
fn redirect_within_server(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let keeps_method = matches!(attempt.status().as_u16(), 307 | 308);
    let keeps_server = attempt
        .previous()
        .last()
        .is_some_and(|from| from.origin() == attempt.url().origin());
    if keeps_method && keeps_server && attempt.previous().len() <= MAX_REDIRECTS {
        attempt.follow()
    } else {
        attempt.stop()
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(base: &str, path: &[&str]) -> Vec<String> {
        let urls = completion_urls(&Url::parse(base).unwrap(), path);
        urls.into_iter().map(String::from).collect()
    }

    #[test]
    fn a_url_may_be_given_up_to_anywhere() {
        let chat = "http://a/v1/chat/completions";
        for base in [
            "http://a/v1",
            "http://a/v1/",
            chat,
            "http://a/v1/chat/completions/",
            "http://a/v1/chat/",
        ] {
            assert_eq!(urls(base, &["chat", "completions"]), [chat], "{base}");
        }
        let root = [chat, "http://a/chat/completions"];
        for base in ["http://a", "http://a/"] {
            assert_eq!(urls(base, &["chat", "completions"]), root, "{base}");
        }
        let azure = "https://n.openai.azure.com/openai/deployments/d";
        let query = "?api-version=2024-10-21";
        let whole = format!("{azure}/chat/completions{query}");
        for base in [
            format!("{azure}{query}"),
            format!("{azure}/{query}"),
            whole.clone(),
        ] {
            assert_eq!(
                urls(&base, &["chat", "completions"]),
                [whole.as_str()],
                "{base}"
            );
        }
        let messages = "http://a/v1/messages";
        for base in [
            "http://a",
            "http://a/",
            "http://a/v1",
            "http://a/v1/",
            messages,
        ] {
            assert_eq!(urls(base, &["messages"]), [messages], "{base}");
        }
        assert_eq!(
            urls("http://a/anthropic", &["messages"]),
            ["http://a/anthropic/v1/messages"]
        );
        assert_eq!(
            urls("http://a/api/messages", &["messages"]),
            ["http://a/api/messages"]
        );
    }
}
