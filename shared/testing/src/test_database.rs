//! Where a test keeps its data: by default in an SQLite file in its own folder,
//! and where `TEST_POSTGRES_URL` names a server, in a database of its own there.

use std::path::Path;
use std::time::UNIX_EPOCH;

use reqwest::Url;
use shared::config::StorageSettings;
use shared::database::Database;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use uuid::Uuid;

/// A database on Postgres for one test. It is gone when this is dropped.
pub struct TestDatabase {
    server: String,
    name: String,
}

impl TestDatabase {
    /// A fresh one without any table; None if the tests run on SQLite.
    pub fn empty() -> Option<TestDatabase> {
        let server = server()?;
        Some(block_in_thread(async move {
            let mut connection = connect(&server).await;
            TestDatabase::copy_of("template1", &mut connection, server).await
        }))
    }

    /// A fresh one with all tables; None if the tests run on SQLite.
    pub fn migrated() -> Option<TestDatabase> {
        let server = server()?;
        Some(block_in_thread(async move {
            let mut connection = connect(&server).await;
            let template = template(&mut connection, &server).await;
            TestDatabase::copy_of(&template, &mut connection, server).await
        }))
    }

    async fn copy_of(template: &str, connection: &mut PgConnection, server: String) -> Self {
        let name = format!("blog_test_{}", Uuid::now_v7().simple());
        let create = format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY");
        execute(connection, create).await;
        TestDatabase { server, name }
    }

    /// Its address.
    pub fn url(&self) -> String {
        url(&self.server, &self.name)
    }

    /// Its address for a user who may connect to it, and nothing else.
    pub fn url_of_stranger(&self) -> String {
        let server = self.server.clone();
        let make = "DO $$ BEGIN CREATE ROLE blog_stranger LOGIN; \
                    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$";
        block_in_thread(async move { execute(&mut connect(&server).await, make.to_owned()).await });
        let mut url = Url::parse(&self.url()).unwrap();
        url.set_username("blog_stranger").unwrap();
        url.into()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let server = self.server.clone();
        // Processes and tasks of the test may still be connected. FORCE ends
        // them too, but looks only ten times a second whether they have gone.
        let end = format!(
            "SELECT pg_terminate_backend(pid), pg_sleep(0.005) FROM pg_stat_activity \
             WHERE datname = '{}'",
            self.name
        );
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        block_in_thread(async move {
            let mut connection = connect(&server).await;
            execute(&mut connection, end).await;
            execute(&mut connection, drop).await;
        });
    }
}

/// Puts an SQLite database with all tables into `folder`, where a program expects it whose `DATA_DIR`
/// that is. It is copied: to migrate one takes longer than most tests.
pub fn copy_migrated_sqlite(folder: &Path) {
    // As this very build of the tests makes it, by whoever comes first.
    let program = std::env::current_exe().unwrap();
    let template = program.with_extension(format!("{}.db", built_at(&program)));
    if !template.exists() {
        let draft = tempfile::tempdir_in(template.parent().unwrap()).unwrap();
        let storage = StorageSettings::new(None, draft.path());
        block_in_thread(async move {
            let db = Database::open(&storage).await.unwrap();
            db.migrate().await.unwrap();
            db.close().await;
        });
        assert!(
            !draft.path().join("blog.db-wal").exists(),
            "it is not closed"
        );
        std::fs::rename(draft.path().join("blog.db"), &template).unwrap();
    }
    std::fs::copy(template, folder.join("blog.db")).unwrap();
}

/// When a program was built, in nanoseconds.
fn built_at(program: &Path) -> u128 {
    let built = program.metadata().and_then(|file| file.modified()).unwrap();
    built.duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// The server's address; None if the tests run on SQLite.
fn server() -> Option<String> {
    let server = std::env::var("TEST_POSTGRES_URL").ok()?;
    (!server.is_empty()).then_some(server)
}

fn url(server: &str, database: &str) -> String {
    let mut url = Url::parse(server).expect("TEST_POSTGRES_URL can't be read");
    url.set_path(database);
    url.into()
}

async fn connect(url: &str) -> PgConnection {
    let connection = PgConnection::connect(url).await;
    connection.expect("TEST_POSTGRES_URL names a server that does not answer")
}

async fn execute(connection: &mut PgConnection, sql: String) {
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
}

/// The name of the database that those with tables are copied from. It has them
/// as this very build of the tests makes them, and is made by who comes first.
async fn template(connection: &mut PgConnection, server: &str) -> String {
    let built = built_at(&std::env::current_exe().unwrap());
    let name = format!("blog_template_{built}");
    if templates(connection).await.contains(&name) {
        return name;
    }
    // Any number of our own. The lock ends with the connection.
    let lock = "SELECT pg_advisory_lock(1952804208)";
    execute(connection, lock.to_owned()).await;
    let old = templates(connection).await;
    if old.contains(&name) {
        return name;
    }
    for old in old {
        execute(connection, format!("DROP DATABASE {old} WITH (FORCE)")).await;
    }
    let draft = "blog_template_draft";
    execute(connection, format!("CREATE DATABASE {draft}")).await;
    let url = url(server, draft);
    let storage = StorageSettings::new(Some(url.into()), "unused");
    let db = Database::open(&storage).await.unwrap();
    db.migrate().await.unwrap();
    db.close().await;
    let finish = format!("ALTER DATABASE {draft} RENAME TO {name}");
    execute(connection, finish).await;
    name
}

async fn templates(connection: &mut PgConnection) -> Vec<String> {
    let all = "SELECT datname FROM pg_database WHERE datname LIKE 'blog_template_%'";
    sqlx::query_scalar(all).fetch_all(connection).await.unwrap()
}

/// Does work that others wait for, in a thread of its own: the test's may be in
/// the middle of its runtime.
pub fn block_in_thread<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let done = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(work)
    });
    done.join().unwrap()
}
