//! Reads the database's clock, and detects when it was set.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use entity::clock::{self, Timestamp};
use sea_orm::{DbBackend, DbErr};
use tokio::time::{MissedTickBehavior, interval};

use crate::database::Database;

/// How often a process reads the database's clock.
const READ_INTERVAL: Duration = Duration::from_secs(10);

/// A reading that took longer is less accurate than the previous one.
const MAX_READ_TIME: Duration = Duration::from_millis(500);

/// What the database's clock showed, and between which two instants of this process, for a reading
/// takes time.
#[derive(Clone, Copy, Debug)]
pub struct ClockReading {
    /// The time that the clock showed.
    pub time: Timestamp,
    /// Just before the clock was read.
    pub earliest: Instant,
    /// Just after the clock was read.
    pub latest: Instant,
}

impl ClockReading {
    /// By how much the clock was set forward since an earlier reading, or back if negative: the
    /// part of its change that the elapsed time does not explain. A machine that was suspended
    /// looks like one whose clock was set forward.
    pub fn step_since(&self, before: &ClockReading) -> TimeDelta {
        let delta = |time: Duration| TimeDelta::from_std(time).unwrap_or(TimeDelta::MAX);
        let shown = self.time - before.time;
        let least = delta(self.earliest.saturating_duration_since(before.latest));
        let most = delta(self.latest.saturating_duration_since(before.earliest));
        (shown - most).max(TimeDelta::zero()) + (shown - least).min(TimeDelta::zero())
    }
}

impl Database {
    /// Reads the clock that all processes share: the server's on Postgres, the machine's on SQLite.
    pub async fn read_clock(&self) -> Result<ClockReading, DbErr> {
        self.read().clock().await
    }

    /// Makes [`clock::now`] follow the database's clock.
    pub(crate) async fn synchronize_clock(&self) -> Result<(), DbErr> {
        if self.backend() == DbBackend::Postgres {
            let reading = self.read_clock().await?;
            let took = reading.latest - reading.earliest;
            // A reading that had to wait for a connection is inaccurate.
            if took < MAX_READ_TIME || !clock::is_set() {
                clock::set(reading.time, reading.earliest + took / 2);
            }
        }
        Ok(())
    }

    /// Synchronizes [`clock::now`] periodically, for ever: clocks drift, and may be set.
    pub async fn follow_clock(self) {
        let mut ticks = interval(READ_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.synchronize_clock().await {
                tracing::debug!(%error, "can't read the database's clock; trying again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1000);

    /// A reading that took from one moment to another, both in milliseconds.
    fn reading(time: i64, earliest: u64, latest: u64, begun: Instant) -> ClockReading {
        let at = |millis| begun + START + Duration::from_millis(millis);
        ClockReading {
            time: Timestamp::from_timestamp_millis(time).unwrap(),
            earliest: at(earliest),
            latest: at(latest),
        }
    }

    #[test]
    fn only_what_no_time_explains_is_a_step_of_the_clock() {
        let begun = Instant::now();
        let before = reading(50_000, 0, 100, begun);
        let step = |time, earliest, latest| {
            let after = reading(time, earliest, latest, begun);
            after.step_since(&before).num_milliseconds()
        };
        assert_eq!(step(53_000, 3_000, 3_100), 0);
        // The first was read at its end and this one at its beginning, or the other way round.
        assert_eq!(step(52_900, 3_000, 3_100), 0);
        assert_eq!(step(53_100, 3_000, 3_100), 0);
        // A reading that takes long tells little.
        assert_eq!(step(60_000, 3_000, 20_000), 0);
        assert_eq!(step(83_100, 3_000, 3_100), 30_000);
        assert_eq!(step(22_900, 3_000, 3_100), -30_000);
    }
}
