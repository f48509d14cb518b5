//! The app under test, and what its tests share.

mod database;
pub(crate) mod deliveries;
mod routes;
mod site;
mod statements;
mod test_app;
mod tokens;

pub(crate) use routes::{Route, documented_routes};
pub(crate) use site::{GARDEN, Site};
pub(crate) use statements::StatementRecorder;
pub(crate) use test_app::{SECRET, SHORT_LEASE, TestApp};
pub(crate) use tokens::{decode_token, encode_part, forge_token, sign_token};
