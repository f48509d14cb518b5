//! The app under test: a fresh database, the real router on a real port, and
//! the real worker when a test wants jobs to run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::AppState;
use api::ConcurrencyLimit;
use api::config::Config;
use api::connections::ConnectionLimits;
use api::server::serve;
use clap::Parser;
use entity::{job, user};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, PaginatorTrait,
    QueryFilter, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};
use serde_json::{Value, json};
use shared::change_watcher::ChangeWatcher;
use shared::config::{Secret, StorageSettings};
use shared::database::Database;
use tempfile::TempDir;
use testing::stub::RecordedRequest;
use testing::stub_openai::StubOpenAi;
use testing::{TestDatabase, block_in_thread};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use worker::metrics::Metrics;

/// The secret that tokens are signed with in tests.
pub(crate) const SECRET: &str = "a secret for tests, and only for tests";

/// The models that clients may choose from in tests.
pub(crate) const MODELS: &str = "stub-large,stub-small";

/// A password that is good.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// An API of its own for each test. When it is dropped, no job may be left
/// unfinished.
pub(crate) struct TestApp {
    pub(crate) url: String,
    pub(crate) db: Database,
    /// Writes the posts.
    pub(crate) agent: StubOpenAi,
    /// Where the API renders pages.
    pub(crate) renders: ConcurrencyLimit,
    client: reqwest::Client,
    may_leave_jobs: bool,
    storage: StorageSettings,
    _stop: DropGuard,
    _dir: TempDir,
    _postgres: Option<TestDatabase>,
}

/// What a test may want otherwise.
#[derive(Default)]
pub(crate) struct Settings {
    /// Further arguments for the API, such as `--access-token-ttl-secs=1`.
    pub(crate) api: Vec<&'static str>,
}

impl TestApp {
    /// An API with an agent that writes well.
    pub(crate) async fn new() -> Self {
        TestApp::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        // The stub and the clients need no TLS, but the library wants a provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let postgres = TestDatabase::migrated();
        let mut config = config(&dir, settings.api);
        config.storage.database_url = postgres.as_ref().map(|db| db.url().into());
        let storage = config.storage.clone();
        let db = Database::open(&storage).await.unwrap();
        if postgres.is_none() {
            db.migrate().await.unwrap();
        }
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
            url,
            db,
            agent: StubOpenAi::writing(written).await,
            renders,
            client: reqwest::Client::new(),
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

    /// A client that nobody has signed in.
    pub(crate) fn anonymous(&self) -> TestClient {
        self.client_with("")
    }

    /// A client that sends this token, whatever it is worth.
    pub(crate) fn client_with(&self, token: &str) -> TestClient {
        TestClient {
            client: self.client.clone(),
            url: self.url.clone(),
            token: token.to_owned(),
            refresh_token: String::new(),
            name: String::new(),
        }
    }

    /// A client that nobody has signed in, at another address: the last number is
    /// that of 127.0.0.
    pub(crate) fn client_from_ip(&self, number: u8) -> TestClient {
        let address = std::net::Ipv4Addr::new(127, 0, 0, number);
        let client = reqwest::Client::builder().local_address(Some(address.into()));
        TestClient {
            client: client.build().unwrap(),
            ..self.anonymous()
        }
    }

    /// Signs up a user; the client is signed in.
    pub(crate) async fn user(&self, name: &str) -> TestClient {
        let body = json!({ "username": name, "password": PASSWORD });
        let pair = self.anonymous().post("/users/register", body).await;
        assert_eq!(pair.status, 201, "{}", pair.body);
        self.signed_in(name, &pair.body)
    }

    /// Signs in a user once more, in another session.
    pub(crate) async fn login(&self, name: &str) -> TestClient {
        let body = json!({ "username": name, "password": PASSWORD });
        let pair = self.anonymous().post("/users/login", body).await;
        assert_eq!(pair.status, 200, "{}", pair.body);
        self.signed_in(name, &pair.body)
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
    pub(crate) async fn update_user(
        &self,
        admin: &TestClient,
        name: &str,
        change: Value,
    ) -> TestResponse {
        let path = format!("/admin/users/{}", self.id_of(name).await);
        let answer = admin.patch(&path, change).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    }

    fn signed_in(&self, name: &str, pair: &Value) -> TestClient {
        TestClient {
            refresh_token: text(&pair["refresh_token"]),
            name: name.to_owned(),
            ..self.client_with(&text(&pair["access_token"]))
        }
    }

    /// The database once more, as another process has it.
    pub(crate) async fn open_database(&self) -> Database {
        Database::open(&self.storage).await.unwrap()
    }

    /// A transaction of the test's own, which no one else writes beside.
    pub(crate) async fn begin(&self) -> DatabaseTransaction {
        let immediate = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let tx = self.db.raw_connection().begin_with_options(immediate).await;
        tx.unwrap()
    }

    /// Waits until so many or more wait for locks of others on Postgres.
    pub(crate) async fn wait_for_lock_waiters(&self, wanted: i64) {
        let all = "SELECT COUNT(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let all = Statement::from_string(DbBackend::Postgres, all);
        let enough = async {
            loop {
                let row = self.db.read().query_one_raw(all.clone()).await.unwrap();
                if row.unwrap().try_get_by_index::<i64>(0).unwrap() >= wanted {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        let enough = tokio::time::timeout(PATIENCE, enough).await;
        enough.expect("nobody waits");
    }

    /// Starts a worker, which works until it is stopped or dropped.
    pub(crate) async fn worker(&self) -> TestWorker {
        self.worker_with(&[]).await
    }

    /// Starts a worker with further settings, such as `--job-lease-secs=3`.
    pub(crate) async fn worker_with(&self, arguments: &[&str]) -> TestWorker {
        let url = self.agent.url();
        let ours = ["worker", "--agent=openai", "--agent-model", MODELS];
        let quick = ["--job-backoff-base-ms=1", "--agent-url", &url];
        // The stub answers the questions of this way, unless a test names another.
        let names_way = arguments.iter().any(|a| a.starts_with("--agent-writing"));
        let way = (!names_way).then_some(&"--agent-writing=guided");
        let arguments = ours.iter().chain(&quick).chain(way).chain(arguments);
        let config = worker::config::Config::parse_from(arguments);
        let agent = config.agent().unwrap();
        let metrics = Arc::new(Metrics::new(&config).unwrap());
        let stop = CancellationToken::new();
        let (db, counted, until) = (self.db.clone(), metrics.clone(), stop.clone());
        let running =
            tokio::spawn(async move { worker::run(&config, db, agent, counted, until).await });
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

    /// A post's job as soon as it is as wanted.
    pub(crate) async fn job_once(
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
        let job = tokio::time::timeout(PATIENCE, job).await;
        job.expect("the job never gets there")
    }

    /// Which parts of posts the agent was asked for, in order.
    pub(crate) fn requested_sections(&self) -> Vec<usize> {
        self.agent.calls().iter().map(part).collect()
    }

    /// Waits until every job is over.
    pub(crate) async fn wait_until_jobs_finished(&self) {
        let mut changes = ChangeWatcher::watch(&self.db);
        let over = async {
            while unfinished(&self.db).await > 0 {
                changes.changed().await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, over).await;
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
    use job::Status::{Canceling, Queued, Running};
    let jobs = job::Entity::find()
        .filter(job::Column::Status.is_in([Queued, Running, Canceling]))
        .count(db.read());
    let deliveries = shared::queue::count_deliveries(db.read()).await.unwrap();
    jobs.await.unwrap() + u64::try_from(deliveries).unwrap()
}

fn config(dir: &TempDir, arguments: Vec<&'static str>) -> Config {
    let data = dir.path().to_str().unwrap();
    let ours = [
        "api",
        "--data-dir",
        data,
        "--agent=openai",
        "--agent-model",
        MODELS,
    ];
    // Tests ask as often as they like, unless they are about that.
    let limit = "--rate-limit-per-minute";
    let is_set = arguments.iter().any(|argument| argument.starts_with(limit));
    let unlimited = (!is_set).then_some("--rate-limit-per-minute=0");
    let all = ours.into_iter().chain(arguments).chain(unlimited);
    Config::parse_from(all)
}

/// What the stub writes: an outline when asked for one, otherwise a section
/// unlike any other, for what repeats itself is cleaned away.
fn written(call: &RecordedRequest) -> String {
    static SECTIONS: AtomicUsize = AtomicUsize::new(0);
    let asked = call.body["messages"].to_string().to_lowercase();
    if asked.contains("section headings") {
        return OUTLINE.to_owned();
    }
    let number = SECTIONS.fetch_add(1, Ordering::Relaxed);
    let word = |n: usize| {
        format!(
            "{}{}",
            ["plum", "oak", "fern", "moss", "reed"][n % 5],
            number + n
        )
    };
    let sentence = |from: usize| (from..from + 12).map(word).collect::<Vec<_>>().join(" ");
    format!("Once {}. Then {}.", sentence(0), sentence(20))
}

/// The outline that the stub writes, of four sections.
pub(crate) const OUTLINE: &str =
    "# A Good Title\n## First Things\n## Second Thoughts\n## Third Parts\n## Last Words";

/// Which part of a post a call asks for: 0 is the outline, n the nth section.
pub(crate) fn part(call: &RecordedRequest) -> usize {
    let asked = call.body["messages"].to_string();
    if asked.to_lowercase().contains("section headings") {
        return 0;
    }
    // All are named, and the one that is to be written comes last.
    let headings = OUTLINE.lines().enumerate().skip(1);
    let named = headings.map(|(n, heading)| (asked.rfind(heading.trim_start_matches("## ")), n));
    named.max().unwrap().1
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
        let stopped = tokio::time::timeout(PATIENCE, self.running).await;
        stopped.expect("the worker does not stop").unwrap();
    }

    /// Ends it without a word, as SIGKILL would.
    pub(crate) fn abort(self) {
        self.running.abort();
    }
}

/// Somebody with a session, or without one.
#[derive(Clone)]
pub(crate) struct TestClient {
    client: reqwest::Client,
    url: String,
    pub(crate) token: String,
    pub(crate) refresh_token: String,
    pub(crate) name: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct TestResponse {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    /// Null where the answer is not JSON.
    pub(crate) body: Value,
}

impl TestClient {
    pub(crate) async fn get(&self, path: &str) -> TestResponse {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> TestResponse {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> TestResponse {
        self.send(self.request(Method::POST, path).json(&body))
            .await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> TestResponse {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> TestResponse {
        self.send(self.request(Method::PATCH, path).json(&body))
            .await
    }

    /// A request to a path of the API, or to one outside of it if it begins
    /// with `//`.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let path = match path.strip_prefix("//") {
            Some(outside) => format!("/{outside}"),
            None => format!("/api/v1{path}"),
        };
        let request = self.client.request(method, format!("{}{path}", self.url));
        match self.token.as_str() {
            "" => request,
            token => request.bearer_auth(token),
        }
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> TestResponse {
        let response = tokio::time::timeout(PATIENCE * 3, request.send()).await;
        TestResponse::read(response.expect("no answer").unwrap()).await
    }

    /// A post as it is now.
    pub(crate) async fn get_post(&self, post: &Value) -> Value {
        self.get(&format!("/blogs/{}", text(&post["id"])))
            .await
            .body
    }

    /// A post's job as it is now.
    pub(crate) async fn get_job(&self, post: &Value) -> Value {
        self.get(&format!("/jobs/{}", text(&post["job"]["id"])))
            .await
            .body
    }

    /// Asks for a post; the answer is its JSON, with the job.
    pub(crate) async fn create_post(&self, topic: &str) -> Value {
        let answer = self.post("/blogs", json!({ "topic": topic })).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        answer.body
    }
}

impl TestResponse {
    async fn read(response: Response) -> Self {
        let status = response.status();
        let headers = response.headers().clone();
        let text = response.text().await.unwrap();
        let answer = TestResponse {
            status: status.as_u16(),
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
            headers,
            text,
        };
        answer.assert_common_headers();
        answer
    }

    /// What is true of every answer.
    fn assert_common_headers(&self) {
        assert!(self.headers.contains_key("x-request-id"), "{self:?}");
        // Nobody's answer may be kept for somebody else.
        let caching = match self.headers.contains_key("etag") {
            true => "private, no-cache",
            false => "no-store",
        };
        assert_eq!(self.header("cache-control"), caching, "{self:?}");
        let status = StatusCode::from_u16(self.status).unwrap();
        let is_problem = self.header("content-type") == "application/problem+json";
        let is_health = self.body["missing"].is_array();
        let fault = status.is_client_error() || status.is_server_error();
        assert_eq!(is_problem, fault && !is_health, "{self:?}");
        if is_problem {
            assert_eq!(self.body["status"], self.status);
            assert_eq!(self.body["request_id"], self.header("x-request-id"));
            assert_eq!(
                self.headers.contains_key("www-authenticate"),
                self.status == 401
            );
        }
    }

    /// A header's value; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// The contract's code of an error.
    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// Fields at fault with their codes, as `field: code`.
    pub(crate) fn field_errors(&self) -> Vec<String> {
        let errors = self.body["errors"].as_array().cloned().unwrap_or_default();
        let fault = |e: &Value| format!("{}: {}", text(&e["field"]), text(&e["code"]));
        errors.iter().map(fault).collect()
    }
}

/// The text of a JSON string.
pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}
