//! API and workers over one fresh folder and one fresh database.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use entity::{attempt, job, post, step};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, PaginatorTrait, QueryFilter, Statement,
};
use shared::config::StorageSettings;
use shared::database::Database;
use tempfile::TempDir;
use testing::{TestClient, TestDatabase};

use super::process::{Exit, Process};
use super::scripted_agent::ScriptedAgent;

/// How long a worker may be silent.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// What processes are started with, and where.
pub(crate) struct Service {
    pub(crate) folder: TempDir,
    pub(crate) settings: Vec<(&'static str, String)>,
    _postgres: Option<TestDatabase>,
}

impl Service {
    /// Nothing is set but what every test wants.
    pub(crate) fn new() -> Service {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data").to_str().unwrap().to_owned();
        let postgres = TestDatabase::empty();
        Service {
            folder,
            settings: vec![
                ("DATA_DIR", data),
                // Empty, it is not set.
                (
                    "DATABASE_URL",
                    postgres.as_ref().map(TestDatabase::url).unwrap_or_default(),
                ),
                ("LISTEN_ADDR", "127.0.0.1:0".into()),
                ("METRICS_ADDR", "127.0.0.1:0".into()),
                ("LOG_FORMAT", "json".into()),
                // sqlx warns of what is slow, which depends on what else is running.
                ("RUST_LOG", "info,sqlx::query=error,sqlx::pool=error".into()),
                ("JOB_BACKOFF_BASE_MS", "1".into()),
                ("JOB_LEASE_SECS", LEASE.as_secs().to_string()),
                ("RATE_LIMIT_PER_MINUTE", "0".into()),
            ],
            _postgres: postgres,
        }
    }

    /// With an agent.
    pub(crate) fn of(writer: &ScriptedAgent) -> Service {
        Service::new()
            .set("AGENT", "openai")
            .set("AGENT_MODEL", "stub")
            .set("AGENT_WRITING", "guided")
            .set("AGENT_URL", writer.url())
    }

    pub(crate) fn set(mut self, name: &'static str, value: impl Into<String>) -> Service {
        self.settings.push((name, value.into()));
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Of two values for one name the later counts.
    pub(crate) fn setting(&self, wanted: &str) -> &str {
        let mut settings = self.settings.iter().rev();
        let (_, value) = settings.find(|(name, _)| *name == wanted).unwrap();
        value
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.setting("DATA_DIR").into()
    }

    pub(crate) fn is_on_sqlite(&self) -> bool {
        self.setting("DATABASE_URL").is_empty()
    }

    /// Starts a process, and waits for nothing.
    pub(crate) fn start(&self, binary: &str) -> Process {
        self.start_with(binary, &self.settings)
    }

    /// The same with other settings.
    pub(crate) fn start_with(&self, binary: &str, settings: &[(&'static str, String)]) -> Process {
        Process::start(binary, self.path(), settings)
    }

    /// Starts an API and waits until it is ready.
    pub(crate) async fn api(&self) -> Api {
        Api::ready(self.start("api")).await
    }

    /// Starts a worker and waits until it is ready.
    pub(crate) async fn worker(&self) -> Process {
        let worker = self.start("worker");
        worker.wait_for_message("the worker is ready").await;
        worker
    }

    pub(crate) async fn database(&self) -> Database {
        let url = (!self.is_on_sqlite()).then(|| self.setting("DATABASE_URL").into());
        let settings = StorageSettings::new(url, self.data());
        Database::open(&settings).await.unwrap()
    }

    /// All that is kept, in files and in the database.
    pub(crate) async fn stored(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.data()).unwrap();
        let files = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
        let mut stored: Vec<u8> = files.flatten().collect();
        if !self.is_on_sqlite() {
            let db = self.database().await;
            stored.extend(rows(&db).await.into_bytes());
            db.close().await;
        }
        stored
    }

    /// Looks at the database when everything should be over: nothing is left
    /// in the queue, nothing half done, nothing broken.
    pub(crate) async fn assert_at_rest(&self) {
        use job::Status::{Canceling, Queued, Running};
        let db = self.database().await;
        let unfinished = job::Column::Status.is_in([Queued, Running, Canceling]);
        let unfinished = job::Entity::find().filter(unfinished).count(db.read());
        assert_eq!(unfinished.await.unwrap(), 0, "unfinished jobs");
        assert_eq!(shared::queue::count_deliveries(db.read()).await.unwrap(), 0);
        let held = job::Column::LeaseUntil.is_not_null();
        let held = held.or(job::Column::AttemptId.is_not_null());
        let held = job::Entity::find().filter(held).count(db.read());
        assert_eq!(held.await.unwrap(), 0, "jobs that someone seems to hold");
        let open = attempt::Column::FinishedAt.is_null();
        let open = open.or(attempt::Column::Outcome.is_null());
        let open = attempt::Entity::find().filter(open).count(db.read());
        assert_eq!(open.await.unwrap(), 0, "attempts without an end");
        let generating = post::Column::Status.eq(post::Status::Generating);
        let generating = post::Entity::find().filter(generating).count(db.read());
        assert_eq!(generating.await.unwrap(), 0, "posts without an end");
        for step in step::Entity::find().all(db.read()).await.unwrap() {
            let job = job::Entity::find_by_id(step.job_id).one(db.read());
            let job = job.await.unwrap().expect("a step without a job");
            assert_ne!(job.status, job::Status::Succeeded, "steps of a stored post");
        }
        if self.is_on_sqlite() {
            is_sound(&db).await;
        }
        db.close().await;
    }
}

/// Nothing is broken in the file.
async fn is_sound(db: &Database) {
    let ask = |sql: &str| Statement::from_string(db.backend(), sql);
    let integrity = db.read().query_one_raw(ask("PRAGMA integrity_check"));
    let integrity: String = integrity
        .await
        .unwrap()
        .unwrap()
        .try_get_by_index(0)
        .unwrap();
    assert_eq!(integrity, "ok");
    let orphans = db.read().query_all_raw(ask("PRAGMA foreign_key_check"));
    assert!(orphans.await.unwrap().is_empty());
}

/// All rows of all tables on Postgres.
async fn rows(db: &Database) -> String {
    let tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables \
                  WHERE schemaname IN ('public', 'apalis')";
    let ask = |sql: String| {
        db.read()
            .query_all_raw(Statement::from_string(db.backend(), sql))
    };
    let mut rows = String::new();
    for table in ask(tables.into()).await.unwrap() {
        let table: String = table.try_get_by_index(0).unwrap();
        for row in ask(format!("SELECT line::text FROM {table} line"))
            .await
            .unwrap()
        {
            let row: String = row.try_get_by_index(0).unwrap();
            rows.push_str(&row);
        }
    }
    rows
}

/// An API at work.
pub(crate) struct Api {
    process: Process,
    pub(crate) url: String,
}

impl Api {
    /// Waits until it is ready.
    pub(crate) async fn ready(process: Process) -> Api {
        let said = process.wait_for_message("the API is ready").await;
        let url = format!("http://{}", said["address"].as_str().unwrap());
        Api { process, url }
    }

    /// Signs somebody up.
    pub(crate) async fn user(&self, name: &str) -> TestClient {
        TestClient::anonymous(&self.url).sign_up(name).await
    }

    pub(crate) async fn kill(self) -> Exit {
        self.process.kill().await
    }

    pub(crate) async fn stop(self) -> Exit {
        self.process.stop().await
    }

    pub(crate) async fn wait_for_exit(self) -> Exit {
        self.process.wait_for_exit().await
    }
}

impl Deref for Api {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
