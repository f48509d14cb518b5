//! Agents behind HTTP: requests, answers, and what goes wrong between them.

mod answer;
pub(super) mod call;
mod endpoint;
mod error;
mod event_stream;
mod json;
mod model_profiles;
mod redactor;
mod refused_argument;
mod retry_after;
mod sse;
mod wire;
