//! Takes from a model's answer what does not belong into a post.

pub(super) mod deduplicate;
pub(super) mod markdown_blocks;
pub(super) mod strip_chatter;
