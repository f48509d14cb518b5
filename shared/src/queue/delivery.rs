//! Deliveries: the rows of apalis' table that wake workers. No other file names that table.

use std::time::Duration;

use apalis_postgres::PostgresStorage;
use apalis_sqlite::SqliteStorage;
use entity::clock::{Timestamp, now};
use entity::job;
use sea_orm::entity::prelude::*;
use sea_orm::{
    DatabaseTransaction, DbBackend, FromQueryResult, IdenStatic, Iterable, Statement, Value,
};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

/// The queue's name in apalis' tables. It never changes: rows under another name would never be
/// delivered.
pub(super) const QUEUE: &str = "blog-generation";

/// How many deliveries one statement names: databases limit its parameters.
const MAX_IDS: usize = 500;

/// Indexes of apalis' table on SQLite that only its web board uses.
const UNUSED_INDEXES: [&str; 11] = [
    "JTIdx",
    "SIdx",
    "TIdx",
    "idx_jobs_claimable",
    "idx_jobs_completed_done_at",
    "idx_jobs_job_type_covering",
    "idx_jobs_job_type_run_at",
    "idx_jobs_job_type_status_run_at",
    "idx_jobs_run_at_status",
    "idx_jobs_running",
    "idx_jobs_status_run_at",
];

/// The content of a delivery, for people who look into the table. Workers claim whichever job is
/// next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// The job.
    pub job: Uuid,
    /// The number of the attempt, from 1.
    pub attempt: i32,
}

/// A delivery as a worker receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The id of its row.
    pub id: String,
    /// Its content, or why that can't be parsed.
    pub payload: Result<Payload, String>,
}

/// Creates or migrates apalis' tables. Those of a newer version are left alone.
pub(crate) async fn create_tables(db: &DatabaseConnection) -> anyhow::Result<()> {
    match db.get_database_backend() {
        DbBackend::Postgres => {
            let pool = db.get_postgres_connection_pool();
            let mut tables = PostgresStorage::<()>::migrations();
            tables.set_ignore_missing(true).run(pool).await?;
        }
        _ => {
            // Not its `setup`, which would also turn `synchronous` off.
            let pool = db.get_sqlite_connection_pool();
            let mut tables = SqliteStorage::<()>::migrations();
            tables.set_ignore_missing(true).run(pool).await?;
            // Each would be updated with every delivery.
            for index in UNUSED_INDEXES {
                db.execute_unprepared(&format!("DROP INDEX IF EXISTS {index}"))
                    .await?;
            }
        }
    }
    Ok(())
}

/// A new delivery's id: a ULID of the time at which it is due, so that ids sort by due time.
pub(super) fn new_id(delay: Duration) -> String {
    Ulid::from_datetime((now() + delay).into()).to_string()
}

/// How long a delivery has been due; None if it is not due yet, or its id is not a ULID.
pub fn lateness(delivery: &str) -> Option<Duration> {
    let due = Ulid::from_string(delivery).ok()?.datetime();
    (now() - Timestamp::from(due)).to_std().ok()
}

/// Inserts the deliveries of `jobs`, whose ids they have, for their next attempts, due after `delay`.
pub(super) async fn insert(
    tx: &DatabaseTransaction,
    jobs: &[job::Model],
    delay: Duration,
) -> Result<(), DbErr> {
    let backend = tx.get_database_backend();
    let when = match backend {
        DbBackend::Postgres => i64::try_from(delay.as_millis()).unwrap_or(i64::MAX),
        _ => due_second(delay),
    };
    let mut values: Vec<Value> = vec![QUEUE.into(), when.into()];
    let mut rows = Vec::with_capacity(jobs.len());
    for job in jobs {
        let payload = Payload {
            job: job.id,
            attempt: job.attempt + 1,
        };
        let body = serde_json::to_vec(&payload).map_err(|e| DbErr::Json(e.to_string()))?;
        values.extend([job.delivery_id.clone().into(), body.into()]);
        let (id, body) = (values.len() - 1, values.len());
        // On SQLite apalis counts whole seconds. A delivery that came too early would find no job
        // to claim, so its time is rounded up. On Postgres its trigger notifies workers only of rows
        // that are due when the transaction began, which is now().
        rows.push(match backend {
            DbBackend::Postgres => format!(
                "(${id}, $1, ${body}, 'Pending', 0, 1, CASE $2 WHEN 0 THEN now() \
                 ELSE statement_timestamp() + $2 * interval '1 millisecond' END, 0, ''::hstore)"
            ),
            _ => format!("(${id}, $1, ${body}, 'Pending', 0, 1, $2, 0, '{{}}')"),
        });
    }
    let table = table(tx);
    let rows = rows.join(", ");
    let sql = format!(
        "INSERT INTO {table} (id, job_type, job, status, attempts, max_attempts, run_at, priority, \
         metadata) VALUES {rows}"
    );
    tx.execute_raw(Statement::from_sql_and_values(backend, sql, values))
        .await?;
    Ok(())
}

/// The Unix time, in whole seconds, by which a delay has passed; without a delay the current one.
fn due_second(delay: Duration) -> i64 {
    let now = now().timestamp_millis();
    if delay.is_zero() {
        return now / 1000;
    }
    let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX / 2);
    (now.saturating_add(delay)).saturating_add(999) / 1000
}

/// Locks deliveries until the transaction ends, on Postgres. A caller that is going to [`delete`]
/// some and [`release`] others begins with this: two workers may each have been woken by the
/// delivery of the job that the other claims, and would deadlock if they did not lock in the order
/// of ids.
pub(super) async fn lock(tx: &DatabaseTransaction, deliveries: &[&str]) -> Result<(), DbErr> {
    if tx.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let some = placeholders(deliveries);
    let lock = format!("SELECT FROM apalis.jobs WHERE id IN {some} ORDER BY id FOR UPDATE");
    execute(tx, lock, deliveries).await
}

/// Deletes those of the deliveries that exist.
pub(super) async fn delete(tx: &DatabaseTransaction, deliveries: &[&str]) -> Result<(), DbErr> {
    let jobs = table(tx);
    let some = placeholders(deliveries);
    let delete = format!("DELETE FROM {jobs} WHERE id IN {some}");
    execute(tx, delete, deliveries).await
}

/// Deletes those of any number of deliveries that exist, in the order of their ids: a worker that
/// was woken by some may be about to lock them.
pub(super) async fn delete_in_order(
    tx: &DatabaseTransaction,
    mut deliveries: Vec<String>,
) -> Result<(), DbErr> {
    deliveries.sort_unstable();
    let deliveries: Vec<&str> = deliveries.iter().map(String::as_str).collect();
    for some in deliveries.chunks(MAX_IDS) {
        lock(tx, some).await?;
        delete(tx, some).await?;
    }
    Ok(())
}

/// Makes a delivery pending again that woke a worker and was not used, so that it wakes another.
pub async fn release_delivery(tx: &DatabaseTransaction, delivery: &str) -> Result<(), DbErr> {
    release(tx, &[delivery]).await
}

/// As [`release_delivery`], for several. Those without a queued job are deleted.
pub(super) async fn release(tx: &DatabaseTransaction, deliveries: &[&str]) -> Result<(), DbErr> {
    let jobs = table(tx);
    let some = placeholders(deliveries);
    let orphaned = format!(
        "DELETE FROM {jobs} AS delivery WHERE id IN {some} AND NOT EXISTS \
         (SELECT 1 FROM generation_jobs WHERE status = 'queued' AND delivery_id = delivery.id)"
    );
    execute(tx, orphaned, deliveries).await?;
    // As apalis' trigger does for new rows.
    let notify = match tx.get_database_backend() {
        DbBackend::Postgres => {
            "RETURNING pg_notify('apalis::job::insert', \
             json_build_object('job_type', job_type, 'id', id)::text)"
        }
        _ => "",
    };
    let pending = format!(
        "UPDATE {jobs} SET status = 'Pending', lock_at = NULL, lock_by = NULL \
         WHERE id IN {some} {notify}"
    );
    execute(tx, pending, deliveries).await
}

fn table(tx: &DatabaseTransaction) -> &'static str {
    match tx.get_database_backend() {
        DbBackend::Postgres => "apalis.jobs",
        _ => "Jobs",
    }
}

/// `($1, $2, …)`, one for each value.
fn placeholders(values: &[&str]) -> String {
    let numbers: Vec<String> = (1..=values.len()).map(|n| format!("${n}")).collect();
    format!("({})", numbers.join(", "))
}

async fn execute(tx: &DatabaseTransaction, sql: String, values: &[&str]) -> Result<(), DbErr> {
    if values.is_empty() {
        return Ok(());
    }
    let values = values.iter().copied().map(Value::from);
    let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
    tx.execute_raw(statement).await?;
    Ok(())
}

/// How many of the next jobs are checked for missing deliveries. A job far back in a long queue
/// needs none: busy workers claim the next jobs without being woken.
const MAX_EXAMINED: i64 = 1000;

/// Jobs for which no delivery will wake a worker: those of the next ones whose delivery is missing,
/// or has a due or lock time in the future because the clock was set back, or was received by a
/// worker that neither used nor released it within `timeout`; and jobs whose next attempt is due
/// and whose delivery is missing.
pub async fn missing_deliveries(
    db: &impl ConnectionTrait,
    timeout: Duration,
    limit: u64,
) -> Result<Vec<job::Model>, DbErr> {
    let backend = db.get_database_backend();
    let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
    let columns = |table: &str| {
        let names = job::Column::iter().map(|column| format!("{table}{}", column.as_str()));
        names.collect::<Vec<_>>().join(", ")
    };
    let job = columns("job.");
    let all = columns("");
    let ready = format!(
        "SELECT {all} FROM generation_jobs \
         WHERE status = 'queued' AND next_attempt_at IS NULL ORDER BY turn, id LIMIT $3"
    );
    let due = |now: &str| {
        format!(
            "SELECT {all} FROM generation_jobs \
             WHERE status = 'queued' AND next_attempt_at IS NOT NULL \
             AND next_attempt_at <= {now} ORDER BY next_attempt_at LIMIT $3"
        )
    };
    let sql = match backend {
        DbBackend::Postgres => format!(
            "SELECT {job} FROM (({ready}) UNION ALL ({due})) job \
             LEFT JOIN apalis.jobs delivery ON delivery.id = job.delivery_id \
             WHERE delivery.id IS NULL OR delivery.lock_at < now() - $1 * interval '1 second' \
             OR delivery.lock_at > now() + $1 * interval '1 second' \
             OR (job.next_attempt_at IS NULL \
             AND delivery.run_at > now() + $1 * interval '1 second') \
             LIMIT $2",
            due = due("now()")
        ),
        _ => format!(
            "SELECT {job} FROM (SELECT {all} FROM ({ready}) \
             UNION ALL SELECT {all} FROM ({due})) job \
             LEFT JOIN Jobs delivery ON delivery.id = job.delivery_id \
             WHERE delivery.id IS NULL \
             OR delivery.lock_at < $5 - $1 OR delivery.lock_at > $5 + $1 \
             OR (job.next_attempt_at IS NULL AND delivery.run_at > $5 + $1) \
             LIMIT $2",
            due = due("$4")
        ),
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut values = vec![seconds.into(), limit.into(), MAX_EXAMINED.into()];
    if backend != DbBackend::Postgres {
        values.extend([now().into(), now().timestamp().into()]);
    }
    job::Model::find_by_statement(Statement::from_sql_and_values(backend, sql, values))
        .all(db)
        .await
}

/// Deletes deliveries that a worker has received and that have no queued job, and returns how many.
/// apalis would deliver them for ever.
pub async fn delete_orphaned_deliveries(tx: &DatabaseTransaction) -> Result<u64, DbErr> {
    let sql = match tx.get_database_backend() {
        DbBackend::Postgres => {
            "DELETE FROM apalis.jobs delivery WHERE lock_by IS NOT NULL AND NOT EXISTS \
             (SELECT 1 FROM generation_jobs \
             WHERE status = 'queued' AND delivery_id = delivery.id)"
        }
        _ => {
            "DELETE FROM Jobs AS delivery WHERE lock_by IS NOT NULL AND NOT EXISTS \
             (SELECT 1 FROM generation_jobs \
             WHERE status = 'queued' AND delivery_id = delivery.id)"
        }
    };
    Ok(tx.execute_unprepared(sql).await?.rows_affected())
}

/// Deletes up to `limit` of apalis' rows of workers not seen for a day, and returns how many.
/// apalis inserts one each time that a worker starts.
pub async fn delete_stale_consumers(tx: &DatabaseTransaction, limit: u64) -> Result<u64, DbErr> {
    let backend = tx.get_database_backend();
    let sql = match backend {
        DbBackend::Postgres => {
            "DELETE FROM apalis.workers WHERE id IN (SELECT id FROM apalis.workers gone \
             WHERE last_seen < now() - interval '1 day' \
             AND NOT EXISTS (SELECT 1 FROM apalis.jobs WHERE lock_by = gone.id) LIMIT $1)"
        }
        _ => {
            "DELETE FROM Workers WHERE id IN (SELECT id FROM Workers gone \
             WHERE last_seen < CAST(strftime('%s', 'now') AS INTEGER) - 86400 \
             AND NOT EXISTS (SELECT 1 FROM Jobs WHERE lock_by = gone.id) LIMIT $1)"
        }
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let statement = Statement::from_sql_and_values(backend, sql, [limit.into()]);
    Ok(tx.execute_raw(statement).await?.rows_affected())
}

/// How many deliveries there are, whatever their state.
pub async fn count_deliveries(db: &impl ConnectionTrait) -> Result<i64, DbErr> {
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
