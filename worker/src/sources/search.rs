//! Searches the web, by the service that the operator has chosen.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use entity::source::FoundPage;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::config::{SearchKind, SearchSettings, Secret};
use tokio::time::sleep;

use super::extract::shorten;
use super::fetch::{AGENT, install_tls, read};

/// How long one query may take.
const MAX_TIME: Duration = Duration::from_secs(10);

/// How much is read of an answer.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// How many results are asked for, and used, of each query.
const MAX_RESULTS: usize = 10;

/// A longer address is not taken, as from a client.
const MAX_URL_BYTES: usize = 2_000;

/// How often a query is sent that the service is too busy for.
const MAX_TRIES: usize = 3;

/// How long to wait in between, at most; some plans allow one query a second.
const MAX_PAUSE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(1100);

/// How many pages of one site are used.
const MAX_PER_SITE: usize = 2;

/// A search of the web.
#[derive(Debug)]
pub(crate) struct Search {
    client: Client,
    kind: SearchKind,
    url: Url,
}

impl Search {
    /// The search that the settings describe, if they describe one.
    ///
    /// # Errors
    /// When one of its settings is missing or can't be read, naming it.
    pub(super) fn new(
        settings: &SearchSettings,
        key: Option<&Secret>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(kind) = settings.kind() else {
            return Ok(None);
        };
        let (default, path) = match kind {
            SearchKind::Searxng => (None, "search"),
            SearchKind::Brave => (Some("https://api.search.brave.com"), "res/v1/web/search"),
            SearchKind::Tavily => (Some("https://api.tavily.com"), "search"),
        };
        let Some(base) = settings.search_url.as_deref().or(default) else {
            bail!("SEARCH_URL: SEARCH=searxng needs the address of a SearXNG");
        };
        // What it says is not repeated: it may hold a password.
        let url = Url::parse(&format!("{}/{path}", base.trim_end_matches('/')));
        let url = url
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"));
        let url =
            url.context("SEARCH_URL: write an address that begins with http:// or https://")?;
        install_tls();
        let client = Client::builder()
            .user_agent(AGENT)
            .default_headers(key_header(kind, key)?)
            .redirect(Policy::none())
            .timeout(MAX_TIME)
            .build()?;
        Ok(Some(Search { client, kind, url }))
    }

    /// What a query finds, the best first.
    pub(crate) async fn find(
        &self,
        query: &str,
        language: Option<&str>,
    ) -> Result<Vec<FoundPage>, SearchError> {
        for tries in 1.. {
            let response = self.request(query, language).send().await;
            let response =
                response.map_err(|error| SearchError::Unreachable(error.without_url()))?;
            let status = response.status();
            if status == StatusCode::TOO_MANY_REQUESTS && tries < MAX_TRIES {
                let seconds = response.headers().get(RETRY_AFTER);
                let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
                let pause = seconds.map_or(PAUSE, Duration::from_secs);
                sleep(pause.clamp(PAUSE, MAX_PAUSE)).await;
                continue;
            }
            if !status.is_success() {
                return Err(SearchError::Refused(status));
            }
            let body = read(response, MAX_BYTES).await;
            let body = body.map_err(|_| SearchError::BrokenOff)?;
            return self.results(&body, query).ok_or(SearchError::BadAnswer);
        }
        Ok(Vec::new())
    }

    fn request(&self, query: &str, language: Option<&str>) -> RequestBuilder {
        let mut url = self.url.clone();
        match self.kind {
            SearchKind::Searxng => {
                let mut pairs = url.query_pairs_mut();
                pairs.extend_pairs([("q", query), ("format", "json")]);
                if let Some(tag) = language.and_then(searxng_language) {
                    pairs.append_pair("language", &tag);
                }
                drop(pairs);
                self.client.get(url)
            }
            SearchKind::Brave => {
                let count = MAX_RESULTS.to_string();
                url.query_pairs_mut()
                    .extend_pairs([("q", query), ("count", &count)]);
                self.client.get(url)
            }
            SearchKind::Tavily => {
                let body = json!({ "query": query, "max_results": MAX_RESULTS });
                self.client.post(url).json(&body)
            }
        }
    }

    fn results(&self, body: &[u8], query: &str) -> Option<Vec<FoundPage>> {
        let answer: Answer = serde_json::from_slice(body).ok()?;
        let results = match self.kind {
            SearchKind::Brave => answer.web.map_or_else(Vec::new, |web| web.results),
            SearchKind::Searxng | SearchKind::Tavily => answer.results?,
        };
        let page = |result: Value| {
            let url = Url::parse(result["url"].as_str()?).ok()?;
            let title = result["title"].as_str().map(shorten);
            let is_usable =
                matches!(url.scheme(), "http" | "https") && url.as_str().len() <= MAX_URL_BYTES;
            is_usable.then(|| FoundPage {
                url: url.into(),
                title: title.filter(|title| !title.is_empty()),
                query: query.to_owned(),
            })
        };
        Some(
            results
                .into_iter()
                .filter_map(page)
                .take(MAX_RESULTS)
                .collect(),
        )
    }
}

/// A BCP 47 tag as SearXNG takes it: a language of two or three letters, and perhaps a country.
fn searxng_language(tag: &str) -> Option<String> {
    let mut parts = tag.split('-');
    let language = parts.next()?.to_ascii_lowercase();
    let country = parts.find(|part| part.len() == 2);
    let country = country.map(|country| format!("-{}", country.to_ascii_uppercase()));
    let is_language = (2..=3).contains(&language.len());
    is_language.then(|| language + &country.unwrap_or_default())
}

/// The key, as each service wants it.
fn key_header(kind: SearchKind, key: Option<&Secret>) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let key = match (kind, key.map(|key| key.expose().trim())) {
        (SearchKind::Searxng, None) => return Ok(headers),
        (SearchKind::Brave | SearchKind::Tavily, None) => {
            bail!("SEARCH_API_KEY: this search needs a key")
        }
        (_, Some(key)) => key,
    };
    let (name, value) = match kind {
        SearchKind::Brave => ("x-subscription-token", key.to_owned()),
        SearchKind::Searxng | SearchKind::Tavily => ("authorization", format!("Bearer {key}")),
    };
    let Ok(mut value) = HeaderValue::try_from(value) else {
        bail!("SEARCH_API_KEY: it holds characters that can't be sent");
    };
    value.set_sensitive(true);
    headers.insert(HeaderName::from_static(name), value);
    Ok(headers)
}

/// Why a search has brought nothing. Operators read this.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SearchError {
    #[error("the search does not answer: {0}")]
    Unreachable(reqwest::Error),
    /// A SearXNG answers 403 if its settings do not allow the format JSON.
    #[error(
        "the search answered {0}; if it is always so, check SEARCH_URL, SEARCH_API_KEY, and that a \
         SearXNG has json in search.formats"
    )]
    Refused(StatusCode),
    #[error("the search takes too long")]
    TooSlow,
    #[error("the search's answer breaks off, or is too large")]
    BrokenOff,
    #[error("this worker has no search: SEARCH_URL is not set")]
    NotConfigured,
    #[error("the search answered something else than results; check SEARCH and SEARCH_URL")]
    BadAnswer,
}

/// What SearXNG (<https://docs.searxng.org/dev/search_api.html>), Brave
/// (<https://api-dashboard.search.brave.com/app/documentation/web-search>) and Tavily
/// (<https://docs.tavily.com/documentation/api-reference/endpoint/search>) answer, as far as it is
/// used.
#[derive(Deserialize)]
struct Answer {
    results: Option<Vec<Value>>,
    web: Option<Results>,
}

#[derive(Deserialize)]
struct Results {
    results: Vec<Value>,
}

/// The best of the results of several queries: what stands high in many of them (reciprocal rank
/// fusion), of no site more than a few, and none of `known`.
/// <https://dl.acm.org/doi/10.1145/1571941.1572114>
pub(crate) fn best(results: Vec<Vec<FoundPage>>, known: &[String], count: usize) -> Vec<FoundPage> {
    const K: f64 = 60.0;
    let known: Vec<String> = known.iter().filter_map(|url| identity(url)).collect();
    let mut found: Vec<(String, f64, FoundPage)> = Vec::new();
    for pages in results {
        for (rank, page) in pages.into_iter().enumerate() {
            let Some(id) = identity(&page.url).filter(|id| !known.contains(id)) else {
                continue;
            };
            let score = 1.0 / (K + rank as f64);
            match found.iter_mut().find(|(other, ..)| *other == id) {
                Some((_, sum, _)) => *sum += score,
                None => found.push((id, score, page)),
            }
        }
    }
    // Stable: of equal ones the first query's comes first.
    found.sort_by(|(_, a, _), (_, b, _)| b.total_cmp(a));
    let mut per_site: HashMap<String, usize> = HashMap::new();
    let pages = found.into_iter().filter(|(id, ..)| {
        let site = id.split(['/', '?']).next().unwrap_or_default();
        let count = per_site.entry(site.to_owned()).or_default();
        *count += 1;
        *count <= MAX_PER_SITE
    });
    pages.map(|(_, _, page)| page).take(count).collect()
}

/// What an address leads to: without its scheme, fragment, and what only tells where a reader comes
/// from.
fn identity(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str()?.trim_start_matches("www.");
    let port = url
        .port()
        .map_or_else(String::new, |port| format!(":{port}"));
    let query = url.query_pairs();
    let query = query.filter(|(name, _)| !name.starts_with("utm_") && name != "ref");
    let query: Vec<String> = query
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let path = url.path().trim_end_matches('/');
    Some(format!("{host}{port}{path}?{}", query.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(urls: &[&str]) -> Vec<FoundPage> {
        let page = |url: &&str| FoundPage {
            url: (*url).to_owned(),
            title: None,
            query: "tomatoes".to_owned(),
        };
        urls.iter().map(page).collect()
    }

    fn urls(pages: &[FoundPage]) -> Vec<&str> {
        pages.iter().map(|page| page.url.as_str()).collect()
    }

    #[test]
    fn what_several_queries_find_comes_first_and_no_site_has_it_all() {
        let results = vec![
            pages(&[
                "https://a.example/1",
                "https://a.example/2",
                "https://a.example/3",
                "https://www.b.example/x/?utm_source=y#z",
            ]),
            pages(&["https://c.example/", "http://b.example/x"]),
        ];
        let found = best(results.clone(), &[], 10);
        assert_eq!(
            urls(&found),
            [
                "https://www.b.example/x/?utm_source=y#z",
                "https://a.example/1",
                "https://c.example/",
                "https://a.example/2",
            ]
        );
        let known = ["http://a.example/1/".to_owned()];
        let found = best(results, &known, 2);
        assert_eq!(urls(&found)[1], "https://c.example/");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn pages_at_the_root_of_a_site_are_of_one_site() {
        let results = vec![pages(&[
            "https://a.example/?p=1",
            "https://a.example/?p=2",
            "https://a.example/?p=3",
            "https://b.example",
        ])];
        assert_eq!(best(results, &[], 10).len(), 3);
    }

    #[test]
    fn a_language_is_told_as_a_searxng_takes_it() {
        for (tag, told) in [
            ("de", Some("de")),
            ("EN-gb", Some("en-GB")),
            ("zh-Hant-TW", Some("zh-TW")),
            ("sr-Latn", Some("sr")),
            ("es-419", Some("es")),
            ("x-elvish", None),
        ] {
            assert_eq!(searxng_language(tag).as_deref(), told, "{tag}");
        }
    }

    #[test]
    fn what_is_no_result_spoils_no_others() {
        let search = Search::new(&settings(None, Some("http://searx.example/")), None);
        let search = search.unwrap().unwrap();
        let long = format!("https://long.example/{}", "x".repeat(3_000));
        let answer = json!({ "results": [{ "url": null, "title": "No" }, "no", { "title": "No" },
            { "url": "javascript:alert(1)" }, { "url": long },
            { "url": "https://a.example/", "title": "A\u{0}\nb" }] });
        let found = search.results(answer.to_string().as_bytes(), "q").unwrap();
        assert_eq!(urls(&found), ["https://a.example/"]);
        assert_eq!(found[0].title.as_deref(), Some("A b"));
        assert!(search.results(b"[]", "q").is_none());
    }

    fn settings(kind: Option<SearchKind>, url: Option<&str>) -> SearchSettings {
        SearchSettings {
            search: kind,
            search_url: url.map(str::to_owned),
        }
    }

    #[test]
    fn a_setting_that_is_missing_is_named() {
        let secret = Secret::from("key\n");
        for (kind, url, key, named) in [
            (Some(SearchKind::Searxng), None, None, "SEARCH_URL"),
            (None, Some("searx.example"), None, "SEARCH_URL"),
            (None, Some("ftp://searx.example"), None, "SEARCH_URL"),
            (Some(SearchKind::Brave), None, None, "SEARCH_API_KEY"),
            (
                Some(SearchKind::Tavily),
                None,
                Some(Secret::from("a\u{1}b")),
                "SEARCH_API_KEY",
            ),
        ] {
            let error = Search::new(&settings(kind, url), key.as_ref()).unwrap_err();
            assert!(error.to_string().starts_with(named), "{error}");
        }
        assert!(Search::new(&settings(None, None), None).unwrap().is_none());
        let brave = Search::new(&settings(Some(SearchKind::Brave), None), Some(&secret));
        let brave = brave.unwrap().unwrap();
        assert_eq!(
            brave.url.as_str(),
            "https://api.search.brave.com/res/v1/web/search"
        );
    }
}
