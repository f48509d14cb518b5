//! Blog posts.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod read;
pub(crate) mod regenerate;
pub(crate) mod revision_diff;
pub(crate) mod revisions;
mod response;
mod sort;
pub(crate) mod update;
