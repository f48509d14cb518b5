//! What every transaction is held to.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::poll_immediate;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use shared::change_watcher::ChangeWatcher;
use shared::database::Database;
use shared::queue::Consumer;
use testing::requested_part;
use testing::stub_openai::StubBehavior;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::TestApp;

async fn count(db: &Database, sql: &str) -> i64 {
    let count = Statement::from_string(db.backend(), sql);
    let count = db.read().query_one_raw(count).await.unwrap().unwrap();
    count.try_get_by_index(0).unwrap()
}

#[tokio::test]
async fn a_transaction_completes_though_its_caller_has_gone() {
    let app = TestApp::new().await;
    let table = "CREATE TABLE marks (mark INTEGER)";
    app.execute(table).await;
    // Their callers leave sooner or later, before they are through.
    for leaves in 1..=20 {
        let mut marked = Box::pin(app.db.transaction(async move |tx| {
            let sql = format!("INSERT INTO marks VALUES ({leaves})");
            tx.execute_unprepared(&sql).await?;
            Ok::<(), DbErr>(())
        }));
        for _ in 0..leaves {
            if poll_immediate(&mut marked).await.is_some() {
                break;
            }
            sleep(Duration::from_micros(50)).await;
        }
    }
    let all = async {
        while count(&app.db, "SELECT COUNT(*) FROM marks").await < 20 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), all)
        .await
        .expect("some are undone");
    if app.db.backend() == DbBackend::Postgres {
        assert_eq!(open_transactions(&app.db).await, 0);
    }
}

#[tokio::test]
async fn a_consumer_dropped_at_any_moment_leaves_no_transaction_open() {
    let app = TestApp::new().await;
    let db = app.open_database().await;
    // It begins three of its own as it starts.
    for moment in (0..800).step_by(8) {
        let consumer = Consumer {
            db: db.clone(),
            changes: ChangeWatcher::watch(&db),
            concurrency: 1,
            name: format!("test-{moment}"),
            handler: Arc::new(|_| async {}.boxed()),
        };
        let mut running = Box::pin(consumer.run(CancellationToken::new()));
        for _ in 0..moment {
            assert!(poll_immediate(&mut running).await.is_none());
            yield_now().await;
        }
        drop(running);
        let ended = timeout(Duration::from_secs(5), all_transactions_ended(&app)).await;
        ended.expect("one is left open");
    }
}

/// On Postgres, where a single job can be held.
#[tokio::test]
async fn a_locked_job_does_not_delay_others_of_its_worker() {
    let app = TestApp::new().await;
    let ann = app.user("ann").await;
    let gate = Arc::new(Notify::new());
    let wait = gate.clone();
    app.agent.set(StubBehavior::per_request(move |call| {
        let is_gated = requested_part(call) == 0 && call.body.to_string().contains("Held up");
        match is_gated {
            true => StubBehavior::Gate(wait.clone()),
            false => StubBehavior::Write,
        }
    }));
    let worker = app.worker().await;
    let held = ann.create_post("Held up").await;
    app.agent.called(1).await;
    let tx = app.begin().await;
    if app.db.backend() == DbBackend::Postgres {
        let hold = "SELECT FROM generation_jobs FOR UPDATE";
        tx.execute_unprepared(hold).await.unwrap();
        gate.notify_one();
        app.wait_for_lock_waiters(1).await;
    } else {
        // Whoever writes holds all of it, and may not be long.
        tx.rollback().await.unwrap();
        gate.notify_one();
        return app.wait_until_jobs_finished().await;
    }
    let free = ann.create_post("Free").await;
    let done = app.wait_for_job(&ann, &free, |job| job["status"] == "succeeded");
    let done = timeout(Duration::from_secs(5), done).await;
    assert!(done.is_ok(), "the other job waits");
    tx.commit().await.unwrap();
    app.wait_until_jobs_finished().await;
    let job = ann.get_job(&held).await;
    assert_eq!(
        (&job["status"], &job["attempt"]),
        (&"succeeded".into(), &1.into())
    );
    worker.stop().await;
}

/// Waits until nobody is within a transaction.
async fn all_transactions_ended(app: &TestApp) {
    if app.db.backend() == DbBackend::Sqlite {
        // It would keep this one out.
        return app.begin().await.commit().await.unwrap();
    }
    while open_transactions(&app.db).await > 0 {
        sleep(Duration::from_millis(1)).await;
    }
}

/// How many are within a transaction on Postgres and do nothing there.
async fn open_transactions(db: &Database) -> i64 {
    let open = "SELECT COUNT(*) FROM pg_stat_activity \
                WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    count(db, open).await
}
