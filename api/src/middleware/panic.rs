//! The response to a request whose handler panicked.

use axum::response::{IntoResponse, Response};

use crate::error::Error;

pub(crate) fn panic_response(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let what = text.unwrap_or("no message");
    Error::Internal(format!("a handler panicked: {what}")).into_response()
}
