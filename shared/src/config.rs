//! Settings that both binaries read, and how settings are read at all: from the
//! command line, the environment and a file `.env`, in this order.

use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::builder::Resettable;
use clap::{Arg, Args, Parser, ValueEnum};

/// Reads a binary's settings. On `--help`, or a setting that can't be read, it
/// prints what clap has to say and ends the process, as command-line programs do.
///
/// # Errors
/// When there is a file `.env` that can't be read, or a variable is no text.
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

/// In the folder that the process was started in, and in none above.
const ENV_FILE: &str = ".env";

/// Takes what a file `.env` says into the environment, where that says nothing.
fn read_env_file() -> anyhow::Result<()> {
    let lines = match dotenvy::from_path_iter(ENV_FILE) {
        Err(e) if e.not_found() => return Ok(()),
        lines => lines.context("the file .env can't be read")?,
    };
    let mut place = "its first setting".to_owned();
    for line in lines {
        match line {
            Ok((name, _)) => place = format!("the setting after {name}"),
            // The line is not repeated: it may hold a secret.
            Err(dotenvy::Error::LineParse(..)) => bail!(
                "the file .env: {place} can't be read; write NAME=VALUE, and a value with \
                 spaces, quotes or $ in single quotes"
            ),
            Err(e) => return Err(e).context("the file .env can't be read"),
        }
    }
    dotenvy::from_path(ENV_FILE).context("the file .env can't be read")?;
    Ok(())
}

/// An empty variable is one that is not set: that is how compose files pass
/// what their user left out.
fn without_empty(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| match arg.get_env() {
        Some(name) if std::env::var_os(name).is_some_and(|value| value.is_empty()) => {
            arg.env(Resettable::Reset)
        }
        _ => arg,
    })
}

/// A value that must never be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Secret(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Secret(value.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Where things are kept.
#[derive(Args, Clone, Debug)]
pub struct StorageSettings {
    /// Where the database is: sqlite://PATH or postgres://USER:PASSWORD@HOST/NAME
    /// [default: blog.db in DATA_DIR]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<Secret>,

    /// The folder for what the service keeps: the SQLite database, and the
    /// JWT secret if none is given
    #[arg(long, env = "DATA_DIR", default_value = "data")]
    pub data_dir: PathBuf,

    /// How many connections to Postgres this process may open. A worker opens three
    /// more, for the queue. All processes together need fewer than the server's
    /// max_connections
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", default_value_t = DEFAULT_CONNECTIONS, value_parser = clap::value_parser!(u32).range(4..=1000))]
    pub database_max_connections: u32,
}

const DEFAULT_CONNECTIONS: u32 = 8;

impl StorageSettings {
    /// Settings with all defaults but these.
    pub fn new(database_url: Option<Secret>, data_dir: impl Into<PathBuf>) -> Self {
        StorageSettings {
            database_url,
            data_dir: data_dir.into(),
            database_max_connections: DEFAULT_CONNECTIONS,
        }
    }

    /// The database's address; it may hold a password.
    pub fn url(&self) -> String {
        match &self.database_url {
            Some(url) => url.expose().to_owned(),
            None => {
                // What would mean something in an address.
                let file = self.data_dir.join("blog.db").display().to_string();
                let file = file.replace('%', "%25").replace('?', "%3F");
                format!("sqlite://{file}")
            }
        }
    }

    /// Makes the folder for the service's files, if need be.
    ///
    /// # Errors
    /// When the folder can't be made, naming the setting.
    pub fn create_data_dir(&self) -> anyhow::Result<&Path> {
        // Password hashes are in it.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.data_dir)
            .with_context(|| format!("DATA_DIR: can't make {}", self.data_dir.display()))?;
        Ok(&self.data_dir)
    }
}

/// How to log.
#[derive(Args, Clone, Debug)]
pub struct LogSettings {
    /// How log lines look
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,

    /// What is logged, as tracing's filter directives, such as info,worker=debug
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub rust_log: String,
}

/// Where traces go.
#[derive(Args, Clone, Debug)]
pub struct TraceSettings {
    /// Where a collector takes OpenTelemetry's traces by HTTP, such as
    /// http://127.0.0.1:4318; without it none are made. The exporter reads other
    /// variables of the standard as well, such as OTEL_EXPORTER_OTLP_HEADERS and
    /// OTEL_TRACES_SAMPLER
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true)]
    pub otel_exporter_otlp_endpoint: Option<String>,
}

/// The looks of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Who writes, as far as both binaries must know.
#[derive(Args, Clone, Debug)]
pub struct AgentSettings {
    /// Who writes the posts; without it, the local model that `make run` starts
    #[arg(long, env = "AGENT", value_enum)]
    pub agent: Option<AgentKind>,

    /// The models that clients may choose from, separated by commas; the first
    /// is the default. Required for openai and anthropic
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
    /// A program of one's own
    Script,
}

/// The local model unless `LOCAL_MODEL` or the machine chooses another; `make run` then names
/// that one in `AGENT_MODEL`.
const LOCAL_MODEL_ID: &str = "qwen2.5-coder-1.5b-instruct";

/// A model that clients may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name, as the agent knows it.
    pub id: String,
    /// Who serves it: `local`, `openai`, `anthropic` or `script`.
    pub agent: &'static str,
}

impl AgentSettings {
    /// Who writes: `local`, `openai`, `anthropic` or `script`.
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
    /// When `AGENT` needs models to be named and `AGENT_MODEL` names none.
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
