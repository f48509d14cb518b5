//! What a worker does beside its jobs: it sends heartbeats, heeds the pause of the
//! queue, rescues the jobs of lost workers, and deletes what is old.

pub mod cleanup;
pub(crate) mod heartbeat;
pub(crate) mod pause;
pub(crate) mod rescue;
