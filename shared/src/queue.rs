//! The queue between API and workers: apalis on SQLite or Postgres. Nothing
//! else names apalis.
//!
//! apalis only delivers. A delivery is a row of its own table that carries a
//! job's id and the number of the attempt that it is for; what the job is and
//! whether the attempt may be made is in our tables, see
//! [`entity::job::lifecycle`]. From this follow the guarantees:
//!
//! - *A job that was accepted is delivered.* [`push`] writes apalis' row in the
//!   caller's transaction: the job and its delivery commit together or not at
//!   all. Should a row be lost all the same, [`stranded`] finds the job.
//! - *A delivery is used once.* The worker removes the row with [`take`] in the
//!   transaction of its claim. A row that comes twice finds its job taken.
//! - *The table stays as small as the queue is long*, since rows are removed
//!   when they are taken. apalis' own acknowledgements and locks, which would
//!   keep every row for ever, are off.

use std::time::Duration;

use apalis_postgres::PostgresStorage;
use apalis_sqlite::SqliteStorage;
use entity::job;
use sea_orm::entity::prelude::*;
use sea_orm::{DatabaseTransaction, DbBackend, FromQueryResult, Statement};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

mod consume;

pub use consume::{Consumer, Handler};

/// The queue's name in apalis' tables. Rows that wait there under another name
/// would never be taken, so it never changes.
const QUEUE: &str = "blog-generation";

/// What a delivery carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// The job.
    pub job: Uuid,
    /// The number of the attempt that it is for, from 1.
    pub attempt: i32,
}

/// A delivery as a worker receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its row's id.
    pub id: String,
    /// What it carries; an error if that can't be read.
    pub payload: Result<Payload, String>,
}

/// Makes apalis' tables, or brings them up to date.
///
/// # Errors
/// When one of its migrations fails.
pub async fn create_tables(db: &DatabaseConnection) -> anyhow::Result<()> {
    match db.get_database_backend() {
        DbBackend::Postgres => {
            let pool = db.get_postgres_connection_pool();
            PostgresStorage::<()>::setup(pool).await?;
        }
        _ => {
            // Not its `setup`, which would also turn `synchronous` off.
            let pool = db.get_sqlite_connection_pool();
            SqliteStorage::<()>::migrations().run(pool).await?;
        }
    }
    Ok(())
}

/// A new delivery's id: a ULID whose time is the moment when it is due, so that
/// ids sort in the order of the queue.
pub fn delivery_id(delay: Duration) -> String {
    let due = std::time::SystemTime::now() + delay;
    Ulid::from_datetime(due).to_string()
}

/// Puts a delivery into the queue, to be taken after `delay`.
///
/// # Errors
/// When the database does not answer.
pub async fn push(
    tx: &DatabaseTransaction,
    id: &str,
    payload: Payload,
    delay: Duration,
) -> Result<(), DbErr> {
    let backend = tx.get_database_backend();
    let body = serde_json::to_vec(&payload).map_err(|e| DbErr::Custom(e.to_string()))?;
    // On SQLite apalis counts whole seconds. A delivery that came too early would
    // be refused, so its time is rounded up. On Postgres its trigger wakes workers
    // only for what is due when the transaction began, which is now().
    let sql = match backend {
        DbBackend::Postgres => {
            "INSERT INTO apalis.jobs \
             (id, job_type, job, status, attempts, max_attempts, run_at, priority, metadata) \
             VALUES ($1, $2, $3, 'Pending', 0, 1, \
             CASE $4 WHEN 0 THEN now() \
             ELSE statement_timestamp() + $4 * interval '1 millisecond' END, \
             0, ''::hstore)"
        }
        _ => {
            "INSERT INTO Jobs \
             (id, job_type, job, status, attempts, max_attempts, run_at, priority, metadata) \
             VALUES ($1, $2, $3, 'Pending', 0, 1, $4, 0, '{}')"
        }
    };
    let when = match backend {
        DbBackend::Postgres => i64::try_from(delay.as_millis()).unwrap_or(i64::MAX),
        _ => due_second(delay),
    };
    let values = [id.into(), QUEUE.into(), body.into(), when.into()];
    tx.execute_raw(Statement::from_sql_and_values(backend, sql, values))
        .await?;
    Ok(())
}

/// The second by which a delay is over; for none, the present one.
fn due_second(delay: Duration) -> i64 {
    let now = chrono::Utc::now().timestamp_millis();
    if delay.is_zero() {
        return now / 1000;
    }
    let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX / 2);
    (now.saturating_add(delay)).saturating_add(999) / 1000
}

/// Removes a delivery from the queue, if it is there.
///
/// # Errors
/// When the database does not answer.
pub async fn take(tx: &DatabaseTransaction, id: &str) -> Result<(), DbErr> {
    let backend = tx.get_database_backend();
    let sql = match backend {
        DbBackend::Postgres => "DELETE FROM apalis.jobs WHERE id = $1",
        _ => "DELETE FROM Jobs WHERE id = $1",
    };
    tx.execute_raw(Statement::from_sql_and_values(backend, sql, [id.into()]))
        .await?;
    Ok(())
}

/// Queued jobs that are due and whose delivery is missing, or was handed to a worker that has
/// not taken it within `patience`.
///
/// # Errors
/// When the database does not answer.
pub async fn stranded(
    db: &impl ConnectionTrait,
    patience: Duration,
    limit: u64,
) -> Result<Vec<job::Model>, DbErr> {
    let backend = db.get_database_backend();
    let seconds = i64::try_from(patience.as_secs()).unwrap_or(i64::MAX);
    let sql = match backend {
        DbBackend::Postgres => {
            "SELECT job.* FROM generation_jobs job \
             LEFT JOIN apalis.jobs delivery ON delivery.id = job.delivery_id \
             WHERE job.status = 'queued' \
             AND (job.next_attempt_at IS NULL OR job.next_attempt_at <= now()) \
             AND (delivery.id IS NULL OR delivery.lock_at < now() - $1 * interval '1 second') \
             ORDER BY job.delivery_id LIMIT $2"
        }
        _ => {
            "SELECT job.* FROM generation_jobs job \
             LEFT JOIN Jobs delivery ON delivery.id = job.delivery_id \
             WHERE job.status = 'queued' \
             AND (job.next_attempt_at IS NULL OR job.next_attempt_at <= $3) \
             AND (delivery.id IS NULL \
             OR delivery.lock_at < CAST(strftime('%s', 'now') AS INTEGER) - $1) \
             ORDER BY job.delivery_id LIMIT $2"
        }
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut values = vec![seconds.into(), limit.into()];
    if backend != DbBackend::Postgres {
        values.push(entity::clock::now().into());
    }
    job::Model::find_by_statement(Statement::from_sql_and_values(backend, sql, values))
        .all(db)
        .await
}

/// Deliveries in the queue, whatever their state.
///
/// # Errors
/// When the database does not answer.
pub async fn length(db: &impl ConnectionTrait) -> Result<i64, DbErr> {
    let backend = db.get_database_backend();
    let sql = match backend {
        DbBackend::Postgres => "SELECT COUNT(*) FROM apalis.jobs WHERE job_type = $1",
        _ => "SELECT COUNT(*) FROM Jobs WHERE job_type = $1",
    };
    let count = db
        .query_one_raw(Statement::from_sql_and_values(backend, sql, [QUEUE.into()]))
        .await?;
    count.map_or(Ok(0), |row| row.try_get_by_index(0))
}
