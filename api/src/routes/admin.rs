//! What admins see and do. Everyone else is refused by the extractor
//! [`crate::auth::current_user::AdminUser`], which every handler here takes.

pub(crate) mod audit;
pub(crate) mod jobs;
pub(crate) mod queue;
pub(crate) mod users;
pub(crate) mod workers;
