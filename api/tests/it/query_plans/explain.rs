//! The plan of a statement, and what is wrong with it.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DbBackend, QueryResult, Statement, TransactionTrait};
use serde_json::Value;
use shared::database::Database;

use crate::support::TestApp;

/// Explains statements that have been sent to a database.
pub(super) struct Plans<'a> {
    db: &'a Database,
    /// The types of the statements' parameters, on Postgres.
    types: HashMap<String, Vec<String>>,
}

impl Plans<'_> {
    /// Of an app's database, which gets many rows.
    pub(super) async fn of(app: &TestApp) -> Plans<'_> {
        let mut types = HashMap::new();
        if app.db.backend() == DbBackend::Postgres {
            types = parameter_types(&app.db).await;
            app.execute(MANY_ROWS).await;
        }
        Plans { db: &app.db, types }
    }

    /// A plan, and what is wrong with it.
    pub(super) async fn plan(&self, sql: &str) -> (String, Vec<String>) {
        let types = self.types.get(sql).map_or(&[][..], Vec::as_slice);
        match self.db.backend() {
            DbBackend::Postgres => postgres_plan(self.db, sql, types).await,
            _ => sqlite_plan(self.db, sql).await,
        }
    }
}

/// An index may be read from end to end only if what it holds are few: what the
/// queue has, jobs that have just finished, workers of the last day, or users of a kind
/// that is rare.
const SMALL_INDEXES: [&str; 7] = [
    "job_events_ends",
    "job_workers_by_age",
    "users_admins",
    "users_disabled",
    "generation_jobs_queued",
    "generation_jobs_in_line",
    "generation_jobs_leased",
];

/// So may these tables: they have few rows however long the service runs, or as many
/// as jobs wait.
const SMALL_TABLES: [&str; 5] = [
    "delivery",
    "jobs",
    "queue_state",
    "schema_migrations",
    "seaql_migrations",
];

/// Of these, all rows of one owner may be sorted: they are few.
const SORTED_TABLES: [&str; 2] = ["job_attempts", "sessions"];

async fn sqlite_plan(db: &Database, sql: &str) -> (String, Vec<String>) {
    let explain = format!("EXPLAIN QUERY PLAN {sql}");
    let explain = Statement::from_string(DbBackend::Sqlite, explain);
    let plan = db.raw_connection().query_all_raw(explain).await.unwrap();
    let line = |row: &QueryResult| row.try_get::<String>("", "detail").unwrap();
    let plan: Vec<String> = plan.iter().map(line).collect();
    assert!(!plan.is_empty(), "{sql}");
    // What a subquery brings is read as a whole.
    let is_brought = |table: &str| {
        let kinds = ["CO-ROUTINE", "MATERIALIZE"].map(|kind| format!("{kind} {table}"));
        plan.iter().any(|line| kinds.contains(line))
    };
    // The first rows in the order of an index.
    let is_limited = |table: &str| {
        let first = format!("FROM \"{table}\" ORDER BY ");
        sql.split_once(&first)
            .is_some_and(|(_, rest)| rest.contains("LIMIT ?"))
    };
    let is_fault = |line: &&String| {
        let mut words = line.split(' ');
        let (kind, table) = (words.next(), words.next().unwrap_or_default());
        match kind {
            Some("SCAN") => {
                // What has no table is a constant row, or several.
                let is_constant = line.ends_with(" ROW") || line.ends_with(" VALUES CLAUSE");
                let is_none = is_constant || is_brought(table);
                let is_small = SMALL_TABLES.contains(&table)
                    || SMALL_INDEXES.iter().any(|index| line.contains(index));
                !(is_none || is_small || (line.contains(" INDEX ") && is_limited(table)))
            }
            Some("SEARCH") => {
                // Not an index that is made for this alone.
                let kinds = ["INDEX", "COVERING INDEX", "INTEGER PRIMARY KEY"];
                !kinds
                    .iter()
                    .any(|kind| line.contains(&format!(" USING {kind}")))
            }
            _ => line.contains("TEMP B-TREE") && !sorts_few(sql),
        }
    };
    let faults = plan.iter().filter(is_fault).cloned().collect();
    (plan.join("\n"), faults)
}

fn sorts_few(sql: &str) -> bool {
    let mut tables = SORTED_TABLES.iter();
    tables.any(|table| sql.contains(&format!(" FROM \"{table}\" ")))
}

/// Enough of everything: of an empty table Postgres takes any index.
const MANY_ROWS: &str = "
    INSERT INTO users (id, username, username_key, password_hash, role, created_at)
    SELECT gen_random_uuid(), n, n, '', 'user', now() FROM generate_series(1, 100) n;
    INSERT INTO audit_events (id, at, action)
    SELECT gen_random_uuid(), now(), '' FROM generate_series(1, 1000);
    INSERT INTO job_workers
    (name, host, version, agent, model, concurrency, started_at, seen_at)
    SELECT n, '', '', '', '', 1, now(), now() FROM generate_series(1, 1000) n;
    INSERT INTO login_delays (key, failures, forget_at)
    SELECT gen_random_uuid(), 1, now() FROM generate_series(1, 1000);
    INSERT INTO sessions (id, user_id, created_at, last_used_at, expires_at)
    SELECT gen_random_uuid(), id, now(), now(), now() FROM users, generate_series(1, 20);
    INSERT INTO api_keys (id, user_id, name, prefix, hash, scopes, created_at)
    SELECT gen_random_uuid(), id, '', '', gen_random_uuid(), 'read', now()
    FROM users, generate_series(1, 20);
    INSERT INTO refresh_tokens (hash, session_id, created_at, spent_at)
    SELECT gen_random_uuid(), id, now(), now() FROM sessions;
    INSERT INTO idempotency_keys (user_id, key, fingerprint, created_at)
    SELECT user_id, id, '', now() FROM sessions;
    INSERT INTO blog_posts
    (id, user_id, topic, word_count, status, version, created_at, updated_at)
    SELECT gen_random_uuid(), id, '', 0, CASE row_number() OVER () % 10 WHEN 0 THEN 'failed' ELSE 'ready' END,
    1, now(), now()
    FROM users, generate_series(1, 100);
    INSERT INTO generation_jobs
    (id, post_id, user_id, status, percent, words, options, model, attempt, max_attempts,
    delivery_id, input_tokens, output_tokens, created_at)
    SELECT gen_random_uuid(), id, user_id, CASE row_number() OVER () % 10 WHEN 0 THEN 'queued' ELSE 'failed' END,
    0, 0, '{}', '', 0, 1, gen_random_uuid(), 0, 0, now() FROM blog_posts;
    INSERT INTO apalis.jobs (id, job_type, job)
    SELECT gen_random_uuid(), '', '' FROM generation_jobs;
    INSERT INTO job_attempts (id, job_id, attempt, worker, started_at)
    SELECT gen_random_uuid(), id, 1, '', now() FROM generation_jobs;
    INSERT INTO job_events (job_id, seq, kind, data)
    SELECT id, 1000, 'compacted', '' FROM generation_jobs;
    ANALYZE";

/// The types of the parameters of statements on Postgres, as they have been prepared.
async fn parameter_types(db: &Database) -> HashMap<String, Vec<String>> {
    let pool = db.raw_connection().get_postgres_connection_pool();
    let mut connections = Vec::new();
    // Each knows its own.
    while connections.len() < pool.size() as usize {
        connections.push(pool.acquire().await.unwrap());
    }
    let prepared = "SELECT statement, parameter_types::text[] FROM pg_prepared_statements";
    let mut types = HashMap::new();
    for mut connection in connections {
        let rows = sqlx::query_as(prepared).fetch_all(&mut *connection).await;
        types.extend::<Vec<(String, Vec<String>)>>(rows.unwrap());
    }
    types
}

/// For any parameters of these types. Postgres would read and sort small tables as they are, so it is told to avoid that if there
/// is a way.
async fn postgres_plan(db: &Database, sql: &str, types: &[String]) -> (String, Vec<String>) {
    let tx = db.raw_connection().begin().await.unwrap();
    let list = |of: Vec<&str>| match of.join(", ") {
        none if none.is_empty() => none,
        some => format!("({some})"),
    };
    let prepared = list(types.iter().map(String::as_str).collect());
    let values = list(vec!["NULL"; types.len()]);
    for set_up in [
        "SET LOCAL plan_cache_mode = force_generic_plan",
        "SET LOCAL enable_seqscan = off",
        "SET LOCAL enable_bitmapscan = off",
        &format!("SET LOCAL enable_sort = {}", sorts_few(sql)),
        &format!("PREPARE asked {prepared} AS {sql}"),
    ] {
        let set = tx.execute_unprepared(set_up).await;
        set.unwrap_or_else(|error| panic!("{error}: {set_up}"));
    }
    let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE asked {values}");
    let explain = Statement::from_string(DbBackend::Postgres, explain);
    let plan = tx.query_one_raw(explain).await.unwrap().unwrap();
    let plan: Value = plan.try_get_by_index(0).unwrap();
    tx.execute_unprepared("DEALLOCATE asked").await.unwrap();

    let mut nodes = vec![(&plan[0]["Plan"], false)];
    let mut faults = Vec::new();
    while let Some((node, limited)) = nodes.pop() {
        let kind = node["Node Type"].as_str().unwrap();
        let below = node["Plans"].as_array().into_iter().flatten();
        nodes.extend(below.map(|below| (below, kind == "Limit")));
        let index = node["Index Name"].as_str().unwrap_or_default();
        // As many as are wanted, each as it comes, are read along an index.
        let no_more = limited && !index.is_empty() && node["Filter"].is_null();
        let leads = node["Index Cond"].is_string() || SMALL_INDEXES.contains(&index) || no_more;
        let table = node["Relation Name"].as_str().unwrap_or_default();
        let is_small = table.is_empty() || SMALL_TABLES.contains(&table);
        let reads_all = kind != "ModifyTable" && !is_small && !leads;
        if reads_all || (kind.contains("Sort") && !sorts_few(sql)) {
            faults.push(format!("{kind} {table} {index}"));
        }
    }
    (format!("{plan:#}"), faults)
}
