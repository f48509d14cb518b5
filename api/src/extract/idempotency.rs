//! `Idempotency-Key`: a repeated request is not executed again, but gets the first response.
//!
//! The key is claimed, the work done, and the response stored in one transaction. So there is a
//! response to replay exactly if something must not be done twice; and a request that was refused
//! has not used up its key.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use entity::clock::now;
use entity::idempotency;
use ring::digest;
use sea_orm::DatabaseTransaction;
use serde::{Deserialize, Serialize};
use shared::database::Database;
use tracing::Instrument;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::auth::current_user::CurrentUser;
use crate::auth::tokens::hex;
use crate::error::{Error, Result};

pub(crate) const HEADER: &str = "Idempotency-Key";

pub(crate) const REPLAYED: &str = "Idempotency-Replayed";

const MAX_KEY_LEN: usize = 255;

/// How much longer than the client waits its response may take to be stored.
const PENDING_GRACE: Duration = Duration::from_secs(10);

/// The key of a request, if it has one.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct IdempotencyKey {
    /// Makes it safe to repeat the request: for 24 hours, the same request with the same key gets
    /// the first response, and is not executed again.
    #[param(
        rename = "Idempotency-Key",
        nullable = false,
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]+$"
    )]
    key: Option<String>,
    #[param(ignore)]
    method: Method,
    #[param(ignore)]
    path: String,
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let Ok(OriginalUri(uri)) = OriginalUri::from_request_parts(parts, state).await;
        Ok(IdempotencyKey {
            key: parse_header(&parts.headers)?,
            method: parts.method.clone(),
            path: uri.path().to_owned(),
        })
    }
}

fn parse_header(headers: &HeaderMap) -> Result<Option<String>> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(key) = values.next() else {
        return Ok(None);
    };
    let invalid = |code, message: &str| Err(Error::invalid(HEADER, code, message));
    if values.next().is_some() {
        return invalid("invalid", "must be given once");
    }
    if key.is_empty() {
        return invalid("too_short", "must not be empty");
    }
    if key.len() > MAX_KEY_LEN {
        return invalid("too_long", "must have at most 255 characters");
    }
    match key.to_str() {
        Ok(key) if key.chars().all(|c| c.is_ascii_graphic()) => Ok(Some(key.to_owned())),
        _ => invalid("invalid", "must have only visible ASCII characters"),
    }
}

impl IdempotencyKey {
    /// The key for this `body`, sent by `me`.
    ///
    /// The parsed body counts, so neither its layout nor the order of its fields matter. `Prefer`
    /// does not count: it changes when a response comes, not what is done, and a client that waited
    /// in vain may repeat the request without waiting.
    pub(crate) fn for_request(
        self,
        me: &CurrentUser,
        body: &impl Serialize,
    ) -> Result<IdempotentRequest> {
        let Some(key) = self.key else {
            return Ok(IdempotentRequest(None));
        };
        let body = serde_json::to_string(body).map_err(Error::internal)?;
        let asked = format!("{} {}\n{body}", self.method, self.path);
        let hash = digest::digest(&digest::SHA256, asked.as_bytes());
        Ok(IdempotentRequest(Some(idempotency::Model {
            user_id: me.user.id,
            key,
            fingerprint: hex(hash.as_ref()),
            answer: None,
            post_id: None,
            created_at: now(),
            pending_until: None,
        })))
    }
}

/// A request that is executed once if it has a key, and otherwise each time.
#[derive(Clone, Debug)]
pub(crate) struct IdempotentRequest(Option<idempotency::Model>);

/// A response, and whether it is the first one.
#[derive(Debug)]
pub(crate) enum IdempotentResponse {
    Fresh(Response),
    Replayed(Response),
}

impl IdempotentRequest {
    pub(crate) fn has_key(&self) -> bool {
        self.0.is_some()
    }

    /// The client waits up to `max_wait` for a later response: see
    /// [`IdempotentRequest::replace_response`]. Until then nothing is replayed.
    pub(crate) fn with_pending_until(mut self, max_wait: Option<Duration>) -> Self {
        if let (Some(claim), Some(max_wait)) = (&mut self.0, max_wait) {
            claim.pending_until = Some(now() + max_wait + PENDING_GRACE);
        }
        self
    }

    /// Does `work` in `tx` and stores its response there, with the id of the post in it; or replays
    /// the first response.
    ///
    /// # Errors
    /// When the key belongs to another request, the first request is in progress, or its post is
    /// deleted, and what `work` fails with.
    pub(crate) async fn execute_once(
        self,
        tx: &DatabaseTransaction,
        work: impl Future<Output = Result<(Response, Uuid)>>,
    ) -> Result<IdempotentResponse> {
        let Some(claim) = self.0 else {
            return work
                .await
                .map(|(response, _)| IdempotentResponse::Fresh(response));
        };
        if !claim.claim(tx).await? {
            let first = claim.find(tx).await?;
            return replay(first, &claim.fingerprint);
        }
        let (response, post) = work.await?;
        let kept = StoredResponse::of(response).await?;
        claim.store_response(tx, kept.to_json()?, post).await?;
        kept.into_response().map(IdempotentResponse::Fresh)
    }

    /// Stores the response that the client waits for in place of the first one. With a key it is
    /// completed even if the client disconnects, since it may repeat the request.
    pub(crate) async fn replace_response(
        self,
        db: Database,
        response: impl Future<Output = Result<Response>> + Send + 'static,
    ) -> Result<IdempotentResponse> {
        let Some(claim) = self.0 else {
            return response.await.map(IdempotentResponse::Fresh);
        };
        let settled = async move {
            let kept = StoredResponse::of(response.await?).await?;
            let json = kept.to_json()?;
            db.transaction(async move |tx| claim.replace_response(tx, json).await)
                .await?;
            kept.into_response().map(IdempotentResponse::Fresh)
        };
        let settled = tokio::spawn(settled.in_current_span()).await;
        settled.map_err(Error::internal)?
    }
}

fn replay(first: Option<idempotency::Model>, fingerprint: &str) -> Result<IdempotentResponse> {
    let Some(first) = first else {
        return Err(Error::IdempotencyInProgress);
    };
    if first.fingerprint != fingerprint {
        return Err(Error::IdempotencyKeyReused);
    }
    match first.answer {
        Some(kept) if first.pending_until.is_none_or(|until| until <= now()) => {
            let kept: StoredResponse = serde_json::from_value(kept).map_err(Error::internal)?;
            kept.into_response().map(IdempotentResponse::Replayed)
        }
        Some(_) => Err(Error::IdempotencyInProgress),
        // It was erased with its post.
        None => Err(Error::NotFound),
    }
}

impl IntoResponse for IdempotentResponse {
    fn into_response(self) -> Response {
        match self {
            IdempotentResponse::Fresh(response) => response,
            IdempotentResponse::Replayed(mut response) => {
                let replayed = HeaderValue::from_static("true");
                response.headers_mut().insert(REPLAYED, replayed);
                response
            }
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredResponse {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl StoredResponse {
    async fn of(response: Response) -> Result<Self> {
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.map_err(Error::internal)?;
        let mut headers = Vec::new();
        for (name, value) in &parts.headers {
            let value = value.to_str().map_err(Error::internal)?;
            headers.push((name.to_string(), value.to_owned()));
        }
        Ok(StoredResponse {
            status: parts.status.as_u16(),
            headers,
            body: String::from_utf8(body.into()).map_err(Error::internal)?,
        })
    }

    fn to_json(&self) -> Result<serde_json::Value> {
        serde_json::to_value(self).map_err(Error::internal)
    }

    fn into_response(self) -> Result<Response> {
        let response = Response::builder().status(self.status);
        let headers = self.headers.into_iter();
        headers
            .fold(response, |response, (name, value)| {
                response.header(name, value)
            })
            .body(Body::from(self.body))
            .map_err(Error::internal)
    }
}
