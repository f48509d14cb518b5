//! apalis' rows, as tests that meddle with them see them.

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend};
use ulid::Ulid;
use uuid::Uuid;

/// apalis' table of what is to be delivered.
pub(crate) fn table(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Postgres => "apalis.jobs",
        _ => "Jobs",
    }
}

/// SQL that inserts a delivery that is due now, with `body` for its payload, and its
/// id.
pub(crate) fn insert(backend: DbBackend, body: &str) -> (String, String) {
    let id = Ulid::generate().to_string();
    let (body, run_at, metadata) = match backend {
        DbBackend::Postgres => (format!("'{body}'::bytea"), "now()", "''::hstore"),
        _ => (format!("CAST('{body}' AS BLOB)"), "0", "'{}'"),
    };
    let sql = format!(
        "INSERT INTO {} (id, job_type, job, status, attempts, max_attempts, run_at, priority, \
         metadata) VALUES ('{id}', 'blog-generation', {body}, 'Pending', 0, 1, {run_at}, 0, \
         {metadata})",
        table(backend)
    );
    (sql, id)
}

/// What the delivery of a job's attempt carries.
pub(crate) fn payload(job: Uuid, attempt: i32) -> String {
    format!(r#"{{"job": "{job}", "attempt": {attempt}}}"#)
}

/// Locks a delivery until the transaction ends, as a claim does it.
pub(crate) async fn lock(tx: &DatabaseTransaction, id: &str) {
    if tx.get_database_backend() == DbBackend::Postgres {
        let lock = format!("SELECT FROM apalis.jobs WHERE id = '{id}' FOR UPDATE");
        tx.execute_unprepared(&lock).await.unwrap();
    }
}
