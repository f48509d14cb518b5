//! Login throttling: counters of failed password attempts, in the database so that all API
//! processes share them.

use std::time::Duration;

use chrono::TimeDelta;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{LockBehavior, LockType, OnConflict};
use sea_orm::{DatabaseTransaction, ExprTrait, Insert, IntoActiveModel, QuerySelect, Set};

use crate::batch_delete::delete_selected;
use crate::clock::{Timestamp, now};

/// A row of `login_delays`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "login_delays")]
pub struct Model {
    /// What the counter is of. It contains no user name: what was typed as one may be a password.
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: String,
    /// Attempts in a row that failed or are still being checked.
    pub failures: i32,
    /// When the next attempt is allowed, if it has to wait.
    pub open_at: Option<Timestamp>,
    /// When the row expires, whether or not it has been deleted by then.
    pub forget_at: Timestamp,
}

impl ActiveModelBehavior for ActiveModel {}

/// The longest delay between attempts.
const MAX_DELAY: Duration = Duration::from_secs(300);

/// How long after the latest attempt a counter expires.
const COUNTER_TTL: TimeDelta = TimeDelta::days(1);

/// A counter that an attempt adds to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The row's key.
    pub key: String,
    /// How many failures in a row are allowed without a delay.
    pub free_failures: i32,
}

impl Counter {
    /// The delay after so many failures: a second at first, doubled by each further one.
    pub fn delay(&self, failures: i32) -> Option<Duration> {
        let beyond = u32::try_from(failures - self.free_failures).ok()?;
        let seconds = 1u64.checked_shl(beyond).map(Duration::from_secs);
        Some(seconds.map_or(MAX_DELAY, |delay| Ord::min(delay, MAX_DELAY)))
    }
}

/// Whether an attempt is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is, and is counted: these are the counters with it.
    Counted(Vec<(Counter, Model)>),
    /// Not before this delay.
    Wait(Duration),
}

impl Model {
    /// How long the next attempt has to wait. A wait longer than twice the longest delay was set
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
    /// The rows of `keys` that have not expired.
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

    /// Counts an attempt under all of `counters`, or returns how long it has to wait.
    ///
    /// It is counted as failed before its password is checked, so that no more concurrent attempts
    /// get through than consecutive ones. A successful one is taken back by [`Entity::delete`] or
    /// [`Entity::undo`]. The rows are locked until `tx` ends; all callers pass the counters in the
    /// same order, so that they do not deadlock.
    pub async fn check_and_count(
        tx: &DatabaseTransaction,
        counters: Vec<Counter>,
    ) -> Result<Decision, DbErr> {
        let mut rows = Vec::new();
        for counter in counters {
            // An update of the key to itself: an existing row is locked as it is.
            let row = insert_or_update(&counter.key, now() + COUNTER_TTL, Column::Key);
            let row = row.exec_with_returning(tx).await?;
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

    /// Inserts `key`, or keeps it for longer, without counting anything.
    pub async fn upsert(tx: &DatabaseTransaction, key: &str, ttl: TimeDelta) -> Result<(), DbErr> {
        insert_or_update(key, now() + ttl, Column::ForgetAt)
            .exec_without_returning(tx)
            .await?;
        Ok(())
    }

    /// Deletes the counter of `key`.
    pub async fn delete(tx: &DatabaseTransaction, key: &str) -> Result<(), DbErr> {
        Entity::delete_by_id(key).exec(tx).await?;
        Ok(())
    }

    /// Takes back an attempt that succeeded, and the delay that it set; `counted` is the row with
    /// it. Earlier failures stay counted.
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

    /// Deletes up to `limit` expired rows, and returns how many.
    pub async fn delete_expired(db: &impl ConnectionTrait, limit: u64) -> Result<u64, DbErr> {
        let expired = Entity::find()
            .filter(Column::ForgetAt.lte(now()))
            .limit(limit)
            // A locked one is about to count again.
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
        let delete = delete_selected(expired, Column::Key);
        Ok(delete.exec(db).await?.rows_affected)
    }
}

/// Inserts a row that has counted nothing, or updates one column of the row that has the key.
fn insert_or_update(key: &str, forget_at: Timestamp, column: Column) -> Insert<ActiveModel> {
    let row = ActiveModel {
        key: Set(key.to_owned()),
        failures: Set(0),
        open_at: Set(None),
        forget_at: Set(forget_at),
    };
    let update = OnConflict::column(Column::Key)
        .update_column(column)
        .to_owned();
    Entity::insert(row).on_conflict(update)
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
