//! How the database finds what the queries ask for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::pagination::scan_page;
use entity::clock::now;
use entity::{
    attempt, audit, idempotency, job, login_throttle, post, refresh_token, session, step, user,
    worker,
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, EntityTrait,
    QueryFilter, QueryOrder, QueryResult, QuerySelect, QueryTrait, Select, Statement,
    TransactionTrait,
};
use serde_json::Value;
use shared::database::Database;
use shared::queue::{self, ClaimRequest};
use uuid::Uuid;

use crate::support::TestApp;

/// The lists, as the handlers make them.
async fn lists(db: &DatabaseConnection) -> Result<(), DbErr> {
    let id = Uuid::now_v7();
    let posts = post::Entity::owned_by(id).limit(21);
    let newest = posts.clone().order_by_desc(post::Column::Id);
    newest
        .clone()
        .filter(post::Column::Id.lt(id))
        .all(db)
        .await?;
    let ready = post::Column::Status.eq(post::Status::Ready);
    newest.filter(ready).all(db).await?;
    let changed = posts.order_by_asc(post::Column::UpdatedAt);
    changed.order_by_asc(post::Column::Id).all(db).await?;
    failed_last_changed(id).all(db).await?;
    let jobs = job::Entity::owned_by(id).order_by_desc(job::Column::Id);
    jobs.clone().limit(21).all(db).await?;
    let canceled = job::Column::Status.eq(job::Status::Canceled);
    jobs.filter(canceled).limit(21).all(db).await?;
    Ok(())
}

/// Posts of a rare status, in an order that the status is no part of.
fn failed_last_changed(user: Uuid) -> Select<post::Entity> {
    post::Entity::owned_by(user)
        .filter(post::Column::Status.eq(post::Status::Failed))
        .order_by_desc(post::Column::UpdatedAt)
        .order_by_desc(post::Column::Id)
        .limit(21)
}

async fn refresh(db: &DatabaseConnection) -> Result<(), DbErr> {
    refresh_token::Entity::session_of("a hash").one(db).await?;
    Ok(())
}

/// What is asked for the entries of a list.
async fn entries(db: &DatabaseConnection) -> Result<(), DbErr> {
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    job::Entity::of_post(ids[0]).one(db).await?;
    job::Entity::latest_of_posts(db, ids).await?;
    queue::positions(db, &ids).await?;
    let of_jobs = attempt::Column::JobId.is_in(ids);
    attempt::Entity::find().filter(of_jobs).all(db).await?;
    step::Entity::of_job(ids[0]).all(db).await?;
    Ok(())
}

async fn sweep(db: &DatabaseConnection) -> Result<(), DbErr> {
    queue::expired_leases(db, 100).await?;
    queue::missing_deliveries(db, Duration::from_secs(15), 100).await?;
    Ok(())
}

/// What bounds how much one user may have.
async fn limits(db: &DatabaseConnection) -> Result<(), DbErr> {
    let tx = db.begin().await?;
    queue::check_quota(&tx, Uuid::now_v7(), 100).await?;
    post::Entity::usage(&tx, Uuid::now_v7()).await?;
    idempotency::Entity::stored_bytes(&tx, Uuid::now_v7()).await?;
    idempotency::Entity::erase_responses(&tx, Uuid::now_v7()).await?;
    session::Entity::enforce_limit(&tx, Uuid::now_v7(), 100).await
}

/// What is asked before a password is verified.
async fn guard(db: &DatabaseConnection) -> Result<(), DbErr> {
    login_throttle::Entity::find_active(db, &["home:x", "owner:x", "account:x", "address:x"])
        .await?;
    let tx = db.begin().await?;
    let row = login_throttle::Model {
        key: "address:x".to_owned(),
        failures: 1,
        open_at: None,
        forget_at: now(),
    };
    login_throttle::Entity::undo(&tx, &row).await?;
    Ok(())
}

/// What admins ask for.
async fn administration(db: &DatabaseConnection) -> Result<(), DbErr> {
    let after = Uuid::now_v7();
    let users = user::Entity::find().filter(user::Column::Id.lt(after));
    let named = Condition::all().add(user::Column::UsernameKey.contains("ann"));
    // What it has to look through, and what it finds there.
    scan_page(db, users, Some(named), user::Column::Id, |user| user.id, 20).await?;
    let events = audit::Entity::find().filter(audit::Column::Id.lt(after));
    let events = events.order_by_desc(audit::Column::Id).limit(21);
    events.all(db).await?;
    let tx = db.begin().await?;
    user::Entity::lock_with_admins(&tx, Uuid::now_v7()).await?;
    queue::cancel_next_of_disabled(&tx, 100).await?;
    queue::cancel_for_user(&tx, Uuid::now_v7(), 100).await?;
    Ok(())
}

/// What admins ask for of the queue.
async fn oversight(db: &DatabaseConnection) -> Result<(), DbErr> {
    use job::Column;
    let id = Uuid::now_v7();
    for leading in [
        Column::UserId.eq(id),
        Column::ErrorCode.eq("internal"),
        job::Status::Failed.is_in_index(),
        job::Status::Succeeded.is_in_index(),
        Column::Model.eq("a model"),
        Column::Id.gte(id),
    ] {
        let jobs = job::Entity::find();
        let jobs = jobs.filter(leading).filter(Column::Id.lt(id));
        let recent = Condition::all().add(Column::CreatedAt.gt(now()));
        scan_page(db, jobs, Some(recent), Column::Id, |job| job.id, 20).await?;
    }
    queue::status_counts(db, 100).await?;
    queue::oldest_queued(db).await?;
    queue::finished_since(db, now(), 100).await?;
    worker::Entity::list(db, 100).await?;
    worker::Entity::running_jobs(db, 100).await?;
    worker::Entity::delete_lost(db, now()).await?;
    Ok(())
}

/// What a scrape asks for.
async fn scrape(db: &DatabaseConnection) -> Result<(), DbErr> {
    queue::depth(db, 100).await?;
    Ok(())
}

async fn claim(db: &DatabaseConnection) -> Result<(), DbErr> {
    let tx = db.begin().await?;
    let request = || ClaimRequest {
        attempt: Uuid::now_v7(),
        delivery_id: None,
    };
    let requests: Vec<_> = std::iter::repeat_with(request).take(10).collect();
    let lease = Duration::from_secs(15);
    queue::claim(&tx, "w1", lease, job::Phase::Outline, &requests).await?;
    Ok(())
}

async fn prune(db: &DatabaseConnection) -> Result<(), DbErr> {
    let tx = db.begin().await?;
    job::Entity::delete_finished(&tx, now(), 100).await?;
    session::Entity::delete_ended(&tx, now(), 100).await?;
    refresh_token::Entity::delete_consumed(&tx, now(), 100).await?;
    idempotency::Entity::delete_expired(&tx, 100).await?;
    audit::Entity::delete_old(&tx, now(), 100).await?;
    login_throttle::Entity::delete_expired(&tx, 100).await?;
    Ok(())
}

#[tokio::test]
async fn no_query_reads_a_whole_table_or_sorts_what_it_found() {
    let mut app = TestApp::new().await;
    app.allow_unfinished_jobs();
    let mut db = app.db.raw_connection().clone();
    let sent = Arc::new(Mutex::new(Vec::<Statement>::new()));
    let sink = sent.clone();
    db.set_metric_callback(move |info| sink.lock().unwrap().push(info.statement.clone()));
    lists(&db).await.unwrap();
    refresh(&db).await.unwrap();
    entries(&db).await.unwrap();
    sweep(&db).await.unwrap();
    limits(&db).await.unwrap();
    guard(&db).await.unwrap();
    administration(&db).await.unwrap();
    oversight(&db).await.unwrap();
    scrape(&db).await.unwrap();
    claim(&db).await.unwrap();
    prune(&db).await.unwrap();
    if app.db.backend() == DbBackend::Postgres {
        app.execute(MUCH).await;
    }

    let sent = sent.lock().unwrap().clone();
    assert_eq!(sent.len(), 63);
    for statement in sent {
        let sql = statement.sql.clone();
        // A column that is added would break what others have prepared.
        assert!(!sql.contains("SELECT *") && !sql.contains(".*"), "{sql}");
        let (plan, faults) = plan(&app.db, statement).await;
        assert!(faults.is_empty(), "{faults:#?}\nin {plan}\nof {sql}");
    }
}

#[tokio::test]
async fn posts_of_a_rare_status_are_found_without_reading_the_others() {
    let mut app = TestApp::new().await;
    app.allow_unfinished_jobs();
    if app.db.backend() == DbBackend::Postgres {
        app.execute(MUCH).await;
    }
    let statement = failed_last_changed(Uuid::now_v7()).build(app.db.backend());
    let (plan, _) = plan(&app.db, statement).await;
    let index = "blog_posts_by_user_status_and_change";
    assert!(plan.contains(index), "{plan}");
}

/// A plan, and what is wrong with it.
async fn plan(db: &Database, statement: Statement) -> (String, Vec<String>) {
    match db.backend() {
        DbBackend::Postgres => postgres_plan(db, statement).await,
        _ => sqlite_plan(db, statement).await,
    }
}

async fn sqlite_plan(db: &Database, mut statement: Statement) -> (String, Vec<String>) {
    statement.sql = format!("EXPLAIN QUERY PLAN {}", statement.sql);
    let plan = db.read().query_all_raw(statement).await.unwrap();
    let line = |row: &QueryResult| row.try_get::<String>("", "detail").unwrap();
    let plan: Vec<String> = plan.iter().map(line).collect();
    assert!(!plan.is_empty());
    // What a subquery brings is read as a whole.
    let brought = |line: &str| {
        let scanned = line.strip_prefix("SCAN ").unwrap_or_default();
        plan.contains(&format!("CO-ROUTINE {scanned}"))
    };
    let is_fault = |line: &&String| !brought(line) && !is_bounded(line);
    let faults = plan.iter().filter(is_fault).cloned().collect();
    (plan.join("\n"), faults)
}

/// An index may be read from end to end only if what it holds are few: what the
/// queue has, workers of the last day, or users of a kind that is rare.
const SHORT: [&str; 6] = [
    "job_workers_by_age",
    "users_admins",
    "users_disabled",
    "generation_jobs_queued",
    "generation_jobs_in_line",
    "generation_jobs_leased",
];

fn is_bounded(line: &str) -> bool {
    match line.split(' ').next() {
        // What has no table is a constant row.
        Some("SCAN") => {
            line == "SCAN CONSTANT ROW" || SHORT.iter().any(|index| line.contains(index))
        }
        Some("SEARCH") => ["INDEX", "COVERING INDEX", "INTEGER PRIMARY KEY"]
            .iter()
            .any(|index| line.contains(&format!("USING {index}"))),
        _ => !line.contains("TEMP B-TREE"),
    }
}

/// Enough of everything. Of an empty table Postgres takes any index.
const MUCH: &str = "
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
    SELECT delivery_id, '', '' FROM generation_jobs;
    INSERT INTO job_attempts (id, job_id, attempt, worker, started_at)
    SELECT gen_random_uuid(), id, 1, '', now() FROM generation_jobs;
    ANALYZE";

/// On Postgres, for any parameters. It would read and sort small tables
/// as they are, so it is told to avoid that if there is a way.
async fn postgres_plan(db: &Database, statement: Statement) -> (String, Vec<String>) {
    let tx = db.raw_connection().begin().await.unwrap();
    let parameters = statement.values.map_or(0, |values| values.0.len());
    let execute = match vec!["NULL"; parameters].join(", ") {
        none if none.is_empty() => "asked".to_owned(),
        some => format!("asked ({some})"),
    };
    for set_up in [
        "SET LOCAL plan_cache_mode = force_generic_plan",
        "SET LOCAL enable_seqscan = off",
        "SET LOCAL enable_bitmapscan = off",
        "SET LOCAL enable_sort = off",
        &format!("PREPARE asked AS {}", statement.sql),
    ] {
        tx.execute_unprepared(set_up).await.unwrap();
    }
    let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE {execute}");
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
        let leads = node["Index Cond"].is_string() || SHORT.contains(&index) || no_more;
        let reads = node["Relation Name"].is_string() && kind != "ModifyTable";
        if (reads && !leads) || kind.contains("Sort") {
            faults.push(format!("{kind} {index}"));
        }
    }
    (format!("{plan:#}"), faults)
}
