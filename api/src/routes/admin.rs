//! What admins see and do. Everyone else is refused by the extractor
//! [`crate::auth::Admin`], which every handler here takes.

pub mod audit;
pub mod jobs;
pub mod queue;
pub mod users;
pub mod workers;
