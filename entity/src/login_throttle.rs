//! How long those have to wait who try passwords. The database counts the tries,
//! so that all API processes count together.

use std::time::Duration;

use chrono::TimeDelta;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{LockBehavior, LockType, OnConflict};
use sea_orm::{DatabaseTransaction, ExprTrait, IntoActiveModel, QuerySelect, QueryTrait, Set};

use crate::clock::{Timestamp, now};

/// A row of `login_delays`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "login_delays")]
pub struct Model {
    /// What is counted. No name is in it, for what was typed as one may be none.
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: String,
    /// Tries in a row that failed, or are not known yet to be good.
    pub failures: i32,
    /// When the next may be made, if it has to wait.
    pub open_at: Option<Timestamp>,
    /// From then on the row counts for nothing, whether or not it has been removed
    /// yet.
    pub forget_at: Timestamp,
}

impl ActiveModelBehavior for ActiveModel {}

/// The longest that anyone has to wait.
const MAX_DELAY: Duration = Duration::from_secs(300);

/// After so long without a try, those before it are forgotten.
const COUNTER_TTL: TimeDelta = TimeDelta::days(1);

/// Something that tries are counted under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The row's key.
    pub key: String,
    /// After so many failures in a row each further one costs a delay.
    pub free_failures: i32,
}

impl Counter {
    /// How long to wait after so many failures: a second at first, and twice as
    /// long after each further one.
    pub fn delay(&self, failures: i32) -> Option<Duration> {
        let beyond = u32::try_from(failures - self.free_failures).ok()?;
        let seconds = 1u64.checked_shl(beyond).map(Duration::from_secs);
        Some(seconds.map_or(MAX_DELAY, |delay| Ord::min(delay, MAX_DELAY)))
    }
}

/// What became of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be made, and is counted: so the counters stand with it.
    Counted(Vec<(Counter, Model)>),
    /// It has to wait for so long.
    Wait(Duration),
}

impl Model {
    /// How long the next try has to wait. A wait that is much longer than any was made
    /// before the clock was set back, and is over.
    pub fn wait(&self) -> Option<Duration> {
        let wait = (self.open_at? - now()).to_std().ok()?;
        (!wait.is_zero() && wait <= 2 * MAX_DELAY).then_some(wait)
    }

    fn is_active(&self) -> bool {
        self.forget_at > now()
    }
}

impl Entity {
    /// Those rows of `keys` that count.
    pub async fn find_active(
        db: &impl ConnectionTrait,
        keys: &[&str],
    ) -> Result<Vec<Model>, DbErr> {
        Entity::find()
            .filter(Column::Key.is_in(keys.iter().copied()))
            .filter(Column::ForgetAt.gt(now()))
            .all(db)
            .await
    }

    /// Counts a try under all of `counters`, or tells how long it has to wait.
    ///
    /// It counts as failed from the start, before anyone knows whether it is: of
    /// many at once no more get through than of as many one after the other. What
    /// turns out to be good is taken back with [`Entity::delete`] or
    /// [`Entity::undo`]. The rows are held until `tx` ends; everyone names
    /// the counters in the same order, so that no two wait for each other.
    pub async fn check_and_count(
        tx: &DatabaseTransaction,
        counters: Vec<Counter>,
    ) -> Result<Decision, DbErr> {
        let mut rows = Vec::new();
        for counter in counters {
            let row = lock_for_update(tx, &counter.key).await?;
            if let Some(wait) = row.wait().filter(|_| row.is_active()) {
                return Ok(Decision::Wait(wait));
            }
            rows.push((counter, row));
        }
        let mut counted = Vec::new();
        for (counter, row) in rows {
            let before = if row.is_active() { row.failures } else { 0 };
            let failures = before.saturating_add(1);
            let delay = counter.delay(failures);
            let mut row = row.into_active_model();
            row.failures = Set(failures);
            row.open_at = Set(delay.map(|delay| now() + delay));
            row.forget_at = Set(now() + COUNTER_TTL);
            counted.push((counter, row.update(tx).await?));
        }
        Ok(Decision::Counted(counted))
    }

    /// Keeps `key` for `memory`; nothing is counted under it.
    pub async fn upsert(
        tx: &DatabaseTransaction,
        key: &str,
        memory: TimeDelta,
    ) -> Result<(), DbErr> {
        let longer = OnConflict::column(Column::Key)
            .update_column(Column::ForgetAt)
            .to_owned();
        let row = Model {
            forget_at: now() + memory,
            ..new_row(key)
        };
        Entity::insert(row.into_active_model())
            .on_conflict(longer)
            .exec_without_returning(tx)
            .await?;
        Ok(())
    }

    /// Forgets what was counted under `key`.
    pub async fn delete(tx: &DatabaseTransaction, key: &str) -> Result<(), DbErr> {
        Entity::delete_by_id(key).exec(tx).await?;
        Ok(())
    }

    /// Takes back a try that turned out to be good, and the delay that it has
    /// brought; `counted` is the row as it was with it. What failed stays.
    pub async fn undo(tx: &DatabaseTransaction, counted: &Model) -> Result<(), DbErr> {
        let this = Column::Key.eq(counted.key.as_str());
        Entity::update_many()
            .col_expr(Column::Failures, Expr::col(Column::Failures).sub(1))
            .filter(this.clone())
            .filter(Column::Failures.gt(0))
            .exec(tx)
            .await?;
        Entity::update_many()
            .col_expr(Column::OpenAt, Expr::cust("NULL"))
            .filter(this)
            .filter(Column::OpenAt.eq(counted.open_at))
            .exec(tx)
            .await?;
        Ok(())
    }

    /// Removes up to `limit` rows that count for nothing, and says how many.
    pub async fn delete_expired(db: &impl ConnectionTrait, limit: u64) -> Result<u64, DbErr> {
        let old = Entity::find()
            .select_only()
            .column(Column::Key)
            .filter(Column::ForgetAt.lte(now()))
            .limit(limit)
            // One that somebody counts under is about to be of use again.
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
            .into_query();
        let removed = Entity::delete_many()
            .filter(Column::Key.in_subquery(old))
            .exec(db)
            .await?;
        Ok(removed.rows_affected)
    }
}

/// The row of `key`, made if need be, which nobody else changes before `tx` ends.
async fn lock_for_update(tx: &DatabaseTransaction, key: &str) -> Result<Model, DbErr> {
    let as_it_is = OnConflict::column(Column::Key)
        .update_column(Column::Key)
        .to_owned();
    Entity::insert(new_row(key).into_active_model())
        .on_conflict(as_it_is)
        .exec_with_returning(tx)
        .await
}

fn new_row(key: &str) -> Model {
    Model {
        key: key.to_owned(),
        failures: 0,
        open_at: None,
        forget_at: now() + COUNTER_TTL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_doubles_from_a_second_to_five_minutes() {
        let counter = Counter {
            key: "x".to_owned(),
            free_failures: 5,
        };
        let delays = [4, 5, 6, 7, 12, 13, 14, 100, i32::MAX].map(|failures| {
            let delay = counter.delay(failures);
            delay.map(|delay| delay.as_secs())
        });
        let expected = [
            None,
            Some(1),
            Some(2),
            Some(4),
            Some(128),
            Some(256),
            Some(300),
            Some(300),
            Some(300),
        ];
        assert_eq!(delays, expected);
    }
}
