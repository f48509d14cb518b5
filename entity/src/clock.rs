//! Timestamps in UTC and whole milliseconds, and UUIDv7 ids made of them.
//!
//! There is one clock, the database's: processes on machines whose clocks differ must agree on what
//! has expired and what came first. A statement that must compare exactly uses [`db_now`]. All else
//! uses [`now`], which adds the time elapsed to the latest reading of the database's clock. On
//! SQLite there are no readings: all processes share one machine and its clock.

use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use sea_orm::DbBackend;
use sea_orm::sea_query::{Expr, SimpleExpr};
use uuid::Uuid;
use uuid::timestamp::context::ContextV7;

/// A point in time, in UTC.
pub type Timestamp = DateTime<Utc>;

/// What the database's clock showed at an instant of this process.
#[derive(Clone, Copy, Debug)]
struct Reading {
    time: Timestamp,
    at: Instant,
}

static READING: RwLock<Option<Reading>> = RwLock::new(None);

/// Makes [`now`] follow the database's clock, which showed `time` at the instant `at`.
pub fn set(time: Timestamp, at: Instant) {
    *READING.write().unwrap_or_else(PoisonError::into_inner) = Some(Reading { time, at });
}

fn reading() -> Option<Reading> {
    *READING.read().unwrap_or_else(PoisonError::into_inner)
}

/// Whether [`now`] follows the database's clock already.
pub fn is_set() -> bool {
    reading().is_some()
}

/// The database's time as this process knows it: a few milliseconds off, which is good enough to
/// show, and for durations of seconds.
pub fn now() -> Timestamp {
    let time = reading().map_or_else(Utc::now, |reading| reading.time + reading.at.elapsed());
    time.trunc_subsecs(3)
}

/// A UUIDv7 of [`now`]. Those of one process sort in the order in which they were made.
pub fn new_id() -> Uuid {
    static CONTEXT: Mutex<ContextV7> = Mutex::new(ContextV7::new());
    let now = now();
    let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
    let context = CONTEXT.lock().unwrap_or_else(PoisonError::into_inner);
    let nanos = now.timestamp_subsec_nanos();
    Uuid::new_v7(uuid::Timestamp::from_unix(&*context, seconds, nanos))
}

/// A new id that is greater than `earlier`, even if that was made by a clock that is ahead.
pub fn new_id_after(earlier: Uuid) -> Uuid {
    const MILLIS_SHIFT: u32 = 80;
    let id = new_id();
    if id > earlier {
        return id;
    }
    let millis = (earlier.as_u128() >> MILLIS_SHIFT) + 1;
    let rest = id.as_u128() & ((1 << MILLIS_SHIFT) - 1);
    Uuid::from_u128(millis << MILLIS_SHIFT | rest)
}

/// The database's time, in SQL.
pub fn db_now(backend: DbBackend) -> SimpleExpr {
    db_after(backend, Duration::ZERO)
}

/// The database's time after `delay`, in SQL.
pub fn db_after(backend: DbBackend, delay: Duration) -> SimpleExpr {
    db_time(backend, millis(delay))
}

/// The database's time before `ago`, in SQL.
pub(crate) fn db_ago(backend: DbBackend, ago: Duration) -> SimpleExpr {
    db_time(backend, -millis(ago))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2)
}

fn db_time(backend: DbBackend, millis: i64) -> SimpleExpr {
    match backend {
        DbBackend::Postgres => Expr::cust(format!(
            "date_trunc('milliseconds', statement_timestamp()) + interval '{millis} milliseconds'"
        )),
        _ => Expr::value(now() + TimeDelta::milliseconds(millis)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis_of(id: Uuid) -> i64 {
        i64::try_from(id.as_u128() >> 80).unwrap()
    }

    #[test]
    fn ids_of_one_process_are_in_the_order_in_which_they_were_made() {
        let ids: Vec<Uuid> = std::iter::repeat_with(new_id).take(10_000).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
        assert!((now().timestamp_millis() - millis_of(ids[0])).abs() < 10_000);
    }

    #[test]
    fn an_id_is_greater_than_one_of_a_clock_that_is_ahead() {
        let ahead = Uuid::from_u128(new_id().as_u128() + (1_000_000 << 80));
        let id = new_id_after(ahead);
        assert!(id > ahead && id.get_version_num() == 7, "{id} {ahead}");
        assert_eq!(millis_of(id), millis_of(ahead) + 1);
        let id = new_id_after(Uuid::now_v7());
        assert!((now().timestamp_millis() - millis_of(id)).abs() < 10_000);
    }
}
