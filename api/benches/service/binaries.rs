//! The real binaries, on a database of their own.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use shared::config::{Secret, StorageSettings};
use shared::database::Database;
use sqlx::Connection;
use tempfile::TempDir;

use crate::cores::{Cores, Share};

/// The databases that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// A database, and what processes on it are told.
pub(crate) struct Service {
    folder: TempDir,
    settings: Vec<(&'static str, String)>,
    storage: StorageSettings,
    programs: PathBuf,
    cores: Cores,
    started: std::cell::Cell<usize>,
}

/// A running binary; killed when dropped.
pub(crate) struct Running(Child);

impl Service {
    /// A new database, empty, for the programs in a folder.
    pub(crate) async fn new(
        kind: Kind,
        agent: &str,
        programs: &Path,
        cores: Cores,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let url = match kind {
            Kind::Sqlite => format!("sqlite://{}/blog.db", folder.path().display()),
            Kind::Postgres => new_postgres().await?,
        };
        let storage = StorageSettings::new(Some(Secret::from(url.clone())), folder.path());
        let settings = [
            ("DATABASE_URL", url),
            ("DATA_DIR", folder.path().display().to_string()),
            ("AGENT", "openai".to_owned()),
            ("AGENT_MODEL", "instant".to_owned()),
            ("AGENT_WRITING", "guided".to_owned()),
            ("AGENT_URL", agent.to_owned()),
            (
                "JWT_SECRET",
                "a secret for benchmarks, and only for them".to_owned(),
            ),
            ("LOG_FORMAT", "json".to_owned()),
            ("RATE_LIMIT_PER_MINUTE", "0".to_owned()),
            ("USER_MAX_ACTIVE_JOBS", "1000000".to_owned()),
            ("USER_MAX_POSTS", "0".to_owned()),
            ("USER_MAX_BYTES", "0".to_owned()),
            ("METRICS_ADDR", "127.0.0.1:0".to_owned()),
        ];
        Ok(Service {
            folder,
            settings: settings.into(),
            storage,
            programs: programs.to_owned(),
            cores,
            started: std::cell::Cell::new(0),
        })
    }

    /// Looks into the database, past the API.
    pub(crate) async fn database(&self) -> Result<Database> {
        Database::open(&self.storage).await
    }

    /// Starts an API, and returns its address once it is ready.
    pub(crate) async fn api(&self, share: Share) -> Result<(Running, String)> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let api = self.start("api", share, &[("LISTEN_ADDR", address.clone())])?;
        let url = format!("http://{address}");
        let begun = Instant::now();
        while reqwest::get(format!("{url}/ready")).await.is_err() {
            if begun.elapsed() > Duration::from_secs(30) {
                bail!("the API does not start:\n{}", self.log("api")?);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok((api, url))
    }

    /// Starts a worker that does so many jobs at once.
    pub(crate) fn worker(&self, concurrency: usize) -> Result<Running> {
        let concurrency = ("WORKER_CONCURRENCY", concurrency.to_string());
        self.start("worker", Share::All, &[concurrency])
    }

    fn start(&self, name: &str, share: Share, more: &[(&'static str, String)]) -> Result<Running> {
        self.started.set(self.started.get() + 1);
        // Lines are written as in real life, to a file.
        let log = File::create(self.log_file(name))?;
        let program = self.programs.join(name);
        if !program.exists() {
            bail!("there is no {}: run make bench", program.display());
        }
        self.cores.restrict(share)?;
        let child = Command::new(program)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(self.settings.iter().chain(more).map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log)
            .spawn();
        self.cores.restrict(Share::Others)?;
        Ok(Running(child?))
    }

    fn log_file(&self, name: &str) -> PathBuf {
        let name = format!("{name}-{}.log", self.started.get());
        self.folder.path().join(name)
    }

    fn log(&self, name: &str) -> Result<String> {
        Ok(std::fs::read_to_string(self.log_file(name))?)
    }
}

impl Running {
    /// Memory that it has in use, in MiB.
    pub(crate) fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib: f64 = kib.context("no VmRSS")?.parse()?;
        Ok(kib / 1024.0)
    }

    /// What its threads used of the processor since its start. The kernel knows
    /// it to the nanosecond there; elsewhere it counts ticks, and finds too many
    /// of a program that wakes with them.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut nanos = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let times = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            let running = times.split(' ').next().context("no times")?;
            nanos += running.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The folder where cargo has put our binaries. It tells us only of our own package's.
pub(crate) fn ours() -> Result<PathBuf> {
    let api = Path::new(env!("CARGO_BIN_EXE_api"));
    Ok(api.parent().context("no folder")?.to_owned())
}

/// Makes a database on the server that `TEST_POSTGRES_URL` names.
async fn new_postgres() -> Result<String> {
    let server = std::env::var("TEST_POSTGRES_URL").context("TEST_POSTGRES_URL is not set")?;
    let name = format!("bench_{}", uuid::Uuid::now_v7().simple());
    let mut connection = sqlx::PgConnection::connect(&server).await?;
    let create = format!("CREATE DATABASE {name}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(create))
        .execute(&mut connection)
        .await?;
    let mut url = reqwest::Url::parse(&server)?;
    url.set_path(&name);
    Ok(url.into())
}
