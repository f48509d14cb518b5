//! The time, as rows keep it: UTC, whole milliseconds, as the contract shows it.
//!
//! There is one clock, the database's: processes on machines whose clocks differ
//! must agree on what has expired and what came first. A statement that compares
//! exactly asks for it by [`db_now`]. All else takes [`now`], which goes by the
//! latest reading that this process was given. On SQLite there are no
//! readings: all processes share one machine and its clock.

use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use sea_orm::DbBackend;
use sea_orm::sea_query::{Expr, SimpleExpr};
use uuid::Uuid;
use uuid::timestamp::context::ContextV7;

/// A moment in UTC.
pub type Timestamp = DateTime<Utc>;

/// What the database's clock showed at a moment of this process.
#[derive(Clone, Copy, Debug)]
struct Reading {
    time: Timestamp,
    at: Instant,
}

static READING: RwLock<Option<Reading>> = RwLock::new(None);

/// Makes [`now`] go by the database's clock, which showed `time` at the moment
/// `at`.
pub fn set(time: Timestamp, at: Instant) {
    let reading = Some(Reading { time, at });
    *READING.write().unwrap_or_else(PoisonError::into_inner) = reading;
}

/// Whether [`now`] goes by the database's clock already.
pub fn is_set() -> bool {
    READING
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .is_some()
}

/// The database's time, as far as this process knows it: a few milliseconds off,
/// which is good enough for what is shown and for what lasts seconds.
pub fn now() -> Timestamp {
    let reading = *READING.read().unwrap_or_else(PoisonError::into_inner);
    let time = reading.map_or_else(Utc::now, |reading| reading.time + reading.at.elapsed());
    time.trunc_subsecs(3)
}

/// A new id, a UUIDv7 of [`now`]. Those of one process are in the order in which
/// they were made.
pub fn new_id() -> Uuid {
    static CONTEXT: Mutex<ContextV7> = Mutex::new(ContextV7::new());
    let now = now();
    let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
    let context = CONTEXT.lock().unwrap_or_else(PoisonError::into_inner);
    let nanos = now.timestamp_subsec_nanos();
    Uuid::new_v7(uuid::Timestamp::from_unix(&*context, seconds, nanos))
}

/// A new id that is greater than `earlier`, whichever clock that was made by.
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

/// The database's time.
pub fn db_now(backend: DbBackend) -> SimpleExpr {
    db_after(backend, Duration::ZERO)
}

/// The database's time, `delay` from now.
pub fn db_after(backend: DbBackend, delay: Duration) -> SimpleExpr {
    db_time(backend, millis(delay))
}

/// The database's time, so long ago.
pub fn db_ago(backend: DbBackend, ago: Duration) -> SimpleExpr {
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
