//! Takes jobs from the queue and has an agent write the posts.

pub mod agent;
pub mod writing;
