//! What a client is answered when a handler panics.

use axum::response::{IntoResponse, Response};

use crate::error::Error;

/// An internal error like others; the log has what the handler panicked with.
pub(crate) fn panic_response(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let what = text.unwrap_or("a panic without words");
    Error::Internal(format!("a handler panicked: {what}")).into_response()
}
