//! The worker's settings.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgAction, Parser};
use reqwest::header::{HeaderName, HeaderValue};
use shared::config::{
    AgentKind, AgentSettings, LogSettings, SearchSettings, Secret, StorageSettings, TraceSettings,
};
use shared::queue::MAX_LEASE;

use crate::agent::{Agent, Anthropic, Limits, ModelSettings, OpenAi, Script, ThinkingTokens};
use crate::writing::Ways;

/// A worker: takes jobs from the queue and has an agent write the posts. Start
/// as many as you like, on as many machines as you like.
///
/// Settings are read from the command line, the environment, and a file .env.
#[derive(Clone, Debug, Parser)]
#[command(name = "worker", version)]
pub struct Config {
    /// How many jobs to run at once
    #[arg(long, env = "WORKER_CONCURRENCY", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub worker_concurrency: u16,

    /// How long a worker may be silent before other workers rescue its jobs, in seconds
    #[arg(long, env = "JOB_LEASE_SECS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..=MAX_LEASE.as_secs() as i64))]
    pub job_lease_secs: u32,

    /// The longest delay before the second attempt, in milliseconds; it doubles with each attempt
    #[arg(long, env = "JOB_BACKOFF_BASE_MS", default_value_t = 5000)]
    pub job_backoff_base_ms: u32,

    /// How long running requests and jobs may take to finish after SIGTERM, in seconds; jobs that
    /// are left are released
    #[arg(long, env = "SHUTDOWN_GRACE_SECS", default_value_t = 30)]
    pub shutdown_grace_secs: u32,

    /// How long finished jobs are kept, in days. Their posts stay; a post without a job is still
    /// regenerated with its last options
    #[arg(long, env = "FINISHED_JOBS_KEEP_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    pub finished_jobs_keep_days: u16,

    /// The address at which Prometheus finds the worker's /metrics, or off; with port 0 any free
    /// port, which the log names. Several workers on one machine need different ports [default:
    /// 127.0.0.1:9090, or any free port if that is taken]
    #[arg(long, env = "METRICS_ADDR")]
    pub metrics_addr: Option<MetricsAddr>,

    /// The base URL of the agent's endpoint; of an OpenAI-compatible one, up to its version
    /// [default: that of the provider]
    #[arg(long, env = "AGENT_URL", hide_env_values = true)]
    pub agent_url: Option<String>,

    /// The key for the agent's endpoint; it is never logged or stored
    #[arg(long, env = "AGENT_API_KEY", hide_env_values = true)]
    pub agent_api_key: Option<Secret>,

    /// Further headers for the agent's endpoint: NAME: VALUE, separated by
    /// semicolons
    #[arg(long, env = "AGENT_HEADERS", hide_env_values = true)]
    pub agent_headers: Option<Secret>,

    /// Further arguments of each request to the agent's endpoint, as a JSON
    /// object, such as {"reasoning_effort": "low"}; a null takes one out
    #[arg(long, env = "AGENT_EXTRA_BODY", hide_env_values = true)]
    pub agent_extra_body: Option<Secret>,

    /// How many tokens a model may think, on top of those for its text: a
    /// number, or MODEL=NUMBER, separated by commas [default: enough for models
    /// that are seen to think]
    #[arg(long, env = "AGENT_THINKING_TOKENS")]
    pub agent_thinking_tokens: Option<ThinkingTokens>,

    /// The program that writes, and its arguments, separated by spaces, for the agent script; there
    /// is no shell
    #[arg(long, env = "AGENT_SCRIPT", hide_env_values = true)]
    pub agent_script: Option<String>,

    /// How long one call to the agent may take, in seconds, and how long it may wait before that
    /// for the agent's rate limit
    #[arg(long, env = "AGENT_TIMEOUT_SECS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pub agent_timeout_secs: u32,

    /// How models write: one-call (the whole post in one answer), by-example (the same, after
    /// an example), by-section (a plan, then section by section) or guided (for the smallest
    /// models). For all models, or for single ones: MODEL=WAY, separated by commas; without it,
    /// guided below a billion parameters, by the model's name, by-example below four billion, and
    /// else one-call up to 1000 words and by-section above
    #[arg(
        long,
        env = "AGENT_WRITING",
        default_value = "",
        hide_default_value = true
    )]
    pub agent_writing: Ways,

    /// Hosts that sources of posts may be read from although their addresses are private, separated
    /// by commas: names, or addresses as they stand in a URL. All others must be public
    #[arg(long, env = "SOURCE_PRIVATE_HOSTS", value_delimiter = ',')]
    pub source_private_hosts: Vec<String>,

    /// Whether the model is asked about citations that their sources do not bear word by word; each
    /// question costs a call
    #[arg(long, env = "JUDGE_CITATIONS", default_value_t = false, action = ArgAction::Set)]
    pub judge_citations: bool,

    /// How long searching for the sources of a post may take, and reading them, in seconds; the
    /// writing begins with those that there are by then
    #[arg(long, env = "SOURCE_TIMEOUT_SECS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub source_timeout_secs: u32,

    /// About how many bytes of pages are read for a post; those left then count as too large
    #[arg(long, env = "SOURCE_MAX_BYTES", default_value_t = 40_000_000)]
    pub source_max_bytes: u32,

    /// The key for the search; it is never logged or stored
    #[arg(long, env = "SEARCH_API_KEY", hide_env_values = true)]
    pub search_api_key: Option<Secret>,

    /// How many queries a post may cost
    #[arg(long, env = "SEARCH_MAX_QUERIES", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=10))]
    pub search_max_queries: u8,

    /// How many pages that a search has found are read for a post
    #[arg(long, env = "SEARCH_MAX_PAGES", default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub search_max_pages: u8,

    /// Where things are kept.
    #[command(flatten)]
    pub storage: StorageSettings,

    /// Who writes.
    #[command(flatten)]
    pub agent: AgentSettings,

    /// The search of the web.
    #[command(flatten)]
    pub search: SearchSettings,

    /// How to log.
    #[command(flatten)]
    pub log: LogSettings,

    /// Where traces go.
    #[command(flatten)]
    pub traces: TraceSettings,
}

/// Where a worker's metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsAddr {
    /// Nowhere.
    Off,
    /// Here.
    At(SocketAddr),
}

impl FromStr for MetricsAddr {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(MetricsAddr::Off);
        }
        let address = text.parse().map(MetricsAddr::At);
        address.map_err(|_| "write an address with its port, such as 127.0.0.1:9090, or off")
    }
}

/// Where `make run` starts the local model.
const LOCAL_URL: &str = "http://127.0.0.1:8012/v1";
const OPENAI_URL: &str = "https://api.openai.com/v1";
const ANTHROPIC_URL: &str = "https://api.anthropic.com";

/// What keeps the small local model from saying the same again and again. A penalty for
/// repeated runs of tokens (DRY) makes it misspell what it has to name again.
const LOCAL_REPEAT_PENALTY: f64 = 1.1;

impl Config {
    /// Reads the settings; ends the process on `--help` or a bad one.
    ///
    /// # Errors
    /// When a setting is bad in a way that only shows once all are read.
    pub fn load() -> anyhow::Result<Self> {
        let config: Config = shared::config::load()?;
        config.agent.models()?;
        Ok(config)
    }

    /// The agent that the settings describe.
    ///
    /// # Errors
    /// When one of its settings is missing or can't be read, naming it.
    pub fn agent(&self) -> anyhow::Result<Arc<dyn Agent>> {
        let limits = Limits::within(self.agent_timeout());
        let key = self.key()?;
        let headers = self.headers()?;
        let settings = ModelSettings {
            thinking_tokens: self.agent_thinking_tokens.clone().unwrap_or_default(),
            extra_body: self.extra_body()?,
        };
        let url = |default| self.agent_url.as_deref().unwrap_or(default);
        match self.agent.agent {
            None => {
                // An address of one's own may hold a key.
                let expected_at = self.agent_url.is_none().then_some(LOCAL_URL);
                tracing::info!(
                    expected_at,
                    "AGENT is not set: the local model writes; for a larger one set AGENT, \
                     AGENT_URL, AGENT_MODEL and AGENT_API_KEY"
                );
                let agent = OpenAi::new(url(LOCAL_URL), key, &headers, limits);
                let agent = agent.context("AGENT_URL")?.with_settings(settings);
                Ok(Arc::new(agent.with_repeat_penalty(LOCAL_REPEAT_PENALTY)))
            }
            Some(AgentKind::Openai) => {
                let agent = OpenAi::new(url(OPENAI_URL), key, &headers, limits);
                Ok(Arc::new(
                    agent.context("AGENT_URL")?.with_settings(settings),
                ))
            }
            Some(AgentKind::Anthropic) => {
                let Some(key) = key else {
                    bail!("AGENT_API_KEY: AGENT=anthropic needs a key");
                };
                let agent = Anthropic::new(url(ANTHROPIC_URL), key, &headers, limits);
                Ok(Arc::new(
                    agent.context("AGENT_URL")?.with_settings(settings),
                ))
            }
            Some(AgentKind::Script) => {
                let Some(command) = &self.agent_script else {
                    bail!("AGENT_SCRIPT: AGENT=script needs a program");
                };
                let supervisor = own_program()?;
                let agent = Script::new(command, std::env::vars_os(), supervisor, limits);
                Ok(Arc::new(agent.context("AGENT_SCRIPT")?))
            }
        }
    }

    /// How long one call to the agent may take, and wait before.
    pub fn agent_timeout(&self) -> Duration {
        Duration::from_secs(self.agent_timeout_secs.into())
    }

    /// How long a silent worker keeps its job.
    pub fn job_lease(&self) -> Duration {
        Duration::from_secs(self.job_lease_secs.into())
    }

    /// The longest pause before the second attempt.
    pub fn job_backoff_base(&self) -> Duration {
        Duration::from_millis(self.job_backoff_base_ms.into())
    }

    /// How long running jobs may take to end when the worker is stopped.
    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_secs(self.shutdown_grace_secs.into())
    }

    /// How long jobs that are over are kept.
    pub fn finished_jobs_keep(&self) -> Duration {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        DAY * self.finished_jobs_keep_days.into()
    }

    fn key(&self) -> anyhow::Result<Option<&str>> {
        let Some(key) = &self.agent_api_key else {
            return Ok(None);
        };
        let key = key.expose().trim();
        if HeaderValue::try_from(key).is_err() {
            bail!("AGENT_API_KEY: it holds characters that can't be sent");
        }
        Ok(Some(key))
    }

    // What it says is not repeated: it may hold a key.
    fn extra_body(&self) -> anyhow::Result<serde_json::Map<String, serde_json::Value>> {
        let Some(body) = &self.agent_extra_body else {
            return Ok(serde_json::Map::new());
        };
        let Ok(body) = serde_json::from_str::<serde_json::Map<_, _>>(body.expose()) else {
            bail!("AGENT_EXTRA_BODY: write a JSON object, such as {{\"think\": false}}");
        };
        if let Some(name) = ["model", "messages"]
            .iter()
            .find(|name| body.contains_key(**name))
        {
            bail!("AGENT_EXTRA_BODY: {name} is the worker's own");
        }
        Ok(body)
    }

    // What a header says is not repeated: it may be a key.
    fn headers(&self) -> anyhow::Result<Vec<(String, String)>> {
        let Some(headers) = &self.agent_headers else {
            return Ok(Vec::new());
        };
        let header = |header: &str| {
            let Some((name, value)) = header.split_once(':') else {
                bail!("AGENT_HEADERS: write them as NAME: VALUE, separated by semicolons");
            };
            let (name, value) = (name.trim(), value.trim());
            if HeaderName::try_from(name).is_err() {
                bail!("AGENT_HEADERS: {name:?} can't be a header's name");
            }
            if HeaderValue::try_from(value).is_err() {
                bail!("AGENT_HEADERS: the value of {name} holds characters that can't be sent");
            }
            Ok((name.to_owned(), value.to_owned()))
        };
        let headers = headers.expose().split(';').map(str::trim);
        headers.filter(|h| !h.is_empty()).map(header).collect()
    }
}

/// The name by which the worker starts its own binary, which may be both programs in one.
pub(crate) const PROGRAM_NAME: &str = "worker";

/// The worker's own binary; the link holds even if the file is replaced meanwhile.
///
/// # Errors
/// If the system does not tell it.
pub(crate) fn own_program() -> io::Result<PathBuf> {
    match cfg!(target_os = "linux") {
        true => Ok(PathBuf::from("/proc/self/exe")),
        false => std::env::current_exe(),
    }
}
