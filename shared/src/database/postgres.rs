//! Opens Postgres: one pool, whose connections are tested before they are used.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use sea_orm::SqlxPostgresConnector;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{Connection, PgPool};

use super::reader::Connections;
use super::stall_detector::StallDetector;
use super::{Database, Reader, STATEMENT_CACHE_CAPACITY};

/// How long a query waits for a connection: short, so that clients soon get an error if the server
/// is down.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long after its last use a connection is used again without a ping.
const SKIP_PING_WITHIN: Duration = Duration::from_secs(1);

/// The timeout of a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// The server's own limit for a statement: as long as its client waits at most.
const STATEMENT_TIMEOUT: &str = "30s";

pub(super) async fn open(url: &str, max_connections: u32) -> anyhow::Result<Database> {
    let stalls = Arc::new(StallDetector::default());
    let before = stalls.clone();
    let after = stalls.clone();
    let pool = PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A ping takes as long as a small query, so a connection that was just used gets none.
        .test_before_acquire(false)
        .before_acquire(move |connection, since| {
            let is_fresh = since.idle_for < SKIP_PING_WITHIN;
            let stalls = before.clone();
            async move { Ok(is_fresh || ping(connection, &stalls).await.is_ok()) }.boxed()
        })
        // sqlx pings as well, but without a timeout: a connection whose server is unreachable would
        // keep its slot in the pool.
        .after_release(move |connection, _| {
            let stalls = after.clone();
            async move { Ok(!stalls.is_recent() || ping(connection, &stalls).await?) }.boxed()
        })
        .connect_with(options(url)?)
        .await
        .context("DATABASE_URL: can't connect to Postgres")?;
    let pool = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
    let db = Database {
        read: Reader {
            connections: Connections::Postgres(pool.clone()),
            stalls,
        },
        write: pool,
        writer: None,
        wal_index: None,
        _open_lock: None,
    };
    db.synchronize_clock().await?;
    Ok(db)
}

/// Another pool for the same database, for work on whole tables: nothing that it does or waits for
/// times out. It has one connection, so that a lock of its session is held for as long as a statement
/// runs there, even if this process is killed.
pub(super) async fn without_timeouts(pool: &PgPool) -> Result<PgPool, sqlx::Error> {
    let options = pool.connect_options().as_ref().clone();
    let none = ["lock_timeout", "statement_timeout"].map(|name| (name, "0"));
    PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(Duration::from_secs(10))
        .connect_with(options.options(none))
        .await
}

/// How many connections a server allows to ordinary users, and how many of them are free.
pub(super) async fn server_connections(pool: &PgPool) -> Result<(i64, i64), sqlx::Error> {
    sqlx::query_as(
        // `reserved_connections` exists from Postgres 16 on. Of other users' sessions, an ordinary
        // user sees only how many each database has.
        "WITH server AS (SELECT current_setting('max_connections')::bigint \
         - current_setting('superuser_reserved_connections')::bigint \
         - COALESCE(current_setting('reserved_connections', true), '0')::bigint AS allowed) \
         SELECT allowed, allowed - (SELECT sum(numbackends)::bigint FROM pg_stat_database) \
         FROM server",
    )
    .fetch_one(pool)
    .await
}

/// Whether a connection works. If not an error, on which sqlx drops it without closing it properly.
async fn ping(connection: &mut PgConnection, stalls: &StallDetector) -> Result<bool, sqlx::Error> {
    match stalls.with_timeout(PING_TIMEOUT, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

/// The options of every connection.
fn options(url: &str) -> anyhow::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url).context("DATABASE_URL: not a valid URL")?;
    let options = options
        .statement_cache_capacity(STATEMENT_CACHE_CAPACITY)
        // A process that freezes in a transaction must not hold its locks for long, and no process
        // of ours may wait for ever for the locks of other programs.
        .options([
            ("idle_in_transaction_session_timeout", "10s"),
            ("lock_timeout", "15s"),
            ("statement_timeout", STATEMENT_TIMEOUT),
        ]);
    // The name by which operators tell the sessions apart.
    let program = std::env::args_os().next();
    let program = program.as_deref().map(Path::new).and_then(Path::file_name);
    Ok(match (options.get_application_name(), program) {
        (None, Some(program)) => options.application_name(&format!("blog-{}", program.display())),
        _ => options,
    })
}
