//! The API's settings.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;
use clap::{Parser, Subcommand};
use ipnet::IpNet;
use shared::config::{
    AgentSettings, LogSettings, SearchSettings, Secret, StorageSettings, TraceSettings,
};

/// The HTTP API: accepts requests for blog posts, and serves posts and jobs.
///
/// Settings are read from the command line, the environment, and a file .env.
#[derive(Clone, Debug, Parser)]
#[command(name = "api", version, disable_help_subcommand = true)]
pub struct Config {
    /// A command to run instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The address to listen on
    #[arg(long, env = "LISTEN_ADDR", default_value = "127.0.0.1:8000")]
    pub listen_addr: SocketAddr,

    /// The key that signs access tokens, at least 32 characters; without it a random one is created
    /// once and kept in DATA_DIR. APIs on several machines must share one
    #[arg(long, env = "JWT_SECRET", hide_env_values = true)]
    pub jwt_secret: Option<Secret>,

    /// The lifetime of an access token, in seconds
    #[arg(long, env = "ACCESS_TOKEN_TTL_SECS", default_value_t = 900, value_parser = clap::value_parser!(u32).range(1..))]
    pub access_token_ttl_secs: u32,

    /// The lifetime of a session that is not refreshed, in seconds
    #[arg(long, env = "REFRESH_TOKEN_TTL_SECS", default_value_t = 30 * 24 * 3600, value_parser = clap::value_parser!(u32).range(1..))]
    pub refresh_token_ttl_secs: u32,

    /// The lifetime of a session however often it is refreshed, in seconds
    #[arg(long, env = "SESSION_TTL_SECS", default_value_t = 90 * 24 * 3600, value_parser = clap::value_parser!(u32).range(1..))]
    pub session_ttl_secs: u32,

    /// How many attempts at a job may be made before it fails
    #[arg(long, env = "JOB_MAX_ATTEMPTS", default_value_t = 5, value_parser = clap::value_parser!(i32).range(1..=100))]
    pub job_max_attempts: i32,

    /// How many unfinished jobs a user may have
    #[arg(long, env = "USER_MAX_ACTIVE_JOBS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub user_max_active_jobs: u32,

    /// How many posts a user may have; 0 for no limit
    #[arg(long, env = "USER_MAX_POSTS", default_value_t = 10_000)]
    pub user_max_posts: u32,

    /// How many bytes of text a user's posts and their sources may have together; 0 for no limit
    #[arg(long, env = "USER_MAX_BYTES", default_value_t = 100 * 1024 * 1024)]
    pub user_max_bytes: u64,

    /// How many requests a minute a user may make, and a client address without a user; 0 for no
    /// limit. Each API process counts separately
    #[arg(long, env = "RATE_LIMIT_PER_MINUTE", default_value_t = 600)]
    pub rate_limit_per_minute: u32,

    /// How many connections a client address may have open, trusted proxies excepted; never more
    /// than half of all
    #[arg(long, env = "MAX_CONNECTIONS_PER_ADDRESS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections_per_address: u32,

    /// The proxies in front of the API: addresses and networks such as 10.0.0.0/8, separated by
    /// commas. Their X-Forwarded-For is trusted, and no one else's
    #[arg(long, env = "TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<TrustedProxy>,

    /// How long running requests and jobs may take to finish after SIGTERM, in seconds; jobs that
    /// are left are released
    #[arg(long, env = "SHUTDOWN_GRACE_SECS", default_value_t = 30)]
    pub shutdown_grace_secs: u32,

    /// Database and files.
    #[command(flatten)]
    pub storage: StorageSettings,

    /// The agent that writes.
    #[command(flatten)]
    pub agent: AgentSettings,

    /// The search of the web.
    #[command(flatten)]
    pub search: SearchSettings,

    /// Logging.
    #[command(flatten)]
    pub log: LogSettings,

    /// Tracing.
    #[command(flatten)]
    pub traces: TraceSettings,
}

/// The commands.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Make a user an admin, who has to sign up first
    MakeAdmin {
        /// The user's name
        username: String,
    },
    /// Copy the SQLite database to a file, while the service runs
    ///
    /// The copy is the database as it is at one moment, checked, and appears under its name only
    /// when it is complete. On Postgres, use pg_dump.
    Backup {
        /// The file to create, which must not exist
        file: PathBuf,
    },
    /// Replace the SQLite database by a backup, while the service is stopped
    ///
    /// The present database is kept beside it, as blog.db.before-restore-<TIME>. All sessions are
    /// ended, so that none comes back that was revoked since the backup: everyone signs in again.
    /// On Postgres, use pg_restore.
    Restore {
        /// A backup, or a database file that is not in use; it is only read
        file: PathBuf,
        /// Also revoke all API keys: one that was revoked since the backup would be valid again
        #[arg(long)]
        revoke_api_keys: bool,
    },
    /// Finish a restore that was done by other means, such as pg_restore, before the service starts
    ///
    /// Does to the database what `restore` does to a backup: migrates it, and ends all sessions.
    AfterRestore {
        /// Also revoke all API keys: one that was revoked since the backup would be valid again
        #[arg(long)]
        revoke_api_keys: bool,
    },
}

/// A proxy's address, or the network of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedProxy(IpNet);

impl TrustedProxy {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for TrustedProxy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let address = text.parse::<IpAddr>().map(|ip| ip.to_canonical().into());
        let network = address.or_else(|_| text.parse::<IpNet>());
        let network = network.map_err(|_| "neither an address nor a network such as 10.0.0.0/8");
        network.map(TrustedProxy)
    }
}

const MIN_SECRET_LEN: usize = 32;

impl Config {
    /// Reads the settings; exits the process on `--help` or an invalid one.
    ///
    /// # Errors
    /// When a setting is invalid in a way that only shows once all are read.
    pub fn load() -> anyhow::Result<Self> {
        let config: Config = shared::config::load()?;
        config.agent.models()?;
        if let Some(secret) = &config.jwt_secret
            && secret.expose().len() < MIN_SECRET_LEN
        {
            bail!("JWT_SECRET: it must have at least {MIN_SECRET_LEN} characters");
        }
        Ok(config)
    }

    /// The lifetime of an access token.
    pub(crate) fn access_token_ttl(&self) -> Duration {
        Duration::from_secs(self.access_token_ttl_secs.into())
    }

    /// The lifetime of a session that is not refreshed.
    pub fn refresh_token_ttl(&self) -> Duration {
        Duration::from_secs(self.refresh_token_ttl_secs.into())
    }

    /// How long open requests may take to end when the API is stopped.
    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_secs(self.shutdown_grace_secs.into())
    }
}
