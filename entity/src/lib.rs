//! The tables, and the queries that carry an invariant.
//!
//! Each table is a module. What a job may become and when is in
//! `shared::queue`; whose a thing is, in `owned_by` of its module.
//!
//! Rows are not what clients see: response types stand beside their handlers. Enums
//! that clients see have the same names there, so they are declared here only.

pub mod attempt;
pub mod audit;
mod batch_delete;
pub mod bulk_update;
pub mod cleanup_clock;
pub mod clock;
pub mod idempotency;
pub mod job;
pub mod login_throttle;
pub mod post;
pub mod queue_state;
pub mod refresh_token;
pub mod session;
pub mod step;
pub mod text;
pub mod user;
pub mod worker;
