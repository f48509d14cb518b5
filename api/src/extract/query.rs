//! Query strings.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// A query string that is valid for its type.
#[derive(Debug)]
pub(crate) struct ValidatedQuery<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for ValidatedQuery<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Query::<T>::try_from_uri(&parts.uri)
            .map(|Query(params)| ValidatedQuery(params))
            .map_err(|e| Error::MalformedQuery(e.body_text()))
    }
}

/// The maximum length of a search term.
pub(crate) const MAX_SEARCH_LEN: usize = 200;

/// The search term of a list; None if it is empty.
///
/// # Errors
/// [`Error::Validation`] if it is too long, or has a NUL.
pub(crate) fn search_term(q: Option<&str>) -> Result<Option<&str>> {
    let q = q.unwrap_or_default();
    if q.chars().count() > MAX_SEARCH_LEN || q.contains('\0') {
        let message = format!("must have at most {MAX_SEARCH_LEN} characters, and no NUL");
        return Err(Error::invalid("q", "invalid", message));
    }
    Ok((!q.is_empty()).then_some(q))
}
