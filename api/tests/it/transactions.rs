//! What every transaction is held to.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::poll_immediate;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use shared::database::Database;
use tokio::time::{sleep, timeout};

use crate::test_app::TestApp;

async fn count(db: &Database, sql: &str) -> i64 {
    let count = Statement::from_string(db.backend(), sql);
    let count = db.read().query_one_raw(count).await.unwrap().unwrap();
    count.try_get_by_index(0).unwrap()
}

#[tokio::test]
async fn a_transaction_that_was_begun_is_done_though_nobody_waits_for_it() {
    let app = TestApp::new().await;
    let table = "CREATE TABLE marks (mark INTEGER)";
    app.db.write().execute_unprepared(table).await.unwrap();
    // Their callers leave sooner or later, before they are through.
    for leaves in 1..=20 {
        let mut marked = Box::pin(app.db.transact(move |tx| {
            async move {
                let sql = format!("INSERT INTO marks VALUES ({leaves})");
                tx.execute_unprepared(&sql).await?;
                Ok::<(), DbErr>(())
            }
            .boxed()
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
        let open = "SELECT COUNT(*) FROM pg_stat_activity \
                    WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
        assert_eq!(count(&app.db, open).await, 0);
    }
}
