//! Whether the clock can be believed enough to delete by it: one row, which is
//! always there. A clock that is a month ahead would remove what is to be kept for
//! a month.

use chrono::TimeDelta;
use sea_orm::entity::prelude::*;
use sea_orm::{DatabaseTransaction, QuerySelect};

use crate::clock::Timestamp;

/// The row of `cleanup_clock`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "cleanup_clock")]
pub struct Model {
    /// Always 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    /// The latest time that was believed; null before the first.
    pub trusted_at: Option<Timestamp>,
    /// How often in a row the clock has not been believed since.
    pub doubts: i32,
    /// What it showed the last time that it was not.
    pub doubted_at: Option<Timestamp>,
}

impl ActiveModelBehavior for ActiveModel {}

/// By so much the clock may go on between two looks. More is a service that was
/// off for long, or a clock that is wrong: they look the same.
const MAX_GAP: TimeDelta = TimeDelta::days(1);

/// A doubt counts if it comes so long after the last one, by whichever process: all
/// of them together, and one that is started again and again, count once a minute.
const DOUBT_INTERVAL: TimeDelta = TimeDelta::seconds(50);

/// After so many doubts the clock is believed: somebody has had a day to set it right.
const MAX_DOUBTS: i32 = 24 * 60;

/// Whether to delete what is old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockTrust {
    /// The clock can be believed.
    Trusted,
    /// It can't.
    Doubted {
        /// How far it is beyond the time that was believed last.
        ahead: TimeDelta,
    },
}

impl Entity {
    /// Whether a clock that shows `now` can be believed. Remembers what it shows then.
    pub async fn check(tx: &DatabaseTransaction, now: Timestamp) -> Result<ClockTrust, DbErr> {
        let row = Entity::find_by_id(1).lock_exclusive().one(tx).await?;
        let none = || DbErr::RecordNotFound("the row of cleanup_clock".to_owned());
        let row = row.ok_or_else(none)?;
        let ahead = row.trusted_at.map_or(TimeDelta::zero(), |last| now - last);
        let is_new = |last: Timestamp| (now - last).abs() >= DOUBT_INTERVAL;
        let doubts = row.doubts + i32::from(row.doubted_at.is_none_or(is_new));
        let is_doubted = ahead > MAX_GAP && doubts <= MAX_DOUBTS;
        let update = match is_doubted {
            true if doubts == row.doubts => return Ok(ClockTrust::Doubted { ahead }),
            true => Entity::update_many()
                .col_expr(Column::Doubts, Expr::value(doubts))
                .col_expr(Column::DoubtedAt, Expr::value(now)),
            // A clock that was behind does not make the right time look like a jump.
            false => Entity::update_many()
                .col_expr(
                    Column::TrustedAt,
                    Expr::value(row.trusted_at.max(Some(now))),
                )
                .col_expr(Column::Doubts, Expr::value(0))
                .col_expr(Column::DoubtedAt, Expr::cust("NULL")),
        };
        update.exec(tx).await?;
        Ok(match is_doubted {
            true => ClockTrust::Doubted { ahead },
            false => ClockTrust::Trusted,
        })
    }
}
