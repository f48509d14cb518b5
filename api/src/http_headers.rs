//! Parses `Accept`, `Prefer` and `If-(None-)Match`, and makes `ETag`s.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ring::digest;

use crate::auth::tokens::hex;

/// The maximum of `Prefer: wait` (RFC 7240).
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(60);

/// A representation of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The whole post.
    Json,
    /// Its content as it is stored.
    Markdown,
    /// Its content, rendered.
    Html,
}

/// The format that `Accept` prefers; of equals, in the order of [`Format`].
pub(crate) fn accepted_format(headers: &HeaderMap) -> Format {
    let accept = headers.get(header::ACCEPT);
    let Some(accept) = accept.and_then(|accept| accept.to_str().ok()) else {
        return Format::Json;
    };
    // Of equals, the last is taken.
    let formats = [
        (Format::Html, "text/html"),
        (Format::Markdown, "text/markdown"),
        (Format::Json, "application/json"),
    ];
    let best = formats
        .into_iter()
        .max_by_key(|(_, name)| quality(accept, name));
    best.map_or(Format::Json, |(format, _)| format)
}

/// Whether `Accept` prefers JSON to `other`, which is sent by default.
pub(crate) fn prefers_json_to(headers: &HeaderMap, other: &str) -> bool {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| quality(accept, "application/json") > quality(accept, other))
}

/// The quality of a media type in `accept`, in thousandths, by the most specific range that matches
/// it (RFC 9110, 12.5.1).
fn quality(accept: &str, media_type: &str) -> u16 {
    let kind = media_type.split('/').next().unwrap_or_default();
    let mut found = (0, 0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let specific = match parts.next().unwrap_or_default() {
            name if name.eq_ignore_ascii_case(media_type) => 3,
            name if name.strip_suffix("/*").is_some_and(|k| k == kind) => 2,
            "*/*" => 1,
            _ => continue,
        };
        let weight = parts.find_map(|p| p.strip_prefix("q="));
        let weight = weight.and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0);
        if specific > found.0 {
            found = (specific, (weight.clamp(0.0, 1.0) * 1000.0) as u16);
        }
    }
    found.1
}

/// `Prefer: wait=SECONDS`, at most [`MAX_WAIT`]. An invalid preference is ignored, as RFC 7240
/// asks.
pub(crate) fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let preferences = headers.get_all("prefer").iter();
    let mut preferences = preferences.filter_map(|value| value.to_str().ok());
    preferences.find_map(|value| value.split([',', ';']).find_map(parse_wait))
}

fn parse_wait(preference: &str) -> Option<Duration> {
    let (name, value) = preference.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("wait") {
        return None;
    }
    let seconds = value.trim().trim_matches('"').parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_WAIT))
}

/// The entity tag of a post's version in a format: a client that has one format has not the others.
pub(crate) fn version_etag(version: i32, format: Format) -> String {
    let suffix = match format {
        Format::Json => "",
        Format::Markdown => "-md",
        Format::Html => "-html",
    };
    format!("\"{version}{suffix}\"")
}

/// The entity tag of a body.
pub(crate) fn content_etag(content: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, content);
    format!("\"{}\"", hex(&digest.as_ref()[..16]))
}

/// Whether `If-None-Match` has `tag`, so that 304 will do.
pub(crate) fn is_not_modified(headers: &HeaderMap, tag: &str) -> bool {
    etag_list_contains(headers, &header::IF_NONE_MATCH, tag).unwrap_or(false)
}

/// Whether `If-Match` allows to change this version, which the client may have in any format.
pub(crate) fn if_match_allows(headers: &HeaderMap, version: i32) -> bool {
    let mut formats = [Format::Json, Format::Markdown, Format::Html].into_iter();
    formats.any(|format| {
        let tag = version_etag(version, format);
        etag_list_contains(headers, &header::IF_MATCH, &tag).unwrap_or(true)
    })
}

/// Whether any line of a header lists `tag`; None without the header. Tags may be no valid text.
fn etag_list_contains(headers: &HeaderMap, name: &HeaderName, tag: &str) -> Option<bool> {
    let lines = headers.get_all(name).iter();
    let mut listed = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let is_it = |listed: &[u8]| {
        let listed = listed.trim_ascii();
        listed == b"*" || listed.strip_prefix(b"W/").unwrap_or(listed) == tag.as_bytes()
    };
    headers.contains_key(name).then(|| listed.any(is_it))
}

/// A response with its tag, or 304 if the client has it.
pub(crate) fn with_etag(asked: &HeaderMap, tag: &str, response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    if is_not_modified(asked, tag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(header::CONTENT_TYPE);
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )])
    }

    #[test]
    fn the_format_is_what_the_client_likes_best() {
        let cases = [
            ("*/*", Format::Json),
            ("text/markdown", Format::Markdown),
            ("text/html", Format::Html),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Html),
            ("text/html;q=0.5, text/markdown;q=0.9", Format::Markdown),
            ("application/json, text/html", Format::Json),
            ("text/*", Format::Markdown),
            ("image/png", Format::Json),
        ];
        for (accept, expected) in cases {
            assert_eq!(
                accepted_format(&headers("accept", accept)),
                expected,
                "{accept}"
            );
        }
    }

    #[test]
    fn a_wait_is_bounded_and_nonsense_ignored() {
        let wait = |value| preferred_wait(&headers("prefer", value)).map(|w| w.as_secs());
        assert_eq!(wait("wait=5"), Some(5));
        assert_eq!(wait("respond-async, wait=5"), Some(5));
        assert_eq!(wait("wait=600"), Some(60));
        assert_eq!(wait("wait=soon"), None);
        assert_eq!(wait("return=minimal"), None);
    }

    #[test]
    fn a_tag_that_is_not_ascii_is_the_tag_of_nothing() {
        let tag = HeaderValue::from_bytes("\"é\"".as_bytes()).unwrap();
        let asked = HeaderMap::from_iter([
            (header::IF_MATCH, tag.clone()),
            (header::IF_NONE_MATCH, tag),
        ]);
        assert!(!if_match_allows(&asked, 2) && !is_not_modified(&asked, "\"2\""));
    }

    #[test]
    fn tags_are_compared_one_by_one() {
        let asked = headers("if-none-match", "\"1\", W/\"3\"");
        assert!(is_not_modified(&asked, "\"1\"") && is_not_modified(&asked, "\"3\""));
        assert!(!is_not_modified(&asked, "\"2\""));
        assert!(is_not_modified(&headers("if-none-match", "*"), "\"2\""));
        let two_lines = HeaderMap::from_iter(["\"1\"", "\"2\""].map(|tag| {
            let tag = HeaderValue::from_static(tag);
            (header::IF_MATCH, tag)
        }));
        assert!(if_match_allows(&two_lines, 1) && if_match_allows(&two_lines, 2));
        assert!(!if_match_allows(&two_lines, 3));
        assert!(if_match_allows(&HeaderMap::new(), 2));
        assert!(!if_match_allows(&headers("if-match", "nonsense"), 2));
        assert!(if_match_allows(&headers("if-match", "\"2-html\""), 2));
    }
}
