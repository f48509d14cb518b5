//! The app under test: a fresh database, the real router on a real port, and
//! the real worker when a test wants jobs to run.

use std::sync::Arc;

use api::AppState;
use api::ConcurrencyLimit;
use api::config::Config;
use api::connections::ConnectionLimits;
use api::server::serve;
use clap::Parser;
use entity::user;
use serde_json::Value;
use shared::change_watcher::ChangeWatcher;
use shared::config::{Secret, StorageSettings};
use shared::database::Database;
use tempfile::TempDir;
use testing::stub_openai::{StubBehavior, StubOpenAi};
use testing::{
    TIMEOUT, TestClient, TestDatabase, at_first, block_in_thread, copy_migrated_sqlite,
    requested_part, write_part,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use worker::metrics::Metrics;

use super::database::count_unfinished_jobs;

/// The secret that tokens are signed with in tests.
pub(crate) const SECRET: &str = "a secret for tests, and only for tests";

/// The models that clients may choose from in tests.
pub(crate) const MODELS: &str = "stub-large,stub-small";

/// For workers whose jobs are rescued soon after they have vanished.
pub(crate) const SHORT_LEASE: &[&str] = &["--job-lease-secs=3"];

/// An API of its own for each test. When it is dropped, no job may be left
/// unfinished.
pub(crate) struct TestApp {
    pub(crate) url: String,
    pub(crate) db: Database,
    /// Writes the posts.
    pub(crate) agent: StubOpenAi,
    /// Where the API renders pages.
    pub(crate) renders: ConcurrencyLimit,
    client: TestClient,
    may_leave_jobs: bool,
    storage: StorageSettings,
    _stop: DropGuard,
    _dir: TempDir,
    _postgres: Option<TestDatabase>,
}

impl TestApp {
    /// An API with an agent that writes well.
    pub(crate) async fn new() -> Self {
        TestApp::with(&[]).await
    }

    /// The same with further settings, such as `--access-token-ttl-secs=1`.
    pub(crate) async fn with(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let postgres = TestDatabase::migrated();
        let mut config = config(&dir, arguments);
        config.storage.database_url = postgres.as_ref().map(|db| db.url().into());
        let storage = config.storage.clone();
        if postgres.is_none() {
            copy_migrated_sqlite(dir.path());
        }
        let db = Database::open(&storage).await.unwrap();
        let limits = ConnectionLimits::new(&config);
        let stop = CancellationToken::new();
        let secret = Secret::from(SECRET);
        let state = AppState::new(config, db.clone(), &secret, stop.clone()).unwrap();
        let renders = state.renders.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = api::app(state);
        tokio::spawn(serve(listener, app, limits, stop.clone()));
        TestApp {
            client: TestClient::anonymous(&url),
            url,
            db,
            agent: StubOpenAi::writing(|request| write_part(requested_part(request))).await,
            renders,
            may_leave_jobs: false,
            storage,
            _stop: stop.drop_guard(),
            _dir: dir,
            _postgres: postgres,
        }
    }

    /// This test is about jobs that don't end.
    pub(crate) fn allow_unfinished_jobs(&mut self) {
        self.may_leave_jobs = true;
    }

    /// A client without a session.
    pub(crate) fn anonymous(&self) -> TestClient {
        self.client.clone()
    }

    /// A client that sends this token, whatever it is worth.
    pub(crate) fn client_with_token(&self, token: &str) -> TestClient {
        self.client.with_token(token)
    }

    /// A client without a session at another address: the last number is that of
    /// 127.0.0.
    pub(crate) fn client_from_ip(&self, number: u8) -> TestClient {
        self.client.from_ip(number)
    }

    /// Signs up a user.
    pub(crate) async fn user(&self, name: &str) -> TestClient {
        self.client.sign_up(name).await
    }

    /// Signs in a user once more, in another session.
    pub(crate) async fn login(&self, name: &str) -> TestClient {
        self.client.sign_in(name).await
    }

    /// Signs up a user who is made an admin; the client is signed in.
    pub(crate) async fn admin(&self, name: &str) -> TestClient {
        let client = self.user(name).await;
        let made = api::cli::make_admin(&self.db, name.to_owned());
        made.await.unwrap();
        client
    }

    /// The id of the user of that name.
    pub(crate) async fn id_of(&self, name: &str) -> String {
        let user = user::Entity::find_by_username(name)
            .one(self.db.read())
            .await;
        user.unwrap().unwrap().id.to_string()
    }

    /// Has an admin change a user.
    pub(crate) async fn update_user(&self, admin: &TestClient, name: &str, change: Value) -> Value {
        let path = format!("/admin/users/{}", self.id_of(name).await);
        admin.patch(&path, change).await.expect(200)
    }

    /// The database once more, as another process has it.
    pub(crate) async fn open_database(&self) -> Database {
        Database::open(&self.storage).await.unwrap()
    }

    /// Starts a worker, which works until it is stopped or dropped.
    pub(crate) async fn worker(&self) -> TestWorker {
        self.worker_with(&[]).await
    }

    /// Starts a worker with further settings, such as `--job-lease-secs=3`.
    pub(crate) async fn worker_with(&self, arguments: &[&str]) -> TestWorker {
        let url = self.agent.url();
        let ours = ["worker", "--agent=openai", "--agent-model", MODELS];
        let backoff = "--job-backoff-base-ms";
        let names_backoff = arguments.iter().any(|a| a.starts_with(backoff));
        let quick = (!names_backoff).then_some(&"--job-backoff-base-ms=1");
        let agent = ["--agent-url", &url];
        // The stub answers the questions of this way, unless a test names another.
        let names_way = arguments.iter().any(|a| a.starts_with("--agent-writing"));
        let way = (!names_way).then_some(&"--agent-writing=guided");
        let ours = ours.iter().chain(&agent).chain(quick).chain(way);
        let arguments = ours.chain(arguments);
        let config = worker::config::Config::parse_from(arguments);
        let agent = config.agent().unwrap();
        let researcher = Arc::new(worker::Researcher::new(&config).unwrap());
        let metrics = Arc::new(Metrics::new(&config).unwrap());
        let stop = CancellationToken::new();
        let (db, counted, until) = (self.db.clone(), metrics.clone(), stop.clone());
        let running = tokio::spawn(async move {
            worker::run(&config, db, agent, researcher, counted, until).await;
        });
        TestWorker {
            running,
            metrics,
            stop,
        }
    }

    /// Runs a worker until every job is over.
    pub(crate) async fn run_jobs(&self) {
        let worker = self.worker().await;
        self.wait_until_jobs_finished().await;
        worker.stop().await;
    }

    /// A post that has been written.
    pub(crate) async fn ready_post(&self, owner: &TestClient, topic: &str) -> Value {
        let post = owner.create_post(topic).await;
        self.run_jobs().await;
        owner.get_post(&post).await
    }

    /// Waits until a post's job is as wanted, and returns it.
    pub(crate) async fn wait_for_job(
        &self,
        owner: &TestClient,
        post: &Value,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut changes = ChangeWatcher::watch(&self.db);
        let job = async {
            loop {
                let job = owner.get_job(post).await;
                if wanted(&job) {
                    return job;
                }
                changes.changed().await;
            }
        };
        let job = timeout(TIMEOUT, job).await;
        job.expect("the job never gets there")
    }

    /// Has a worker vanish while it is at the second section.
    pub(crate) async fn lose_worker(&self) {
        self.agent.set(at_first(1, 2, StubBehavior::Hang));
        let worker = self.worker_with(SHORT_LEASE).await;
        self.agent.called(3).await;
        worker.abort();
        self.agent.client_gone().await;
    }

    /// Which parts of posts the agent was asked for, in order.
    pub(crate) fn requested_sections(&self) -> Vec<usize> {
        self.agent.calls().iter().map(requested_part).collect()
    }

    /// Waits until every job is over.
    pub(crate) async fn wait_until_jobs_finished(&self) {
        let mut changes = ChangeWatcher::watch(&self.db);
        let over = async {
            while unfinished(&self.db).await > 0 {
                changes.changed().await;
            }
        };
        let waited = timeout(TIMEOUT, over).await;
        waited.expect("some jobs don't end");
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if self.may_leave_jobs || std::thread::panicking() {
            return;
        }
        // The test's own connections may all be on their way back to the pool,
        // which this very drop holds up.
        let storage = self.storage.clone();
        let left = block_in_thread(async move {
            let db = Database::open(&storage).await.unwrap();
            unfinished(&db).await
        });
        assert_eq!(left, 0, "the test left jobs behind");
    }
}

/// Jobs that are not over, and deliveries that wait.
async fn unfinished(db: &Database) -> u64 {
    let deliveries = shared::queue::count_deliveries(db.read()).await.unwrap();
    count_unfinished_jobs(db).await + u64::try_from(deliveries).unwrap()
}

fn config(dir: &TempDir, arguments: &[&str]) -> Config {
    let data = dir.path().to_str().unwrap();
    let ours = ["api", "--data-dir", data, "--agent=openai", "--agent-model"];
    // Tests send as many requests as they like, unless they are about that.
    let limit = "--rate-limit-per-minute";
    let is_set = arguments.iter().any(|argument| argument.starts_with(limit));
    let unlimited = (!is_set).then_some("--rate-limit-per-minute=0");
    let ours = ours.into_iter().chain([MODELS]);
    Config::parse_from(ours.chain(arguments.iter().copied()).chain(unlimited))
}

/// A worker at work.
pub(crate) struct TestWorker {
    running: JoinHandle<()>,
    pub(crate) metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl TestWorker {
    /// Stops it as SIGTERM would, and waits until it has stopped.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let stopped = timeout(TIMEOUT, self.running).await;
        stopped.expect("the worker does not stop").unwrap();
    }

    /// Ends it without a word, as SIGKILL would.
    pub(crate) fn abort(self) {
        self.running.abort();
    }
}
