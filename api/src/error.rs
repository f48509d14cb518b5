//! The one place where an error becomes an answer: RFC 9457 problem documents
//! with a stable `code`.
//!
//! What is the client's fault is told to the client and logged at debug; what
//! is ours is told to the log, and the client learns only the request's id.

use std::fmt::{self, Display};

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sea_orm::{DbErr, RuntimeErr, SqlErr};
use serde::Serialize;
use shared::queue::EnqueueError;
use utoipa::ToSchema;

use crate::middleware::request_context;

/// A handler's answer.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why a request was not done.
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
    NotFound,
    JobPruned,
    MethodNotAllowed,
    UsernameTaken,
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
    /// After so many seconds there is room again.
    RateLimited(u64),
    /// The database can't be reached.
    DatabaseUnavailable(DbErr),
    /// Others have all places for such work.
    Overloaded,
    /// Our fault; the text is for the log.
    Internal(String),
}

/// A field that is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field's path, such as `options.words`.
    pub field: String,
    /// Stable, for programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

/// What a client gets instead of what it asked for (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Always `about:blank`: the code says what it is.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened and what to do, for people.
    detail: String,
    /// What happened, for programs; stable.
    #[schema(example = "validation_failed")]
    code: &'static str,
    /// The id under which the log knows the request.
    request_id: String,
    /// The fields that are at fault, where fields are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 50)]
    errors: Vec<FieldError>,
}

/// How soon it is worth asking again for what may have passed by then, in
/// seconds.
const RETRY_AFTER_SECONDS: u64 = 5;

impl Error {
    /// One field that is at fault.
    pub fn invalid(field: &str, code: &'static str, message: impl Into<String>) -> Self {
        Error::Validation(vec![FieldError {
            field: field.to_owned(),
            code,
            message: message.into(),
        }])
    }

    /// An error of ours, which goes to the log.
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
            Error::AccountDisabled | Error::Forbidden => StatusCode::FORBIDDEN,
            Error::NotFound | Error::JobPruned => StatusCode::NOT_FOUND,
            Error::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Error::UsernameTaken
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
            Error::MalformedJson(why) => return format!("The body can't be read as JSON: {why}."),
            Error::MalformedQuery(why) => return format!("The query can't be read: {why}."),
            Error::InvalidCursor => {
                "The cursor was not made for this list. Start again without one."
            }
            Error::Unauthenticated => "Sign in, and send the access token as a bearer token.",
            Error::TokenExpired => "The token has expired. Get a new one with the refresh token.",
            Error::SessionRevoked => "The session is over. Sign in again.",
            Error::InvalidCredentials => "The username or the password is wrong.",
            Error::RefreshTokenReused => {
                "The refresh token was used before, so its session has been ended. Sign in again."
            }
            Error::AccountDisabled => "This account is disabled.",
            Error::Forbidden => "Only admins may do that.",
            Error::NotFound => "There is no such thing, or it is not yours.",
            Error::JobPruned => {
                "The post is here, but its job was over long ago and is no longer kept."
            }
            Error::MethodNotAllowed => "This path does not know that method; see Allow.",
            Error::UsernameTaken => "Someone else has that username.",
            Error::GenerationInProgress => {
                "The post is being generated. Wait for its job to end, or cancel it."
            }
            Error::JobFinished => "The job is over.",
            Error::NoContent => {
                "The post has no content, for its job failed or was canceled. Regenerate the post."
            }
            Error::OwnerDisabled => {
                "The job is over, and its owner is disabled. Enable that user before you retry it."
            }
            Error::LastAdmin => "There must be an admin. Make somebody else one before.",
            Error::IdempotencyInProgress => {
                "The first request with this Idempotency-Key is under way. Ask again soon."
            }
            Error::IdempotencyKeyReused => {
                "Another request was made with this Idempotency-Key. Each needs its own."
            }
            Error::VersionConflict => {
                "The post has changed since that version. Read it again before you change it."
            }
            Error::PayloadTooLarge => "The body is larger than 1 MiB.",
            Error::UnsupportedMediaType => "Send the body as application/json.",
            Error::Validation(_) => "Some fields are not valid; see errors.",
            Error::QuotaExceeded => {
                "You have as many unfinished jobs as you may. Wait for one to end, or cancel one."
            }
            Error::StorageQuotaExceeded => {
                "You have as many posts, or as much text in them, as you may. Delete some."
            }
            Error::RateLimited(_) => "You ask too often. Wait as long as Retry-After says.",
            Error::DatabaseUnavailable(_) => "The database can't be reached. Try again soon.",
            Error::Overloaded => "Too many ask for that at once. Try again soon.",
            Error::Internal(_) => {
                "Something went wrong on our side. Tell the operators the request's id."
            }
        };
        detail.to_owned()
    }

    /// When to ask again, where that may help, in seconds.
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
                tracing::error!(%error, "the database can't be reached")
            }
            Error::Overloaded => tracing::warn!("more is asked for than there are places"),
            Error::Internal(error) => tracing::error!(error, "a request failed"),
            fault => tracing::debug!(code = fault.code(), "a request was refused"),
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
        let (status, retry_after) = (self.status(), self.retry_after());
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
            EnqueueError::AlreadyRunning => Error::GenerationInProgress,
            EnqueueError::AlreadyFinished => Error::JobFinished,
            EnqueueError::Database(error) => error.into(),
        }
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        match &error {
            DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => Error::DatabaseUnavailable(error),
            DbErr::Exec(RuntimeErr::SqlxError(cause))
            | DbErr::Query(RuntimeErr::SqlxError(cause))
                if is_timeout(cause) =>
            {
                Error::Overloaded
            }
            DbErr::Exec(RuntimeErr::SqlxError(cause))
            | DbErr::Query(RuntimeErr::SqlxError(cause))
                if is_transient(cause) =>
            {
                Error::DatabaseUnavailable(error)
            }
            // What the row belongs to was deleted a moment ago.
            _ if is_foreign_key_violation(&error) => Error::NotFound,
            _ => Error::Internal(error.to_string()),
        }
    }
}

/// Whether the database may do it when it is asked again.
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

/// Whether Postgres has canceled the statement, because it took longer than allowed.
fn is_timeout(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "57014")
}

/// Busy (5), the disk does not work (10) or is full (13), the file can't be
/// opened (14); the higher bits say more: <https://www.sqlite.org/rescode.html>.
fn is_transient_sqlite(code: u32) -> bool {
    matches!(code & 0xff, 5 | 10 | 13 | 14)
}

/// Broken connections (08), deadlocks and serialization (40), no room or too
/// many connections (53), locks of others (55P), shutdown (57P), the disk (58):
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn is_transient_postgres(code: &str) -> bool {
    let classes = ["08", "40", "53", "55P", "57P", "58"];
    classes.iter().any(|class| code.starts_with(class))
}

fn is_foreign_key_violation(error: &DbErr) -> bool {
    matches!(
        error.sql_err(),
        Some(SqlErr::ForeignKeyConstraintViolation(_))
    )
}

/// Both, or all the fields that are at fault in either.
///
/// # Errors
/// When either is one.
pub(crate) fn merge_violations<A, B>(one: Result<A>, other: Result<B>) -> Result<(A, B)> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(Error::Validation(mut faults)), Err(Error::Validation(more))) => {
            faults.extend(more);
            Err(Error::Validation(faults))
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// Whether a row could not be written because another has what must be unique.
pub(crate) fn is_unique_violation(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}
