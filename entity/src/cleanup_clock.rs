//! Whether the clock can be trusted enough to delete old rows by it: one row, which always exists.
//! A clock that is a month ahead would delete what is to be kept for a month.

use chrono::TimeDelta;
use sea_orm::entity::prelude::*;
use sea_orm::{DatabaseTransaction, IntoActiveModel, QuerySelect};

use crate::clock::Timestamp;

/// The row of `cleanup_clock`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "cleanup_clock")]
pub struct Model {
    /// Always 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    /// The latest time that was trusted; null before the first.
    pub trusted_at: Option<Timestamp>,
    /// How many times in a row the clock has been doubted since.
    pub doubts: i32,
    /// What the clock showed when it was last doubted.
    pub doubted_at: Option<Timestamp>,
}

impl ActiveModelBehavior for ActiveModel {}

/// How far the clock may advance between two checks. If it advances farther, either the service was
/// off or the clock is wrong; the two can't be told apart.
const MAX_GAP: TimeDelta = TimeDelta::days(1);

/// A doubt counts if it comes this long after the last one of any process: all processes together,
/// or one that keeps restarting, count one a minute.
const DOUBT_INTERVAL: TimeDelta = TimeDelta::seconds(50);

/// After so many doubts the clock is trusted: an operator has had a day to correct it.
const MAX_DOUBTS: i32 = 24 * 60;

/// Whether old rows may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockTrust {
    /// They may.
    Trusted,
    /// They may not, for the clock may be wrong.
    Doubted {
        /// How far the clock is ahead of the time that was trusted last.
        ahead: TimeDelta,
    },
}

impl Entity {
    /// Checks a clock that shows `now`, and records what came of it.
    pub async fn check(tx: &DatabaseTransaction, now: Timestamp) -> Result<ClockTrust, DbErr> {
        let row = Entity::find_by_id(1).lock_exclusive().one(tx).await?;
        let missing = || DbErr::RecordNotFound("the row of cleanup_clock".to_owned());
        let mut row = row.ok_or_else(missing)?;
        let ahead = row.trusted_at.map_or(TimeDelta::zero(), |last| now - last);
        let is_new = |last: Timestamp| (now - last).abs() >= DOUBT_INTERVAL;
        let is_counted = row.doubted_at.is_none_or(is_new);
        let doubts = row.doubts + i32::from(is_counted);
        let trust = if ahead > MAX_GAP && doubts <= MAX_DOUBTS {
            if is_counted {
                row.doubts = doubts;
                row.doubted_at = Some(now);
            }
            ClockTrust::Doubted { ahead }
        } else {
            // The maximum: a clock that was behind must not make the right time look like a jump.
            row.trusted_at = row.trusted_at.max(Some(now));
            row.doubts = 0;
            row.doubted_at = None;
            ClockTrust::Trusted
        };
        row.into_active_model().reset_all().update(tx).await?;
        Ok(trust)
    }
}
