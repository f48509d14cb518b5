//! The queue between API and workers, and all that can happen to a job.
//!
//! A job is a row of `generation_jobs`. Each transition is one conditional
//! UPDATE of it; whoever comes too late changes nothing and is told so.
//!
//! ```text
//!              claim                 complete
//!   queued ─────────────▶ running ─────────────▶ succeeded
//!    ▲ │ ▲                │  │  │       fail
//!    │ │ └────────────────┘  │  └──────────────▶ failed ────┐
//!    │ │   schedule retry    │ cancel                       │
//!    │ │   release           ▼       confirm cancel         │
//!    │ │   rescue         canceling ────────────▶ canceled ─┤
//!    │ └────────────────── cancel ──────────────────▲       │
//!    └────────────────────  retry ──────────────────────────┘
//! ```
//!
//! A rescue may also end in `failed`, when the attempts are used up, or in
//! `canceled`.
//!
//! **Deliveries.** apalis only wakes workers. A delivery is a row of its own
//! table, one for each queued job, which a worker receives when the job is due.
//! Which job the worker then claims, and whether there is one, is in our table.
//! Every function here changes a job together with its delivery, in the caller's
//! transaction: both or neither. From this follow the guarantees:
//!
//! - *A job that was accepted is delivered.* Should a delivery be lost all the
//!   same, [`missing_deliveries`] finds its job.
//! - *A delivery is used once.* The claim removes it. One that comes twice finds
//!   nothing to claim.
//! - *Nobody sleeps while a job waits.* A worker goes on claiming until no job is
//!   queued; and if the job that it claims is another than that which woke it, the
//!   claim puts that one's delivery back, to wake others.
//! - *The table stays as small as the queue is long.* apalis' own acknowledgements
//!   and locks, which would keep every row for ever, are off.
//!
//! **Fencing.** A claim makes an attempt, whose id the job's row then carries
//! together with a lease. Everything that the worker writes later names that
//! id and renews the lease. When a worker is too late, its job has been taken
//! from it, the id in the row is another, and its write matches nothing: so a
//! job has one writer at any time, and a post is stored once.
//!
//! **Fairness.** Jobs are claimed round by round, one of each user: see
//! `fair_order`. While the queue is paused none is claimed; what runs goes on.
//!
//! **Locks.** Whoever locks several rows locks idempotency keys first, then users,
//! then jobs, then their deliveries and posts, and several of a kind in the order
//! of their ids: so no two wait for each other.

mod cancel;
mod claim;
mod complete;
mod consumer;
mod delivery;
mod enqueue;
mod fair_order;
mod lease;
mod rescue;
mod stats;
mod transition;

pub use cancel::{
    CANCEL_BATCH, cancel, cancel_for_disabled, cancel_for_user, cancel_many,
    cancel_next_of_disabled, detach_post, detach_user,
};
pub use claim::{ClaimRequest, ClaimedJob, claim};
pub use complete::{AttemptResult, JobError, RecordedOutcome, complete, record};
pub use consumer::{CONNECTIONS, Consumer, Handler};
pub use delivery::{
    Delivery, Payload, count_deliveries, create_tables, delete_orphaned_deliveries,
    delete_stale_consumers, lateness, missing_deliveries, release_delivery,
};
pub use enqueue::{EnqueueError, JobQuota, NewJob, RequestOrigin, check_quota, enqueue, retry};
pub use lease::{
    Checkpoint, Lease, LeaseStatus, LockMode, MAX_LEASE, Progress, checkpoint, renew, set_warnings,
};
pub use rescue::{RescueOutcome, expired_leases, redeliver, rescue};
pub use stats::{
    JobTimings, QueueDepth, QueuePosition, StatusCounts, depth, finished_since, oldest_queued,
    positions, status_counts,
};
