//! Settings: those that both binaries have, and how they are read, from the command line, the
//! environment and the file `.env`, in this order of precedence.

use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::builder::Resettable;
use clap::{Arg, Args, Parser, ValueEnum};

/// Reads a binary's settings. On `--help`, or an invalid setting, it prints clap's message and
/// exits the process, as command-line programs do.
///
/// # Errors
/// If the file `.env` is invalid, or a variable is not UTF-8.
pub fn load<S: Parser>() -> anyhow::Result<S> {
    read_env_file()?;
    let command = S::command();
    for name in command.get_arguments().filter_map(Arg::get_env) {
        if std::env::var_os(name).is_some_and(|value| value.to_str().is_none()) {
            bail!("{}: its value is not UTF-8", name.display());
        }
    }
    let matches = without_empty(command).get_matches();
    S::from_arg_matches(&matches).map_err(|e| e.exit())
}

/// Read from the working directory, and from none above it.
const ENV_FILE: &str = ".env";

/// Adds the variables of the file `.env` to the environment, unless they are set there.
fn read_env_file() -> anyhow::Result<()> {
    let lines = match dotenvy::from_path_iter(ENV_FILE) {
        Err(e) if e.not_found() => return Ok(()),
        lines => lines.context("the file .env can't be read")?,
    };
    let mut position = "its first setting".to_owned();
    for line in lines {
        match line {
            Ok((name, _)) => position = format!("the setting after {name}"),
            // The message does not quote the line: it may contain a secret.
            Err(dotenvy::Error::LineParse(..)) => bail!(
                "the file .env: {position} can't be read; write NAME=VALUE, and a value with \
                 spaces, quotes or $ in single quotes"
            ),
            Err(e) => return Err(e).context("the file .env can't be read"),
        }
    }
    dotenvy::from_path(ENV_FILE).context("the file .env can't be read")?;
    Ok(())
}

/// Treats an empty variable as one that is not set: compose files pass empty ones for what their
/// user left out.
fn without_empty(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| match arg.get_env() {
        Some(name) if std::env::var_os(name).is_some_and(|value| value.is_empty()) => {
            arg.env(Resettable::Reset)
        }
        _ => arg,
    })
}

/// A value that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(value: T) -> Self {
        Secret(value.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Where data is stored.
#[derive(Args, Clone, Debug)]
pub struct StorageSettings {
    /// The database: sqlite://PATH or postgres://USER:PASSWORD@HOST/NAME [default: blog.db in
    /// DATA_DIR]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<Secret>,

    /// The folder for the service's files: the SQLite database, and the JWT secret if none is set
    #[arg(long, env = "DATA_DIR", default_value = "data")]
    pub data_dir: PathBuf,

    /// How many connections to Postgres this process may open for its queries. An API opens one more, for
    /// events, and a worker three, for the queue. All processes together need fewer than the server's max_connections
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", default_value_t = DEFAULT_CONNECTIONS, value_parser = clap::value_parser!(u32).range(4..=1000))]
    pub database_max_connections: u32,
}

const DEFAULT_CONNECTIONS: u32 = 8;

impl StorageSettings {
    /// Settings with these values, and else the defaults.
    pub fn new(database_url: Option<Secret>, data_dir: impl Into<PathBuf>) -> Self {
        StorageSettings {
            database_url,
            data_dir: data_dir.into(),
            database_max_connections: DEFAULT_CONNECTIONS,
        }
    }

    /// The database's URL; it may contain a password.
    pub fn url(&self) -> String {
        if let Some(url) = &self.database_url {
            return url.expose().to_owned();
        }
        let file = self.data_dir.join("blog.db").display().to_string();
        // Both characters have a meaning in a URL.
        let file = file.replace('%', "%25").replace('?', "%3F");
        format!("sqlite://{file}")
    }

    /// Creates the folder for the service's files if it does not exist.
    pub fn create_data_dir(&self) -> anyhow::Result<&Path> {
        // Private: the database in it contains password hashes.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.data_dir)
            .with_context(|| format!("DATA_DIR: can't create {}", self.data_dir.display()))?;
        Ok(&self.data_dir)
    }
}

/// Settings of the log.
#[derive(Args, Clone, Debug)]
pub struct LogSettings {
    /// The format of log lines
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,

    /// What is logged, as tracing's filter directives, such as info,worker=debug
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub rust_log: String,
}

/// Settings of the traces.
#[derive(Args, Clone, Debug)]
pub struct TraceSettings {
    /// The OTLP/HTTP endpoint of an OpenTelemetry collector, such as http://127.0.0.1:4318; without
    /// it there are no traces. The exporter also reads the standard's other variables, such as
    /// OTEL_EXPORTER_OTLP_HEADERS and OTEL_TRACES_SAMPLER
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true)]
    pub otel_exporter_otlp_endpoint: Option<String>,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// The part of the agent's settings that both binaries need.
#[derive(Args, Clone, Debug)]
pub struct AgentSettings {
    /// The kind of agent that writes the posts; without it, the local model that `make run` starts
    #[arg(long, env = "AGENT", value_enum)]
    pub agent: Option<AgentKind>,

    /// The models that clients may choose from, separated by commas; the first is the default.
    /// Required for openai and anthropic
    #[arg(long, env = "AGENT_MODEL")]
    pub agent_model: Option<String>,
}

/// The kinds of agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AgentKind {
    /// Any endpoint that speaks OpenAI's chat completions
    Openai,
    /// Anthropic's Messages API
    Anthropic,
    /// A program of your own
    Script,
}

/// The part of the search's settings that both binaries need.
#[derive(Args, Clone, Debug)]
pub struct SearchSettings {
    /// The search that finds sources on the web, for posts with `research: web`; without it, and
    /// without SEARCH_URL, there is none [default: searxng if SEARCH_URL is set]
    #[arg(long, env = "SEARCH", value_enum)]
    pub search: Option<SearchKind>,

    /// The base URL of the search, such as that of a SearXNG whose settings allow the format json
    /// [default: that of the provider]
    #[arg(long, env = "SEARCH_URL", hide_env_values = true)]
    pub search_url: Option<String>,
}

/// The searches that are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SearchKind {
    /// A SearXNG of your own
    Searxng,
    /// Brave's Search API
    Brave,
    /// Tavily's Search API
    Tavily,
}

impl SearchSettings {
    /// The kind of search; None if there is none.
    pub fn kind(&self) -> Option<SearchKind> {
        let default = self.search_url.is_some().then_some(SearchKind::Searxng);
        self.search.or(default)
    }
}

/// The local model unless `LOCAL_MODEL` or the machine chooses another; `make run` then names
/// that one in `AGENT_MODEL`.
const LOCAL_MODEL_ID: &str = "qwen2.5-coder-1.5b-instruct";

/// A model that clients may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The name, as the agent knows it.
    pub id: String,
    /// The agent that serves it, as [`AgentSettings::name`].
    pub agent: &'static str,
}

impl AgentSettings {
    /// The kind of agent: `local`, `openai`, `anthropic` or `script`.
    pub fn name(&self) -> &'static str {
        match self.agent {
            None => "local",
            Some(AgentKind::Script) => "script",
            Some(AgentKind::Openai) => "openai",
            Some(AgentKind::Anthropic) => "anthropic",
        }
    }

    /// The models that clients may choose from; the first is the default.
    ///
    /// # Errors
    /// If `AGENT_MODEL` names none and the kind of agent has no default.
    pub fn models(&self) -> anyhow::Result<Vec<Model>> {
        let agent = self.name();
        let default = match self.agent {
            None => Some(LOCAL_MODEL_ID),
            Some(AgentKind::Script) => Some("script"),
            Some(AgentKind::Openai | AgentKind::Anthropic) => None,
        };
        let named = self.agent_model.as_deref().or(default).unwrap_or_default();
        let models: Vec<Model> = named
            .split(',')
            .map(str::trim)
            .filter(|id| !id.is_empty())
            .map(|id| Model {
                id: id.to_owned(),
                agent,
            })
            .collect();
        if models.is_empty() {
            bail!("AGENT_MODEL: name the model to ask; AGENT={agent} has no default");
        }
        Ok(models)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(agent: Option<AgentKind>, model: Option<&str>) -> AgentSettings {
        AgentSettings {
            agent,
            agent_model: model.map(str::to_owned),
        }
    }

    #[test]
    fn the_first_named_model_is_the_default() {
        let models = agent(Some(AgentKind::Openai), Some("big, small"))
            .models()
            .unwrap();
        let ids: Vec<&str> = models.iter().map(|m| m.id.as_str()).collect();
        assert_eq!(ids, ["big", "small"]);
    }

    #[test]
    fn without_an_agent_there_is_the_local_model() {
        assert_eq!(agent(None, None).models().unwrap()[0].id, LOCAL_MODEL_ID);
    }

    #[test]
    fn a_provider_without_a_model_is_a_bad_setting() {
        let error = agent(Some(AgentKind::Anthropic), None)
            .models()
            .unwrap_err();
        assert!(error.to_string().starts_with("AGENT_MODEL"), "{error}");
    }

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        let url = "postgres://me:hunter2@db/blog";
        let settings = StorageSettings::new(Some(url.into()), "data");
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
