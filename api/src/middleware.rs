//! Middleware for all requests.

pub(crate) mod client_ip;
pub(crate) mod panic;
pub(crate) mod rate_limit;
pub(crate) mod request_context;
pub(crate) mod security_headers;
