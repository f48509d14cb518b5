//! Extractors: validated parts of a request.

pub(crate) mod client_info;
pub(crate) mod field_reader;
pub(crate) mod idempotency;
pub(crate) mod json;
pub(crate) mod path;
pub(crate) mod query;
pub(crate) mod text_rules;
