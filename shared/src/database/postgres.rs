//! Opening Postgres: one pool, whose connections are checked before they are used.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use sea_orm::SqlxPostgresConnector;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{Connection, PgPool};

use super::stall_detector::StallDetector;
use super::{Database, Reader, STATEMENT_CACHE_CAPACITY};

/// How long anyone waits for a connection to Postgres: clients are told soon
/// when it is away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// For how long a connection to Postgres is taken to live without a look.
const SKIP_PING_WITHIN: Duration = Duration::from_secs(1);

/// How long a server may take to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a statement may take on Postgres, which ends it then: as long as who
/// has asked for it waits at most.
const STATEMENT_TIMEOUT: &str = "30s";

pub(super) async fn open(url: &str, max_connections: u32) -> anyhow::Result<Database> {
    let silence = Arc::new(StallDetector::default());
    let (before, after) = (silence.clone(), silence.clone());
    let pool = PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A ping takes as long as a small query, so one that was in use a moment
        // ago is trusted.
        .test_before_acquire(false)
        .before_acquire(move |connection, since| {
            let (is_trusted, silence) = (since.idle_for < SKIP_PING_WITHIN, before.clone());
            async move { Ok(is_trusted || ping(connection, &silence).await.is_ok()) }.boxed()
        })
        // sqlx looks by itself, but for as long as it takes: a connection whose
        // server has vanished would keep its place among the others.
        .after_release(move |connection, _| {
            let silence = after.clone();
            async move { Ok(!silence.is_recent() || ping(connection, &silence).await?) }.boxed()
        })
        .connect_with(options(url)?)
        .await
        .context("DATABASE_URL: can't connect to Postgres")?;
    let pool = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
    let read = Reader {
        db: pool.clone(),
        silence,
    };
    let db = Database {
        read,
        write: pool,
        writer: None,
    };
    db.synchronize_clock().await?;
    Ok(db)
}

/// How many connections a server allows to its ordinary users, and how many of them
/// are free.
pub(super) async fn server_connections(pool: &PgPool) -> Result<(i64, i64), sqlx::Error> {
    sqlx::query_as(
        // The second is only there from Postgres 16 on. Of others' sessions, an ordinary
        // user sees no more than how many there are of each database.
        "WITH server AS (SELECT current_setting('max_connections')::bigint \
         - current_setting('superuser_reserved_connections')::bigint \
         - COALESCE(current_setting('reserved_connections', true), '0')::bigint AS allowed) \
         SELECT allowed, allowed - (SELECT sum(numbackends)::bigint FROM pg_stat_database) \
         FROM server",
    )
    .fetch_one(pool)
    .await
}

/// Whether a connection can be used. An error if not: it is then dropped without
/// a farewell.
async fn ping(connection: &mut PgConnection, silence: &StallDetector) -> Result<bool, sqlx::Error> {
    match silence.with_timeout(PING_TIMEOUT, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

/// How every connection to Postgres is made.
fn options(url: &str) -> anyhow::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url).context("DATABASE_URL: can't read it")?;
    let options = options.statement_cache_capacity(STATEMENT_CACHE_CAPACITY);
    // A process that freezes in a transaction must not hold its locks for long, and
    // nobody waits for ever for those of who is not one of us.
    let options = options.options([
        ("idle_in_transaction_session_timeout", "10s"),
        ("lock_timeout", "15s"),
        ("statement_timeout", STATEMENT_TIMEOUT),
    ]);
    // By which operators tell the sessions apart.
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(Path::file_name);
    Ok(match (options.get_application_name(), program) {
        (None, Some(program)) => options.application_name(&format!("blog-{}", program.display())),
        _ => options,
    })
}
