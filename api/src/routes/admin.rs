//! Handlers for admins. Each takes [`crate::auth::current_user::AdminUser`], which refuses everyone
//! else.

pub(crate) mod audit;
pub(crate) mod jobs;
pub(crate) mod queue;
pub(crate) mod users;
pub(crate) mod workers;
