//! Extractors: what handlers take from a request, checked.

pub(crate) mod client_info;
pub(crate) mod idempotency;
pub(crate) mod json;
pub(crate) mod query;
