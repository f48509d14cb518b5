//! The time, as rows keep it: UTC, whole milliseconds, as the contract shows it.
//!
//! What several processes compare (leases, due times) or bring into an order
//! (attempts) must come from one clock. Workers on Postgres may run on machines
//! whose clocks differ, so there the database tells the time. On SQLite all
//! processes share one machine and its clock.

use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use sea_orm::DbBackend;
use sea_orm::sea_query::{Expr, SimpleExpr};

/// A moment in UTC.
pub type Timestamp = DateTime<Utc>;

/// This machine's time, for moments that are shown, or compared where a skew of
/// the clocks does no harm.
pub fn now() -> Timestamp {
    Utc::now().trunc_subsecs(3)
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
