//! The HTTP API: `router` lists every route.

mod auth;
mod cached;
pub mod cleanup;
pub mod cli;
mod concurrency_limit;
pub mod config;
pub mod connections;
mod error;
mod events;
mod extract;
mod generation_options;
mod http_headers;
mod long_poll;
mod markdown;
pub mod metrics;
mod middleware;
mod openapi;
mod page;
pub mod pagination;
pub mod program;
mod router;
mod routes;
pub mod server;
mod state;
mod storage_quota;
mod substring_search;

pub use auth::login_throttle::{AdmittedAttempt, LoginThrottle, PasswordCheck};
pub use auth::tokens::SigningKeys;
pub use concurrency_limit::ConcurrencyLimit;
pub use error::Error;
pub use extract::client_info::ClientInfo;
pub use router::app;
pub use state::AppState;
