//! What a worker does beside its jobs: it says that it lives, rescues what others have
//! left behind, and removes what is old.

pub mod cleanup;
pub(crate) mod heartbeat;
pub(crate) mod rescue;
