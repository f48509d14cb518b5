//! Maps errors to responses: RFC 9457 problem documents with a stable `code`.
//!
//! A client's error is explained in the response and logged at debug. An internal one is logged,
//! and the client learns only the request's id.

use std::fmt::{self, Display};

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sea_orm::{DbErr, RuntimeErr, SqlErr};
use serde::Serialize;
use shared::queue::EnqueueError;
use utoipa::ToSchema;

use crate::middleware::request_context;

/// The result of a handler.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request failed.
#[derive(Debug)]
#[allow(missing_docs, reason = "each is a code of the contract")]
pub enum Error {
    MalformedJson(String),
    MalformedQuery(String),
    InvalidCursor,
    Unauthenticated,
    TokenExpired,
    SessionRevoked,
    InvalidCredentials,
    RefreshTokenReused,
    AccountDisabled,
    Forbidden,
    /// An API key is not good for the request.
    InsufficientScope,
    NotFound,
    JobPruned,
    MethodNotAllowed,
    UsernameTaken,
    TooManyKeys,
    GenerationInProgress,
    JobFinished,
    NoContent,
    OwnerDisabled,
    LastAdmin,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    VersionConflict,
    PayloadTooLarge,
    UnsupportedMediaType,
    Validation(Vec<FieldError>),
    QuotaExceeded,
    StorageQuotaExceeded,
    /// With the seconds to wait.
    RateLimited(u64),
    DatabaseUnavailable(DbErr),
    /// A concurrency limit or a timeout was hit.
    Overloaded,
    /// An internal error; the text is for the log.
    Internal(String),
}

/// A violation of a field's rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field's path, such as `options.words`.
    pub field: String,
    /// Stable, for programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

/// An error response (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Always `about:blank`: `code` says what it is.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The status as text.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened and what to do, for people.
    detail: String,
    /// What happened, for programs; stable.
    #[schema(example = "validation_failed")]
    code: &'static str,
    /// The request's id, as in the log.
    request_id: String,
    /// The violations, if fields are invalid.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 50)]
    errors: Vec<FieldError>,
}

/// When a request is worth retrying that may succeed by then, in seconds.
const RETRY_AFTER_SECONDS: u64 = 5;

impl Error {
    /// A single violation.
    pub(crate) fn invalid(field: &str, code: &'static str, message: impl Into<String>) -> Self {
        Error::Validation(vec![FieldError {
            field: field.to_owned(),
            code,
            message: message.into(),
        }])
    }

    /// An internal error.
    pub(crate) fn internal(error: impl Display) -> Self {
        Error::Internal(error.to_string())
    }

    fn status(&self) -> StatusCode {
        match self {
            Error::MalformedJson(_) | Error::MalformedQuery(_) | Error::InvalidCursor => {
                StatusCode::BAD_REQUEST
            }
            Error::Unauthenticated
            | Error::TokenExpired
            | Error::SessionRevoked
            | Error::InvalidCredentials
            | Error::RefreshTokenReused => StatusCode::UNAUTHORIZED,
            Error::AccountDisabled | Error::Forbidden | Error::InsufficientScope => {
                StatusCode::FORBIDDEN
            }
            Error::NotFound | Error::JobPruned => StatusCode::NOT_FOUND,
            Error::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Error::UsernameTaken
            | Error::TooManyKeys
            | Error::GenerationInProgress
            | Error::JobFinished
            | Error::NoContent
            | Error::OwnerDisabled
            | Error::LastAdmin
            | Error::IdempotencyInProgress => StatusCode::CONFLICT,
            Error::VersionConflict => StatusCode::PRECONDITION_FAILED,
            Error::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Error::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Error::Validation(_) | Error::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Error::QuotaExceeded | Error::StorageQuotaExceeded | Error::RateLimited(_) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Error::DatabaseUnavailable(_) | Error::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Error::MalformedJson(_) => "malformed_json",
            Error::MalformedQuery(_) => "malformed_query",
            Error::InvalidCursor => "invalid_cursor",
            Error::Unauthenticated => "unauthenticated",
            Error::TokenExpired => "token_expired",
            Error::SessionRevoked => "session_revoked",
            Error::InvalidCredentials => "invalid_credentials",
            Error::RefreshTokenReused => "refresh_token_reused",
            Error::AccountDisabled | Error::Forbidden => "forbidden",
            Error::InsufficientScope => "insufficient_scope",
            Error::TooManyKeys => "too_many_keys",
            Error::NotFound | Error::JobPruned => "not_found",
            Error::MethodNotAllowed => "method_not_allowed",
            Error::UsernameTaken => "username_taken",
            Error::GenerationInProgress => "generation_in_progress",
            Error::JobFinished | Error::NoContent | Error::OwnerDisabled => "job_finished",
            Error::LastAdmin => "last_admin",
            Error::IdempotencyInProgress => "idempotency_in_progress",
            Error::IdempotencyKeyReused => "idempotency_key_reused",
            Error::VersionConflict => "version_conflict",
            Error::PayloadTooLarge => "payload_too_large",
            Error::UnsupportedMediaType => "unsupported_media_type",
            Error::Validation(_) => "validation_failed",
            Error::QuotaExceeded | Error::StorageQuotaExceeded => "quota_exceeded",
            Error::RateLimited(_) => "rate_limited",
            Error::DatabaseUnavailable(_) | Error::Overloaded => "unavailable",
            Error::Internal(_) => "internal",
        }
    }

    fn detail(&self) -> String {
        let detail = match self {
            Error::MalformedJson(why) => return format!("Can't read the body as JSON: {why}."),
            Error::MalformedQuery(why) => return format!("Can't read the query: {why}."),
            Error::InvalidCursor => "The cursor is not of this list. Start again without one.",
            Error::Unauthenticated => "Log in, and send the access token as a bearer token.",
            Error::TokenExpired => "The token has expired. Get a new one with the refresh token.",
            Error::SessionRevoked => "The session has ended. Log in again.",
            Error::InvalidCredentials => "Wrong username or password.",
            Error::RefreshTokenReused => {
                "The refresh token was used before, so its session has been ended. Log in again."
            }
            Error::AccountDisabled => "This account is disabled.",
            Error::Forbidden => "Admins only.",
            Error::InsufficientScope => {
                "The API key does not cover this request. No key is good for accounts, sessions and \
                 keys."
            }
            Error::TooManyKeys => "You have as many API keys as allowed. Revoke one first.",
            Error::NotFound => "Not found.",
            Error::JobPruned => "The post exists, but its job is no longer kept.",
            Error::MethodNotAllowed => "Method not allowed; see Allow.",
            Error::UsernameTaken => "The username is taken.",
            Error::GenerationInProgress => {
                "The post is being generated. Wait for its job to finish, or cancel it."
            }
            Error::JobFinished => "The job has finished.",
            Error::NoContent => {
                "The post has no content: its job failed or was canceled. Regenerate the post."
            }
            Error::OwnerDisabled => {
                "The job has finished, and its owner is disabled. Enable that user to retry it."
            }
            Error::LastAdmin => "At least one admin is required. Make another user an admin first.",
            Error::IdempotencyInProgress => {
                "The first request with this Idempotency-Key is in progress. Retry later."
            }
            Error::IdempotencyKeyReused => {
                "This Idempotency-Key was used for another request. Use a new one."
            }
            Error::VersionConflict => {
                "The post has changed since that version. Read it again, then change it."
            }
            Error::PayloadTooLarge => "The body is larger than 1 MiB, or with sources 8 MiB.",
            Error::UnsupportedMediaType => "Send the body as application/json.",
            Error::Validation(_) => "Some fields are invalid; see errors.",
            Error::QuotaExceeded => {
                "Too many unfinished jobs. Wait for one to finish, or cancel one."
            }
            Error::StorageQuotaExceeded => "Too many posts, or too much text. Delete some posts.",
            Error::RateLimited(_) => "Too many requests; retry after the time in Retry-After.",
            Error::DatabaseUnavailable(_) => "The database is unavailable. Retry later.",
            Error::Overloaded => "The service is overloaded. Retry later.",
            Error::Internal(_) => "Internal error. Report the request_id to the operators.",
        };
        detail.to_owned()
    }

    /// When to retry, if that may help, in seconds.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Error::IdempotencyInProgress => Some(1),
            Error::QuotaExceeded
            | Error::StorageQuotaExceeded
            | Error::DatabaseUnavailable(_)
            | Error::Overloaded => Some(RETRY_AFTER_SECONDS),
            Error::RateLimited(seconds) => Some(*seconds),
            _ => None,
        }
    }

    fn log(&self) {
        match self {
            Error::DatabaseUnavailable(error) => {
                tracing::error!(%error, "the database is unavailable")
            }
            Error::Overloaded => tracing::warn!("overloaded: no permit, or a statement timed out"),
            Error::Internal(error) => tracing::error!(error, "request failed: internal error"),
            refused => tracing::debug!(code = refused.code(), "request refused"),
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Internal(error) => f.write_str(error),
            other => f.write_str(other.code()),
        }
    }
}

impl std::error::Error for Error {}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.log();
        let status = self.status();
        let retry_after = self.retry_after();
        let problem = Problem {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: self.detail(),
            code: self.code(),
            request_id: request_context::current_request_id(),
            errors: match self {
                Error::Validation(errors) => errors,
                _ => Vec::new(),
            },
        };
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, bearer);
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<EnqueueError> for Error {
    fn from(error: EnqueueError) -> Self {
        match error {
            EnqueueError::QuotaExceeded => Error::QuotaExceeded,
            EnqueueError::AccountDisabled => Error::AccountDisabled,
            EnqueueError::AccountDeleted => Error::Unauthenticated,
            EnqueueError::AlreadyRunning => Error::GenerationInProgress,
            EnqueueError::AlreadyFinished => Error::JobFinished,
            EnqueueError::Database(error) => error.into(),
        }
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        let cause = match &error {
            DbErr::Exec(RuntimeErr::SqlxError(cause))
            | DbErr::Query(RuntimeErr::SqlxError(cause)) => Some(&**cause),
            _ => None,
        };
        if cause.is_some_and(is_timeout) {
            return Error::Overloaded;
        }
        let is_connection = matches!(error, DbErr::ConnectionAcquire(_) | DbErr::Conn(_));
        if is_connection || cause.is_some_and(is_transient) {
            return Error::DatabaseUnavailable(error);
        }
        match error.sql_err() {
            // The row that it refers to was deleted a moment ago.
            Some(SqlErr::ForeignKeyConstraintViolation(_)) => Error::NotFound,
            _ => Error::internal(error),
        }
    }
}

/// Whether the statement may succeed when it is retried.
fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| match code.len() {
            5 => is_transient_postgres(&code),
            _ => code.parse().is_ok_and(is_transient_sqlite),
        }),
        _ => false,
    }
}

/// Whether Postgres has canceled the statement because of its timeout.
fn is_timeout(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "57014")
}

/// Busy (5), I/O error (10), disk full (13), can't open the file (14); the higher bits say more:
/// <https://www.sqlite.org/rescode.html>.
fn is_transient_sqlite(code: u32) -> bool {
    matches!(code & 0xff, 5 | 10 | 13 | 14)
}

/// Connection exceptions (08), deadlocks and serialization (40), insufficient resources (53), locks
/// not available (55P), shutdown (57P), system errors (58):
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn is_transient_postgres(code: &str) -> bool {
    let classes = ["08", "40", "53", "55P", "57P", "58"];
    classes.iter().any(|class| code.starts_with(class))
}

/// Both results, or the violations of both.
pub(crate) fn merge_violations<A, B>(one: Result<A>, other: Result<B>) -> Result<(A, B)> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(Error::Validation(mut violations)), Err(Error::Validation(more))) => {
            violations.extend(more);
            Err(Error::Validation(violations))
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

pub(crate) fn is_unique_violation(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}
