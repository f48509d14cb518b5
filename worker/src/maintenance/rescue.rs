//! Picking up what others have left behind: jobs of workers that were lost, and
//! jobs whose delivery was.
//!
//! Every worker sweeps. Two that find the same job do no harm: the state
//! machine lets one of them win.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use entity::job;
use sea_orm::DbErr;
use shared::clock::ClockReading;
use shared::queue::{self, RescueOutcome};
use tokio::time::{MissedTickBehavior, interval};
use tracing::Instrument;

use crate::{Worker, telemetry};

const MAX_INTERVAL: Duration = Duration::from_secs(3);

/// How many jobs are picked up in one go, so that other writers get their turn.
const BATCH: u64 = 100;

/// A clock that is read twice may differ from this machine's by so much without
/// having been set.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(1);

/// Tells whether leases that look expired can be believed to be.
///
/// While the database is away nobody can renew a lease. When its clock is set
/// forward all leases look expired at once; when it is set far back, none ends in time. In all cases those who live get a
/// whole lease of time, as this process measures it, to renew theirs.
struct RescueGate {
    lease: Duration,
    /// The clock as it was read last.
    last: Option<ClockReading>,
    closed_until: Instant,
}

impl RescueGate {
    fn new(lease: Duration) -> Self {
        RescueGate {
            lease,
            last: None,
            closed_until: Instant::now(),
        }
    }

    /// Gives everyone another lease of time.
    fn close(&mut self, now: Instant) {
        self.closed_until = now + self.lease;
    }

    /// Whether leases that were looked up before `reading` may be believed. Not
    /// until the clock has been read twice: it may have been set right before.
    fn is_open(&mut self, reading: ClockReading) -> bool {
        let Some(last) = self.last.replace(reading) else {
            return false;
        };
        let step = reading.step_since(&last);
        if step.abs() > CLOCK_TOLERANCE {
            let seconds = step.num_seconds();
            tracing::warn!(
                seconds,
                "the clock was set: no lease counts as expired for a while"
            );
            self.close(reading.latest);
        }
        self.closed_until <= reading.latest
    }
}

impl Worker {
    /// Sweeps for ever.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut sweeps = interval(MAX_INTERVAL.min(self.lease / 3));
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut gate = RescueGate::new(self.lease);
        loop {
            sweeps.tick().await;
            let swept = self.sweep_once(&mut gate).await;
            self.metrics.swept(&swept);
            if let Err(error) = swept {
                tracing::warn!(%error, "can't sweep; trying again");
                gate.close(Instant::now());
            }
        }
    }

    async fn sweep_once(&self, gate: &mut RescueGate) -> Result<(), DbErr> {
        let abandoned = queue::expired_leases(self.db.read(), BATCH).await?;
        // After that look: if the clock was set before it, this shows it.
        if gate.is_open(self.db.read_clock().await?) {
            for job in abandoned {
                let span = telemetry::log_span(&job);
                self.rescue(job).instrument(span).await?;
            }
        }
        let strays = self
            .db
            .transaction(async move |tx| queue::delete_orphaned_deliveries(tx).await)
            .await?;
        if strays > 0 {
            tracing::error!(strays, "the queue held what is not ours; it was removed");
        }
        for job in queue::missing_deliveries(self.db.read(), self.lease, BATCH).await? {
            let span = telemetry::log_span(&job);
            self.redeliver(job).instrument(span).await?;
        }
        Ok(())
    }

    async fn rescue(&self, job: job::Model) -> Result<(), DbErr> {
        let lost = job.clone();
        let rescue = self
            .db
            .transaction(async move |tx| queue::rescue(tx, &lost).await)
            .await?;
        if rescue != RescueOutcome::Skipped {
            tracing::warn!(?rescue, "a worker was lost");
            self.metrics.rescued(rescue, &job);
        }
        Ok(())
    }

    async fn redeliver(&self, job: job::Model) -> Result<(), DbErr> {
        if self
            .db
            .transaction(async move |tx| queue::redeliver(tx, &job).await)
            .await?
        {
            tracing::warn!("a delivery was lost");
            self.metrics.redelivered();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    /// The clock of a database, as it was read so many seconds after `begun`.
    fn reading(begun: Instant, passed: u64, shown: i64) -> ClockReading {
        let at = begun + Duration::from_secs(passed);
        ClockReading {
            time: chrono::DateTime::UNIX_EPOCH + TimeDelta::seconds(shown),
            earliest: at,
            latest: at,
        }
    }

    #[test]
    fn a_clock_that_goes_with_time_lets_leases_expire() {
        let (mut gate, begun) = (RescueGate::new(LEASE), Instant::now());
        let mut is_open = |passed, shown| gate.is_open(reading(begun, passed, shown));
        assert!(!is_open(0, 100), "it may have been set right before");
        assert!(is_open(3, 103));
        // A process that was frozen for an hour has seen no step.
        assert!(is_open(3603, 3703));
    }

    #[test]
    fn a_clock_that_was_set_gives_everyone_a_lease_of_time() {
        for shown in [3600, -3600] {
            let (mut gate, begun) = (RescueGate::new(LEASE), Instant::now());
            let mut is_open = |passed, shown| gate.is_open(reading(begun, passed, shown));
            is_open(0, 100);
            assert!(!is_open(3, shown));
            assert!(!is_open(17, shown + 14));
            assert!(is_open(18, shown + 15));
        }
    }
}
