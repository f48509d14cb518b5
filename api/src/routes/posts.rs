//! Blog posts.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod insert;
pub(crate) mod list;
pub(crate) mod outline;
pub(crate) mod read;
pub(crate) mod regenerate;
mod response;
pub(crate) mod revision_diff;
pub(crate) mod revisions;
pub(crate) mod sections;
mod sort;
pub(crate) mod sources;
pub(crate) mod update;
