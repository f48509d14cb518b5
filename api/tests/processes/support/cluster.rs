//! A Postgres server of a test's own, which it may stop and start.

use std::fs::File;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use testing::TIMEOUT;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

/// Finds the server's programs.
const FIND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/find-postgres.sh");

/// A server that runs until it is stopped. It is gone when this is dropped.
pub(crate) struct Cluster {
    programs: PathBuf,
    folder: TempDir,
    /// Whom it runs as, for it refuses to be root.
    user: Option<(u32, u32)>,
    /// Further environment for the server.
    pub(crate) settings: Vec<(&'static str, String)>,
    server: Option<Child>,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// In order, but with an end to all that is under way.
    Fast,
    /// As a crash would.
    Immediate,
}

/// The address of a database whose socket is in `folder`.
pub(crate) fn url(folder: &Path) -> String {
    let folder = folder.to_str().unwrap().replace('/', "%2F");
    format!("postgres://postgres@{folder}/postgres")
}

impl Cluster {
    /// Starts one with an empty database. None in a run on SQLite, and where no
    /// server is installed; `scripts/test.sh` tells when that is so.
    pub(crate) async fn start_new() -> Option<Cluster> {
        std::env::var("TEST_POSTGRES_URL")
            .ok()
            .filter(|url| !url.is_empty())?;
        let programs = Command::new(FIND).output().unwrap();
        if !programs.status.success() {
            return None;
        }
        let programs = String::from_utf8(programs.stdout).unwrap();
        // Its socket is in there, and paths of sockets have to be short.
        let folder = tempfile::Builder::new()
            .prefix("blog-postgres.")
            .tempdir_in("/tmp");
        let mut cluster = Cluster {
            programs: programs.trim().into(),
            folder: folder.unwrap(),
            user: geteuid().is_root().then(unprivileged),
            settings: Vec::new(),
            server: None,
        };
        if let Some((user, group)) = cluster.user {
            chown(cluster.folder.path(), Some(user), Some(group)).unwrap();
        }
        cluster.make().await;
        cluster.start().await;
        Some(cluster)
    }

    /// Its database's address.
    pub(crate) fn url(&self) -> String {
        url(self.folder())
    }

    /// Where its socket is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it again, and waits until it answers.
    pub(crate) async fn start(&mut self) {
        assert!(self.server.is_none(), "it is running");
        let log = self.folder.path().join("log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let socket = self.folder.path().to_str().unwrap();
        let server = self
            .program("postgres")
            .args(["-k", socket, "-c", "listen_addresses=", "-c", "fsync=off"])
            .envs(self.settings.iter().cloned())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.server = Some(server.unwrap());
        let answers = async {
            while PgConnection::connect(&self.url()).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(TIMEOUT, answers)
            .await
            .expect("Postgres does not start");
    }

    /// Stops it, and waits until it has gone.
    pub(crate) async fn stop(&mut self, how: Stop) {
        let mut server = self.server.take().expect("it is not running");
        signal(&server, how);
        let ended = timeout(TIMEOUT, server.wait()).await;
        ended.expect("Postgres does not stop").unwrap();
    }

    /// Runs one of Postgres' client programs, which must do what it is told.
    pub(crate) async fn run(&self, name: &str, arguments: &[&str]) {
        let mut program = tokio::process::Command::new(self.programs.join(name));
        let done = program.args(arguments).output().await.unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{name}: {said}");
    }

    /// The address of another database of the server.
    pub(crate) fn url_of(&self, database: &str) -> String {
        let url = self.url();
        format!("{}/{database}", url.rsplit_once('/').unwrap().0)
    }

    async fn make(&self) {
        let made = self
            .program("initdb")
            .args(["--username=postgres", "--auth=trust", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C"])
            .output();
        let made = made.await.unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
    }

    fn program(&self, name: &str) -> tokio::process::Command {
        let mut program = tokio::process::Command::new(self.programs.join(name));
        let folder = self.folder.path();
        program
            .current_dir(folder)
            .arg("-D")
            .arg(folder.join("data"));
        if let Some((user, group)) = self.user {
            program.uid(user).gid(group);
        }
        program
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        signal(&server, Stop::Immediate);
        while let Ok(None) = server.try_wait() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn signal(server: &Child, how: Stop) {
    let id = server.id().expect("Postgres has ended by itself");
    let signal = match how {
        Stop::Fast => Signal::INT,
        Stop::Immediate => Signal::QUIT,
    };
    kill_process(Pid::from_raw(id.cast_signed()).unwrap(), signal).unwrap();
}

/// The user and group that a server of root's runs as.
fn unprivileged() -> (u32, u32) {
    let id = |kind: &str, user: &str| {
        let id = Command::new("id").args([kind, user]).output().unwrap();
        String::from_utf8(id.stdout)
            .unwrap()
            .trim()
            .parse::<u32>()
            .ok()
    };
    let mut users = ["postgres", "nobody"].into_iter();
    let found = users.find_map(|user| id("-u", user).zip(id("-g", user)));
    found.expect("there is neither a user postgres nor nobody")
}
