//! Query strings and paths, refused with the contract's errors.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::error::{Error, Result};

/// A query string that could be read.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Query::<T>::try_from_uri(&parts.uri)
            .map(|Query(params)| Params(params))
            .map_err(|e| Error::MalformedQuery(e.body_text()))
    }
}

/// The longest text that lists are searched for.
pub const LONGEST_Q: usize = 200;

/// What a list is searched for; nothing if it is empty.
///
/// # Errors
/// [`Error::Validation`] if it is too long, or can't be in any text.
pub fn searched(q: Option<&str>) -> Result<Option<&str>> {
    let q = q.unwrap_or_default();
    if q.chars().count() > LONGEST_Q || q.contains('\0') {
        let message = format!("must have at most {LONGEST_Q} characters, and no NUL");
        return Err(Error::invalid("q", "invalid", message));
    }
    Ok((!q.is_empty()).then_some(q))
}

/// The id in a path. One that can't be an id is an id of nothing.
#[derive(Clone, Copy, Debug)]
pub struct Id(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        Path::<Uuid>::from_request_parts(parts, state)
            .await
            .map(|Path(id)| Id(id))
            .map_err(|_| Error::NotFound)
    }
}
