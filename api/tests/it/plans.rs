//! How SQLite finds what the queries ask for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use entity::job::lifecycle;
use entity::{attempt, job, post, session, step};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, Statement, TransactionTrait,
};
use shared::queue;
use uuid::Uuid;

use crate::test_app::TestApp;

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
    let jobs = job::Entity::owned_by(id).order_by_desc(job::Column::Id);
    jobs.clone().limit(21).all(db).await?;
    let canceled = job::Column::Status.eq(job::Status::Canceled);
    jobs.filter(canceled).limit(21).all(db).await?;
    Ok(())
}

/// What is asked for the entries of a list.
async fn entries(db: &DatabaseConnection) -> Result<(), DbErr> {
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    job::Entity::of_post(ids[0]).one(db).await?;
    job::Entity::latest_of_posts(db, ids).await?;
    job::Entity::places(db, &ids).await?;
    let of_jobs = attempt::Column::JobId.is_in(ids);
    attempt::Entity::find().filter(of_jobs).all(db).await?;
    step::Entity::of_job(ids[0]).all(db).await?;
    Ok(())
}

async fn sweep(db: &DatabaseConnection) -> Result<(), DbErr> {
    lifecycle::abandoned(db, 100).await?;
    queue::stranded(db, Duration::from_secs(15), 100).await?;
    Ok(())
}

/// What bounds how much one user may have.
async fn limits(db: &DatabaseConnection) -> Result<(), DbErr> {
    let tx = db.begin().await?;
    lifecycle::has_room(&tx, Uuid::now_v7(), 100).await?;
    session::Entity::make_room(&tx, Uuid::now_v7(), 100).await
}

/// What a scrape asks for.
async fn scrape(db: &DatabaseConnection) -> Result<(), DbErr> {
    job::Entity::depth(db, 100).await?;
    Ok(())
}

#[tokio::test]
async fn no_query_reads_a_whole_table_or_sorts_what_it_found() {
    let app = TestApp::new().await;
    let mut db = app.db.read().clone();
    let sent = Arc::new(Mutex::new(Vec::<Statement>::new()));
    let sink = sent.clone();
    db.set_metric_callback(move |info| sink.lock().unwrap().push(info.statement.clone()));
    lists(&db).await.unwrap();
    entries(&db).await.unwrap();
    sweep(&db).await.unwrap();
    limits(&db).await.unwrap();
    scrape(&db).await.unwrap();

    let sent = sent.lock().unwrap().clone();
    assert_eq!(sent.len(), 16);
    for mut statement in sent {
        let sql = statement.sql.clone();
        statement.sql = format!("EXPLAIN QUERY PLAN {sql}");
        let plan = app.db.read().query_all_raw(statement).await.unwrap();
        let plan = plan
            .iter()
            .map(|row| row.try_get::<String>("", "detail").unwrap());
        let plan: Vec<String> = plan.collect();
        assert!(!plan.is_empty());
        for line in &plan {
            // What a subquery brings is read as a whole.
            let scanned = line.strip_prefix("SCAN ").unwrap_or_default();
            if plan.contains(&format!("CO-ROUTINE {scanned}")) {
                continue;
            }
            assert!(is_bounded(line), "{plan:#?}\nof {sql}");
        }
    }
}

/// An index may be read from end to end only if it is that of the queue.
fn is_bounded(line: &str) -> bool {
    let of_queue = [
        "generation_jobs_queued",
        "generation_jobs_in_line",
        "generation_jobs_leased",
    ];
    match line.split(' ').next() {
        // What has no table is a constant row.
        Some("SCAN") => {
            line == "SCAN CONSTANT ROW" || of_queue.iter().any(|index| line.contains(index))
        }
        Some("SEARCH") => line.contains("USING INDEX") || line.contains("USING COVERING INDEX"),
        _ => !line.contains("TEMP B-TREE"),
    }
}
