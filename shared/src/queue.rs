//! The queue between API and workers, and all that can happen to a job.
//!
//! A job is a row of `generation_jobs`. Each transition is one conditional UPDATE of it; a caller
//! that is too late changes nothing, and its result says so.
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
//! A rescue may also end in `failed`, when the attempts are used up, or in `canceled`. A job whose
//! outline is to be reviewed goes from `running` to `awaiting_review`, and from there back to
//! `queued` when it is approved, or to `canceled`.
//!
//! **Deliveries.** apalis only wakes workers. A delivery is a row of its table, one for each queued
//! job, which a worker receives when the job is due. Which job the worker then claims, if any, is
//! decided by our table. Every function here changes a job together with its delivery, in the
//! caller's transaction: both or neither. The guarantees follow from this:
//!
//! - *An accepted job is delivered.* Should a delivery be lost all the same, [`missing_deliveries`]
//!   finds its job.
//! - *A delivery is used once.* The claim deletes it. A worker that receives it twice finds nothing
//!   to claim.
//! - *No worker idles while a job waits.* A worker claims until no job is queued; and if it claims
//!   another job than the one whose delivery woke it, the claim releases that delivery, to wake
//!   others.
//! - *The table stays as small as the queue is long.* apalis' own acknowledgements and locks, which
//!   would keep every row for ever, are off.
//!
//! **Fencing.** A claim creates an attempt, whose id is in the job's row together with a lease.
//! Every later write of the worker names that id and renews the lease. If the worker is too late,
//! its job was rescued, the row has another id, and the write matches nothing: so a job has one
//! writer at any time, and a post is stored once.
//!
//! **Fairness.** Jobs are claimed in rounds, one of each user: see `fair_order`. While the queue is
//! paused none is claimed; running ones go on.
//!
//! **Locks.** A transaction that locks several rows locks idempotency keys first, then users, then
//! jobs, then their deliveries and posts, and several of a kind in the order of their ids. So no
//! two transactions deadlock.

mod cancel;
mod claim;
mod complete;
mod consumer;
mod delivery;
mod enqueue;
mod fair_order;
mod kept_text;
mod lease;
mod rescue;
mod review;
mod stats;
mod transition;

pub use cancel::{
    CANCEL_BATCH, cancel, cancel_for_disabled, cancel_for_user, cancel_many,
    cancel_next_of_disabled, detach_post, detach_user,
};
pub use claim::{ClaimRequest, ClaimedJob, claim};
pub use complete::{AttemptResult, RecordedOutcome, complete, record};
pub use consumer::{CONNECTIONS, Consumer, Handler};
pub(crate) use delivery::create_tables;
pub use delivery::{
    Delivery, Payload, count_deliveries, delete_orphaned_deliveries, delete_stale_consumers,
    lateness, missing_deliveries, release_delivery,
};
pub use enqueue::{
    EnqueueError, JobQuota, NewJob, RequestOrigin, RetriedBy, enqueue, enqueue_first, quota,
    quotas, retry,
};
pub use lease::{
    AttemptUpdate, Checkpoint, Lease, LeaseStatus, LockMode, MAX_LEASE, Progress, UpdateResult,
    checkpoint, discard_steps, set_found_pages, set_warnings, update,
};
pub use rescue::{RescueOutcome, expired_leases, redeliver, rescue};
pub use review::{approve, set_outline};
pub use stats::{
    FinishedCounts, JobTimings, QueueDepth, QueuePosition, StatusCounts, depth, finished_between,
    finished_since, oldest_queued, positions, status_counts,
};
pub use transition::{JobError, WrittenPost};
