//! How the database finds what is asked of it: the plans of the statements that real
//! requests and a real worker send.

mod explain;
mod traffic;

use std::time::Duration;

use crate::support::{StatementRecorder, TestApp, deliveries};

use explain::Plans;

const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

#[tokio::test]
async fn no_statement_reads_a_whole_table_or_sorts_what_it_found() {
    let test = "query_plans::no_statement_reads_a_whole_table_or_sorts_what_it_found";
    let Some(recorder) = StatementRecorder::start(test) else {
        return;
    };
    let mut app = TestApp::new().await;
    app.allow_unfinished_jobs();
    // What made the tables.
    recorder.take();
    traffic::use_accounts(&app).await;
    let (ann, bob) = (app.user("anna").await, app.user("bobby").await);
    traffic::write_posts(&app, &ann, &bob).await;
    let undelivered = ann.create_post("Growing peas").await;
    let mut sent = recorder.take();
    let lose = format!("DELETE FROM {}", deliveries::table(app.db.backend()));
    app.execute(&lose).await;
    recorder.take();
    traffic::redeliver(&app, &ann, &undelivered).await;
    traffic::use_posts(&ann).await;
    traffic::administer(&app, &ann).await;
    traffic::assert_all_routes_used(&app).await;
    api::cleanup::run_once(&app.db, MONTH).await;
    worker::maintenance::cleanup::run_once(&app.db, MONTH).await;
    sent.append(&mut recorder.take());

    sent.retain(|sql| is_ours(sql));
    assert!(sent.len() > 140, "{} statements: {sent:#?}", sent.len());
    let plans = Plans::of(&app).await;
    let mut faulty = Vec::new();
    for sql in sent {
        // A column that is added would break what others have prepared.
        if sql.contains("SELECT *") || sql.contains(".*") {
            faulty.push(format!("all columns are asked for by {sql}"));
        }
        let (plan, faults) = plans.plan(&sql).await;
        if !faults.is_empty() {
            faulty.push(format!("{faults:?}\nin {plan}\nof {sql}"));
        }
    }
    assert!(faulty.is_empty(), "{}", faulty.join("\n\n"));
}

/// Whether a statement is one of ours that has to find rows, and no library's.
fn is_ours(sql: &str) -> bool {
    let first = sql.split_whitespace().next().unwrap_or_default();
    let finds_rows = ["SELECT", "UPDATE", "DELETE", "WITH"].contains(&first);
    let of_apalis = ["worker_type", "?1", "apalis.get_jobs"];
    let of_catalogs = ["sqlite_master", "information_schema", "pg_type"];
    let mut foreign = of_apalis.iter().chain(&of_catalogs);
    let is_foreign = foreign.any(|part| sql.contains(part));
    finds_rows && !is_foreign
}

#[tokio::test]
async fn posts_of_a_rare_status_are_found_without_reading_the_others() {
    let test = "query_plans::posts_of_a_rare_status_are_found_without_reading_the_others";
    let Some(recorder) = StatementRecorder::start(test) else {
        return;
    };
    let mut app = TestApp::new().await;
    app.allow_unfinished_jobs();
    let ann = app.user("ann").await;
    recorder.take();
    // In an order that the status is no part of.
    let path = "/blogs?status=failed&sort=-updated_at";
    ann.get(path).await.expect(200);
    let sent = recorder.take();
    let list = sent.iter().find(|sql| sql.contains("FROM \"blog_posts\""));
    let (plan, _) = Plans::of(&app).await.plan(list.unwrap()).await;
    let index = "blog_posts_by_user_status_and_change";
    assert!(plan.contains(index), "{plan}");
}
