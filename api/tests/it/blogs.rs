//! Blog posts.
