//! Browsers: their refresh token is a cookie, which no script can read, and no other site can make
//! them send.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::error::{Error, Result};
use crate::extract::client_info::ClientInfo;

use super::tokens::secret_hash;

const COOKIE: &str = "refresh_token";

/// Its name over https: browsers let no one set a cookie with that prefix who speaks plain http.
const SECURE_COOKIE: &str = "__Secure-refresh_token";

/// Only the calls that use the token are sent it.
const PATH: &str = "/api/v1/users";

/// A header that another site can't send without asking us (CORS), which we never allow.
const REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// The refresh token in the cookie of a request from a page of ours.
pub(crate) fn refresh_token(headers: &HeaderMap) -> Option<String> {
    headers
        .get(REQUESTED_WITH)
        .filter(|value| *value == "blog")?;
    let cookies = headers.get_all(header::COOKIE).iter();
    let cookies = cookies.filter_map(|value| value.to_str().ok());
    let pairs: Vec<_> = cookies
        .flat_map(|list| list.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(_, token)| !token.is_empty())
        .collect();
    let named = |wanted| pairs.iter().find(|(name, _)| *name == wanted);
    let (_, token) = named(SECURE_COOKIE).or_else(|| named(COOKIE))?;
    Some((*token).to_owned())
}

/// The `Set-Cookie` header that hands a browser its refresh token, for so many seconds. `asked` are
/// the headers of the request: over https the cookie is never sent in the clear.
pub(crate) fn set_cookie(asked: &HeaderMap, token: &str, seconds: u32) -> Result<HeaderValue> {
    let is_https = asked
        .get(header::ORIGIN)
        .is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let (name, secure) = match is_https {
        true => (SECURE_COOKIE, "; Secure"),
        false => (COOKIE, ""),
    };
    let cookie = format!(
        "{name}={token}; Path={PATH}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
    );
    HeaderValue::try_from(cookie).map_err(Error::internal)
}

/// The `Set-Cookie` header that takes it away.
pub(crate) fn clear_cookie(asked: &HeaderMap) -> Result<HeaderValue> {
    set_cookie(asked, "", 0)
}

/// Tells one browser from another, as well as a request allows.
pub(crate) fn fingerprint(client: &ClientInfo) -> String {
    let address = client.ip.map(|ip| ip.to_string()).unwrap_or_default();
    let agent = client.user_agent.as_deref().unwrap_or_default();
    secret_hash(&format!("{address} {agent}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        pairs.collect()
    }

    #[test]
    fn a_cookie_counts_only_from_a_page_of_ours() {
        let cookie = (header::COOKIE, "theme=dark; refresh_token=abc; x=y");
        let bare = headers(std::slice::from_ref(&cookie));
        assert_eq!(refresh_token(&bare), None);
        let other = (REQUESTED_WITH, "XMLHttpRequest");
        assert_eq!(refresh_token(&headers(&[cookie.clone(), other])), None);
        let own = (REQUESTED_WITH, "blog");
        let found = refresh_token(&headers(&[cookie, own]));
        assert_eq!(found.as_deref(), Some("abc"));
        // Anyone on the way may have set the one without the prefix.
        let both = (
            header::COOKIE,
            "refresh_token=theirs; __Secure-refresh_token=abc",
        );
        let found = refresh_token(&headers(&[both, (REQUESTED_WITH, "blog")]));
        assert_eq!(found.as_deref(), Some("abc"));
    }

    #[test]
    fn a_cookie_is_secure_over_https() {
        let over = |origin: &str| {
            let asked = headers(&[(header::ORIGIN, origin)]);
            set_cookie(&asked, "abc", 9).unwrap()
        };
        let plain = "refresh_token=abc; Path=/api/v1/users; Max-Age=9; HttpOnly; SameSite=Strict";
        assert_eq!(over("http://host:8000"), plain);
        assert_eq!(over("https://host"), format!("__Secure-{plain}; Secure"));
    }
}
