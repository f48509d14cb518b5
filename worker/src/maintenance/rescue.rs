//! The sweep: re-queues the jobs of lost workers, and re-creates lost deliveries.
//!
//! Every worker sweeps. Two that find the same job do no harm: the state machine lets
//! one of them win.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use entity::job;
use sea_orm::DbErr;
use shared::clock::ClockReading;
use shared::database::Database;
use shared::queue::{self, RescueOutcome};
use tokio::time::{MissedTickBehavior, interval};
use tracing::Instrument;

use crate::metrics::Metrics;
use crate::telemetry;

const MAX_INTERVAL: Duration = Duration::from_secs(3);

/// How many jobs one sweep rescues, so that other writers get their turn.
const BATCH: u64 = 100;

/// Two readings of a clock may differ from this machine's by so much although nobody
/// has set it.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(1);

/// Decides whether leases that look expired may be taken for expired.
///
/// While the database is unavailable nobody can renew a lease. When its clock is set
/// forward all leases look expired at once; when it is set far back, none ends in time.
/// In all cases live workers get a whole lease of time, as this process measures it, to
/// renew theirs.
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

/// Sweeps for ever.
pub(crate) async fn run_periodically(db: Database, lease: Duration, metrics: Arc<Metrics>) {
    let mut ticks = interval(MAX_INTERVAL.min(lease / 3));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweeper = Sweeper {
        gate: RescueGate::new(lease),
        db,
        lease,
        metrics,
    };
    loop {
        ticks.tick().await;
        let swept = sweeper.sweep().await;
        sweeper.metrics.swept(&swept);
        if let Err(error) = swept {
            tracing::warn!(%error, "can't sweep for lost jobs; trying again");
            sweeper.gate.close(Instant::now());
        }
    }
}

struct Sweeper {
    db: Database,
    lease: Duration,
    gate: RescueGate,
    metrics: Arc<Metrics>,
}

impl Sweeper {
    async fn sweep(&mut self) -> Result<(), DbErr> {
        let begun = Instant::now();
        let expired = queue::expired_leases(self.db.read(), BATCH).await?;
        if begun.elapsed() > self.lease / 3 {
            // It may have waited for a database that was away, and was back before a worker knew.
            self.gate.close(Instant::now());
        }
        // After that query: if the clock was set before it, this shows it.
        if self.gate.is_open(self.db.read_clock().await?) {
            for job in expired {
                let span = telemetry::log_span(&job);
                self.rescue(job).instrument(span).await?;
            }
        }
        let orphaned = self
            .db
            .transaction(async move |tx| queue::delete_orphaned_deliveries(tx).await)
            .await?;
        if orphaned > 0 {
            tracing::error!(orphaned, "deleted deliveries that belong to no job");
        }
        for job in queue::missing_deliveries(self.db.read(), self.lease, BATCH).await? {
            let span = telemetry::log_span(&job);
            self.redeliver(job).instrument(span).await?;
        }
        Ok(())
    }

    async fn rescue(&self, job: job::Model) -> Result<(), DbErr> {
        let lost = job.clone();
        let outcome = self
            .db
            .transaction(async move |tx| queue::rescue(tx, &lost).await)
            .await?;
        if outcome != RescueOutcome::Skipped {
            tracing::warn!(?outcome, "rescued a job: its worker's lease expired");
            self.metrics.rescued(outcome, &job);
        }
        Ok(())
    }

    async fn redeliver(&self, job: job::Model) -> Result<(), DbErr> {
        if self
            .db
            .transaction(async move |tx| queue::redeliver(tx, &job).await)
            .await?
        {
            tracing::warn!("re-created a missing delivery");
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
