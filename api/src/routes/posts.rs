//! Blog posts.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod read;
pub(crate) mod regenerate;
mod response;
mod sort;
pub(crate) mod update;
