//! JSON bodies: read with a timeout, parsed, and validated.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::extract::field_reader::{FieldReader, FromFields, read_object};

/// A JSON body, or an empty one without another content type.
#[derive(Debug)]
pub(crate) struct JsonBody(Value);

impl JsonBody {
    /// The body as `read` takes its fields.
    ///
    /// # Errors
    /// [`Error::Validation`] with all violations.
    pub(crate) fn read<T>(self, read: impl FnOnce(&mut FieldReader) -> Option<T>) -> Result<T> {
        read_object(self.0, read)
    }
}

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let is_json = is_json(request.headers());
        let bytes = read_bytes(request, state, BODY_READ_TIMEOUT).await?;
        if is_json {
            let value = serde_json::from_slice(&bytes);
            value
                .map(JsonBody)
                .map_err(|e| Error::MalformedJson(e.to_string()))
        } else if bytes.is_empty() {
            // Where every field is optional, so is the body.
            Ok(JsonBody(Value::Object(Map::new())))
        } else {
            Err(Error::UnsupportedMediaType)
        }
    }
}

/// A JSON body that is validated without context.
#[derive(Debug)]
pub(crate) struct ValidatedJson<T>(pub T);

impl<T: FromFields, S: Send + Sync> FromRequest<S> for ValidatedJson<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let body = JsonBody::from_request(request, state).await?;
        body.read(T::from_fields).map(ValidatedJson)
    }
}

const BODY_READ_TIMEOUT: Duration = Duration::from_secs(60);

async fn read_bytes<S: Send + Sync>(request: Request, state: &S, limit: Duration) -> Result<Bytes> {
    let Ok(read) = timeout(limit, Bytes::from_request(request, state)).await else {
        return Err(Error::MalformedJson("it timed out".to_owned()));
    };
    read.map_err(|rejection| match rejection.status().as_u16() {
        413 => Error::PayloadTooLarge,
        _ => Error::MalformedJson("it is incomplete".to_owned()),
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(|value| value.trim().to_ascii_lowercase());
    media_type.is_some_and(|t| t == "application/json" || t.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let endless = futures_util::stream::pending::<std::io::Result<Bytes>>();
        let request = Request::new(axum::body::Body::from_stream(endless));
        let read = read_bytes(request, &(), Duration::from_millis(10)).await;
        assert!(matches!(read, Err(Error::MalformedJson(_))), "{read:?}");
    }
}
