//! Agents at the end of an HTTP connection.

pub(super) mod endpoint;
pub(super) mod error;
pub(super) mod event_stream;
