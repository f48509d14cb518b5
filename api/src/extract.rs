//! Extractors: what handlers take from a request, checked.

pub(crate) mod client_info;
pub(crate) mod field_reader;
pub(crate) mod idempotency;
pub(crate) mod json;
pub(crate) mod path;
pub(crate) mod query;
pub(crate) mod text_rules;
