//! Connections to the database that break, or are not to be had. On Postgres
//! only: on SQLite there are none.

use std::time::Duration;

use reqwest::Method;
use sea_orm::{ConnectionTrait, DatabaseTransaction, Statement, TransactionTrait};
use serde_json::json;
use shared::database::Database;
use testing::{TIMEOUT, TestClient, TestResponse, text};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::load::{Asked, Load, MARK};
use super::worker_pool::{WorkerPool, is_faultless};
use super::{again_and_again, invariants, is_unavailable, service};
use crate::support::{Cluster, ScriptedAgent, Stop};

#[tokio::test]
async fn connections_cut_again_and_again_lose_nothing() {
    let writer = ScriptedAgent::new().await;
    let service = service(&writer);
    if service.is_on_sqlite() {
        return;
    }
    let (api, db) = (service.api().await, service.database().await);
    let fleet = WorkerPool::of(3, &service).await;
    let crowd = Load::at(&api).await;
    again_and_again(Duration::from_millis(500), async || cut_all(&db).await).await;
    let asked = crowd.content().await;
    db.close().await;
    fleet.stop().await;
    is_faultless(&api.stop().await);
    invariants::balance(&service, &writer, &asked).await;
}

/// All but the one that says so.
async fn cut_all(db: &Database) {
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    db.raw_connection().execute_unprepared(cut).await.unwrap();
}

#[tokio::test]
async fn a_database_that_crashes_again_and_again_loses_nothing() {
    let Some(mut cluster) = Cluster::start_new().await else {
        return;
    };
    let writer = ScriptedAgent::new().await;
    let service = service(&writer).set("DATABASE_URL", cluster.url());
    let api = service.api().await;
    let fleet = WorkerPool::of(2, &service).await;
    let crowd = Load::at(&api).await;
    again_and_again(Duration::from_millis(1500), async || {
        cluster.stop(Stop::Immediate).await;
        cluster.start().await;
    })
    .await;
    let asked = crowd.content().await;
    fleet.stop().await;
    is_faultless(&api.stop().await);
    invariants::balance(&service, &writer, &asked).await;
}

/// How many connections an API has by default.
const CONNECTIONS: i64 = 8;
const ASKERS: usize = 24;

#[tokio::test]
async fn an_api_without_a_free_connection_says_so_and_recovers() {
    let writer = ScriptedAgent::new().await;
    let service = service(&writer);
    if service.is_on_sqlite() {
        return;
    }
    let (api, worker) = (service.api().await, service.worker().await);
    let (ann, db) = (api.user("ann").await, service.database().await);
    let lock = lock_tables(&db).await;
    let mut askers: JoinSet<_> = (0..ASKERS)
        .map(|n| {
            let ann = ann.with_new_connection();
            async move { (n, ask(&ann, n).await) }
        })
        .collect();
    let all_wait = async {
        while waiting(&db).await < CONNECTIONS {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let all_wait = timeout(TIMEOUT, all_wait).await;
    all_wait.expect("some connections are free");
    // Those that got no connection are told so; the others have to wait.
    let (ready, refused) = tokio::join!(ann.get("//ready"), askers.join_next());
    assert_eq!(ready.status, 503, "{ready:?}");
    assert_eq!(ann.get("//health").await.status, 200);
    let (refused, answer) = refused.unwrap().unwrap();
    is_unavailable(&answer);

    lock.rollback().await.unwrap();
    db.close().await;
    let mut posts = Vec::new();
    let mut again = vec![refused];
    while let Some(asked) = askers.join_next().await {
        match asked.unwrap() {
            (_, answer) if answer.status == 202 => posts.push(answer.body),
            (n, answer) => {
                is_unavailable(&answer);
                again.push(n);
            }
        }
    }
    ann.wait_until_ready().await;
    assert!(!posts.is_empty());
    for n in again.iter().copied() {
        posts.push(ask(&ann, n).await.body);
    }
    for post in &posts {
        ann.wait_for_status(post, "succeeded").await;
    }
    is_faultless(&worker.stop().await);
    is_faultless(&api.stop().await);
    let asked = Asked {
        posts: posts.iter().map(|post| text(&post["id"])).collect(),
        refused: again.len(),
    };
    invariants::balance(&service, &writer, &asked).await;
}

/// Nobody else can use them meanwhile.
async fn lock_tables(db: &Database) -> DatabaseTransaction {
    let lock = db.raw_connection().begin().await.unwrap();
    // Our transactions may not be idle for long.
    let sql = "SET LOCAL idle_in_transaction_session_timeout = 0; \
               LOCK TABLE blog_posts, generation_jobs";
    lock.execute_unprepared(sql).await.unwrap();
    lock
}

/// How many connections of the API wait for a lock.
async fn waiting(db: &Database) -> i64 {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND application_name = 'blog-api' AND wait_event_type = 'Lock'";
    let waiting = Statement::from_string(db.backend(), waiting);
    let waiting = db.read().query_one_raw(waiting).await.unwrap().unwrap();
    waiting.try_get_by_index(0).unwrap()
}

async fn ask(ann: &TestClient, number: usize) -> TestResponse {
    let topic = format!("Growing tomatoes {MARK}{number}{MARK}");
    let request = ann.request(Method::POST, "/blogs");
    let request = request.header("idempotency-key", number.to_string());
    ann.send(request.json(&json!({ "topic": topic }))).await
}
