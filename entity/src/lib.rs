//! The tables, and the queries that carry an invariant.
//!
//! Each table is a module. The transitions of jobs are in `shared::queue`; who may see and change a
//! row is in `owned_by` of its module.
//!
//! Rows are not what clients see: response types stand beside their handlers. Only the enums that
//! clients see are declared here.

pub mod api_key;
pub mod attempt;
pub mod audit;
mod batch_delete;
pub mod bulk_update;
pub mod cleanup_clock;
pub mod clock;
pub mod grounding;
pub mod idempotency;
pub mod job;
pub mod job_event;
pub mod login_throttle;
pub mod post;
pub mod post_revision;
pub mod queue_state;
pub mod refresh_token;
pub mod sections;
pub mod session;
pub mod source;
pub mod step;
pub mod text;
pub mod user;
pub mod worker;
