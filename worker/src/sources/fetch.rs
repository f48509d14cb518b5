//! Fetches pages for the sources of posts, in a way that harms nobody: only from public addresses, one
//! at a time from a host, within limits, and only where the site does not mind.

use std::collections::HashMap;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use entity::source::Status;
use flate2::read::MultiGzDecoder;
use futures_util::StreamExt;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, LOCATION,
};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use robotxt::Robots;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::addresses::is_public;

/// How long a page may take, with all of its redirects.
const MAX_TIME: Duration = Duration::from_secs(15);

/// How long the rules of a site may take.
const MAX_RULES_TIME: Duration = Duration::from_secs(5);

/// How much is read of a page, as it is sent.
const MAX_BYTES: usize = 5 * 1024 * 1024;

/// How much that may come to when it is unpacked.
const MAX_UNPACKED_BYTES: u64 = 20 * 1024 * 1024;

/// How much is read of a site's rules, as RFC 9309 asks for.
const MAX_RULES_BYTES: usize = 512 * 1024;

const MAX_REDIRECTS: usize = 3;

/// By this name sites may forbid it.
pub(super) const AGENT: &str = "BlogPostGeneration";

/// So many hosts are remembered.
const MAX_HOSTS: usize = 1_000;

/// So many sites of a host are remembered, each with rules of up to so many bytes.
const MAX_SITES: usize = 20;
const MAX_KEPT_RULES_BYTES: usize = 32 * 1024;

/// For how long the rules of a site are.
const RULES_AGE: Duration = Duration::from_secs(3600);

/// A page as its site sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Where it was found in the end.
    pub(super) url: Url,
    /// Its `Content-Type`, small; empty if there is none.
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
}

impl Page {
    /// Whether it is a PDF, whatever its site calls it.
    pub(super) fn is_pdf(&self) -> bool {
        self.body.starts_with(b"%PDF-")
    }
}

/// Fetches pages; one for all jobs of a worker.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: Client,
    allowed: Arc<AllowedHosts>,
    hosts: std::sync::Mutex<HashMap<String, Arc<Host>>>,
    /// How long a page may take.
    max_time: Duration,
}

/// A host, locked while something is fetched from it, with the rules of its sites and when they were
/// read, by their origins.
type Host = Mutex<HashMap<String, (Robots, Instant)>>;

/// Hosts that may have private addresses, by their names.
#[derive(Clone, Debug)]
struct AllowedHosts(Vec<String>);

impl AllowedHosts {
    fn has(&self, host: &str) -> bool {
        self.0.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

impl Fetcher {
    /// Fetches from public addresses, and from these hosts whatever their addresses.
    ///
    /// # Errors
    /// If TLS can't be set up.
    pub(super) fn new(private_hosts: &[String]) -> reqwest::Result<Self> {
        install_tls();
        let allowed = Arc::new(AllowedHosts(private_hosts.to_vec()));
        let client = Client::builder()
            .user_agent(format!("{AGENT}/{}", env!("CARGO_PKG_VERSION")))
            .dns_resolver(PublicResolver(allowed.clone()))
            // Each is looked at before it is followed.
            .redirect(Policy::none())
            // It would see the addresses, and reach what it likes.
            .no_proxy()
            .no_gzip()
            .connect_timeout(MAX_TIME)
            .build()?;
        Ok(Fetcher {
            client,
            allowed,
            hosts: Default::default(),
            max_time: MAX_TIME,
        })
    }

    /// Fetches a page, or says why not.
    pub(super) async fn fetch(&self, url: &str) -> Result<Page, Status> {
        let mut url = Url::parse(url).map_err(|_| Status::Unsupported)?;
        let mut left = self.max_time;
        for _ in 0..=MAX_REDIRECTS {
            self.check(&url)?;
            let host = self.host(&url);
            // One at a time. It may take long until it is our turn.
            let mut rules = host.lock().await;
            let begun = Instant::now();
            let visit = timeout(left, self.visit(url.clone(), &mut rules)).await;
            left = left.saturating_sub(begun.elapsed());
            match visit.map_err(|_| Status::Unreachable)?? {
                Visit::Page(page) => return Ok(page),
                Visit::Elsewhere(next) => url = next,
            }
        }
        Err(Status::Unreachable)
    }

    /// One request, after a look at the rules of the site.
    async fn visit(
        &self,
        url: Url,
        rules: &mut HashMap<String, (Robots, Instant)>,
    ) -> Result<Visit, Status> {
        let origin = url.origin().ascii_serialization();
        let known = rules
            .get(&origin)
            .filter(|(_, read)| read.elapsed() < RULES_AGE);
        let is_allowed = match known {
            Some((rules, _)) => rules.is_url_allowed(&url),
            None => {
                let (read, is_kept) = self.rules(&url).await;
                let is_allowed = read.is_url_allowed(&url);
                if is_kept {
                    if rules.len() >= MAX_SITES {
                        rules.clear();
                    }
                    rules.insert(origin, (read, Instant::now()));
                }
                is_allowed
            }
        };
        if !is_allowed {
            return Err(Status::Disallowed);
        }
        let response = self.get(url.clone()).await?;
        if response.status().is_redirection() {
            let next = redirect(&url, &response);
            return next.map(Visit::Elsewhere).ok_or(Status::Unreachable);
        }
        if !response.status().is_success() {
            return Err(Status::Unreachable);
        }
        if forbids_use(response.headers()) {
            return Err(Status::Disallowed);
        }
        let content_type = header(response.headers(), CONTENT_TYPE.as_str());
        let is_packed = match header(response.headers(), CONTENT_ENCODING.as_str()).as_str() {
            "" | "identity" => false,
            "gzip" | "x-gzip" => true,
            _ => return Err(Status::Unsupported),
        };
        let body = read(response, MAX_BYTES).await?;
        let body = if is_packed { unpack(body).await? } else { body };
        Ok(Visit::Page(Page {
            url,
            content_type,
            body,
        }))
    }

    /// Whether an address may be visited, as far as it tells itself. What a name leads to is checked
    /// when it is resolved.
    fn check(&self, url: &Url) -> Result<(), Status> {
        let host = url.host_str().unwrap_or_default();
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_private = literal.is_ok_and(|address| !is_public(address));
        let has_secrets = !url.username().is_empty() || url.password().is_some();
        if !matches!(url.scheme(), "http" | "https") || host.is_empty() || has_secrets {
            return Err(Status::Refused);
        }
        if is_private && !self.allowed.has(host) {
            return Err(Status::Refused);
        }
        Ok(())
    }

    fn host(&self, url: &Url) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= MAX_HOSTS {
            // Those that are locked stay with those who have locked them.
            hosts.clear();
        }
        let name = url.host_str().unwrap_or_default().to_owned();
        hosts.entry(name).or_default().clone()
    }

    /// What a site allows, and whether to remember that. If it answers with an error of its own,
    /// nothing; if it has no rules, all (RFC 9309, 2.3.1). If there is no answer the page itself will
    /// tell what is wrong.
    async fn rules(&self, page: &Url) -> (Robots, bool) {
        let Ok(mut url) = page.join("/robots.txt") else {
            return (Robots::allow_all(), false);
        };
        let until = Instant::now() + MAX_RULES_TIME;
        for _ in 0..=MAX_REDIRECTS {
            let response = match self.check(&url) {
                Ok(()) => timeout_at(until, self.get(url.clone())).await,
                Err(_) => return (Robots::allow_all(), false),
            };
            let Ok(Ok(response)) = response else {
                return (Robots::allow_all(), false);
            };
            let status = response.status();
            if status.is_redirection() {
                match redirect(&url, &response) {
                    Some(next) => url = next,
                    None => return (Robots::allow_all(), false),
                }
            } else if status.is_server_error() {
                return (Robots::disallow_all(), false);
            } else if !status.is_success() {
                return (Robots::allow_all(), true);
            } else {
                let body = timeout_at(until, read_up_to(response, MAX_RULES_BYTES)).await;
                let body = body.unwrap_or_default();
                return (
                    Robots::parse(&body, AGENT),
                    body.len() <= MAX_KEPT_RULES_BYTES,
                );
            }
        }
        (Robots::allow_all(), true)
    }

    async fn get(&self, url: Url) -> Result<Response, Status> {
        let request = self
            .client
            .get(url)
            .header(
                ACCEPT,
                "text/html, text/markdown, text/plain, application/pdf, application/xhtml+xml;q=0.9, */*;q=0.1",
            )
            .header(ACCEPT_ENCODING, "gzip");
        request.send().await.map_err(|error| {
            if is_refused(&error) {
                Status::Refused
            } else {
                Status::Unreachable
            }
        })
    }
}

/// Chooses the cryptography of TLS, before any client is built.
pub(super) fn install_tls() {
    // An error only says that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Where a response leads from a page.
fn redirect(from: &Url, response: &Response) -> Option<Url> {
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    from.join(location).ok()
}

enum Visit {
    Page(Page),
    Elsewhere(Url),
}

fn header(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a site says that its pages are not for machines that write.
/// <https://www.w3.org/community/reports/tdmrep/CG-FINAL-tdmrep-20240510/>
fn forbids_use(headers: &HeaderMap) -> bool {
    let robots = headers.get_all("x-robots-tag").iter();
    let robots = robots.filter_map(|value| value.to_str().ok());
    robots
        .flat_map(|value| value.split([',', ':']))
        .any(is_prohibition)
        || header(headers, "tdm-reservation") == "1"
}

/// Whether a value of `X-Robots-Tag`, or of the element `meta` of that name, forbids the use of a page.
pub(super) fn is_prohibition(value: &str) -> bool {
    let value = value.trim();
    ["noai", "noml", "noaitraining"]
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word))
}

/// A body of up to `limit` bytes.
pub(super) async fn read(response: Response, limit: usize) -> Result<Vec<u8>, Status> {
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(piece) = stream.next().await {
        body.extend_from_slice(&piece.map_err(|_| Status::Unreachable)?);
        if body.len() > limit {
            return Err(Status::TooLarge);
        }
    }
    Ok(body)
}

/// The beginning of a body.
async fn read_up_to(response: Response, limit: usize) -> Vec<u8> {
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(Ok(piece)) = stream.next().await {
        body.extend_from_slice(&piece);
        if body.len() >= limit {
            body.truncate(limit);
            break;
        }
    }
    body
}

async fn unpack(body: Vec<u8>) -> Result<Vec<u8>, Status> {
    let unpacked = tokio::task::spawn_blocking(move || {
        let mut unpacked = Vec::new();
        let mut reader = MultiGzDecoder::new(body.as_slice()).take(MAX_UNPACKED_BYTES + 1);
        reader
            .read_to_end(&mut unpacked)
            .map_err(|_| Status::Unreachable)?;
        if unpacked.len() as u64 > MAX_UNPACKED_BYTES {
            return Err(Status::TooLarge);
        }
        Ok(unpacked)
    });
    unpacked.await.map_err(|_| Status::Unreachable)?
}

/// Resolves names to public addresses: the connection goes to one that was checked here, whatever the
/// name leads to a moment later.
struct PublicResolver(Arc<AllowedHosts>);

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let is_allowed = self.0.has(name.as_str());
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<SocketAddr> = found.collect();
            if !is_allowed && found.iter().any(|address| !is_public(address.ip())) {
                return Err(PrivateAddress.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the name leads to a private address")]
struct PrivateAddress;

fn is_refused(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<PrivateAddress>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::Request;
    use axum::response::{IntoResponse, Redirect};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    /// A site on 127.0.0.1: its port, and the paths that are asked for.
    async fn site() -> (u16, UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, seen) = unbounded_channel();
        let answer = move |request: Request| {
            let path = request.uri().path().to_owned();
            tell.send(path.clone()).unwrap();
            async move {
                match path.as_str() {
                    "/robots.txt" => Redirect::temporary(&format!("http://localhost:{port}/rules"))
                        .into_response(),
                    "/rules" => "User-agent: *\nDisallow: /\n".into_response(),
                    "/hangs" => std::future::pending().await,
                    _ => "Tomatoes need sun.".into_response(),
                }
            }
        };
        let router = Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        (port, seen)
    }

    fn fetcher() -> Fetcher {
        Fetcher::new(&["127.0.0.1".to_owned()]).unwrap()
    }

    #[tokio::test]
    async fn rules_are_not_read_from_where_pages_are_not() {
        let (port, mut seen) = site().await;
        let page = fetcher()
            .fetch(&format!("http://127.0.0.1:{port}/page"))
            .await;
        assert_eq!(page.unwrap().body, b"Tomatoes need sun.");
        assert_eq!(seen.recv().await.unwrap(), "/robots.txt");
        assert_eq!(seen.recv().await.unwrap(), "/page");
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_private_address_is_not_connected_to() {
        let (port, mut seen) = site().await;
        let page = fetcher()
            .fetch(&format!("http://localhost:{port}/page"))
            .await;
        assert_eq!(page, Err(Status::Refused));
        assert!(seen.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_page_that_does_not_come_is_given_up() {
        let (port, _seen) = site().await;
        let mut fetcher = fetcher();
        fetcher.max_time = Duration::from_millis(300);
        let page = fetcher
            .fetch(&format!("http://127.0.0.1:{port}/hangs"))
            .await;
        assert_eq!(page, Err(Status::Unreachable));
        // The host is free for the next one.
        fetcher.max_time = MAX_TIME;
        let page = fetcher
            .fetch(&format!("http://127.0.0.1:{port}/page"))
            .await;
        assert!(page.is_ok());
    }
}
