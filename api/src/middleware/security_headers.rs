//! Headers that keep responses private, and browsers from guessing.

use axum::http::{HeaderValue, header};
use axum::response::Response;

/// Responses are for one user: shared caches store none, and a client's own cache revalidates.
/// Browsers don't sniff the content type.
pub(crate) async fn set_security_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let caching = if headers.contains_key(header::ETAG) {
        "private, no-cache"
    } else {
        "no-store"
    };
    let caching = HeaderValue::from_static(caching);
    headers.entry(header::CACHE_CONTROL).or_insert(caching);
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}
