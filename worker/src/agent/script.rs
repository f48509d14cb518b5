//! Programs that write: started for each call, spoken to in lines of JSON.

mod bounded_lines;
mod process_group;
mod supervisor;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStderr, ChildStdout};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

pub(crate) use supervisor::supervise;

use super::output_buffer::OutputBuffer;
use super::{
    Agent, AgentError, AgentErrorKind, CallFuture, CallScope, Completion, CompletionRequest,
    Limits, MAX_RETRY_AFTER, OnEvent, Usage, log_excerpt,
};
use bounded_lines::BoundedLines;
use process_group::{ProcessGroup, REAP_TIMEOUT};
use supervisor::ExitReport;

/// A line may hold the whole post, with its characters escaped.
const MAX_LINE_BYTES_PER_TEXT_BYTE: usize = 4;

/// All lines: the post may come twice, a few characters a line.
const MAX_BYTES_PER_TEXT_BYTE: usize = 64;

/// How much of standard error's end is kept.
const MAX_STDERR_BYTES: usize = 4096;

/// Of the worker's environment a program gets these variables, those that begin
/// with `LC_`, and those with [`PASSED_PREFIX`]: nothing that holds a secret.
const PASSED_VARIABLES: [&str; 8] = [
    "HOME",
    "LANG",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "USER",
];

/// `AGENT_SCRIPT_ENV_TOKEN=x` gives the program `TOKEN=x`.
const PASSED_PREFIX: &str = "AGENT_SCRIPT_ENV_";

/// Any program, in any language, that writes the whole post.
///
/// It reads one JSON line from standard input,
/// `{"protocol": 1, "job_id": …, "topic": …, "options": {…}}`,
/// and writes JSON objects to standard output, one a line:
///
/// | line | says |
/// | --- | --- |
/// | `{"type": "delta", "text"}` | a further piece of the text |
/// | `{"type": "progress", "percent", "message"}` | how far it is; the message may be left out |
/// | `{"type": "post", "title", "content"}` | the finished post, in the place of all pieces before |
/// | `{"type": "error", "message", "retry", "retry_after_s"}` | it gives up; the last two may be left out |
///
/// Lines of other types and empty lines are ignored. Any other line is an error
/// of the program, and the job fails.
///
/// Exit status 0 means success, 75 (`EX_TEMPFAIL`) that another attempt may
/// succeed, any other that none will. Success without a text is retried: models
/// return nothing now and then.
///
/// Its lines are its signs of life: [`Limits`] holds for it as for all agents.
///
/// Once the program has ended, whatever it started is killed, save what left
/// its process group on purpose (`setsid`).
pub struct Script {
    supervisor: PathBuf,
    command: Vec<String>,
    environment: Vec<(OsString, OsString)>,
    limits: Limits,
}

impl Script {
    /// `command` is a program and its arguments, separated by spaces; there is
    /// no shell, so nothing is quoted or expanded. `environment` is that of the
    /// worker; the program gets only a part of it. `supervisor` is the worker's
    /// own binary, which runs `supervise`.
    pub fn new(
        command: &str,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        supervisor: impl Into<PathBuf>,
        limits: Limits,
    ) -> anyhow::Result<Self> {
        let command: Vec<_> = command.split_whitespace().map(str::to_owned).collect();
        anyhow::ensure!(!command.is_empty(), "the script agent's command is empty");
        let environment = environment
            .into_iter()
            .filter_map(passed_variable)
            .collect();
        Ok(Script {
            supervisor: supervisor.into(),
            command,
            environment,
            limits,
        })
    }

    fn read_timeout(&self, output: &ScriptOutput<'_>) -> Duration {
        if output.text.is_empty() {
            self.limits.first_token_timeout
        } else {
            self.limits.idle_timeout
        }
    }

    /// Sends the program its request, and reads its output until it has exited.
    async fn exchange(
        &self,
        group: &mut ProcessGroup,
        stdout: ChildStdout,
        request: &CompletionRequest,
        on_event: &OnEvent<'_>,
    ) -> Result<Completion, AgentError> {
        let end = Instant::now() + self.limits.total_timeout;
        let mut deadline = Instant::now() + self.limits.first_token_timeout;
        let line_bytes = self
            .limits
            .max_bytes
            .saturating_mul(MAX_LINE_BYTES_PER_TEXT_BYTE);
        let bytes = self
            .limits
            .max_bytes
            .saturating_mul(MAX_BYTES_PER_TEXT_BYTE);
        let mut lines = BoundedLines::new(stdout, line_bytes, bytes);
        let mut output = ScriptOutput {
            title: None,
            text: OutputBuffer::new(self.limits.max_bytes, on_event),
        };
        let mut exit = None;
        let input = json!({
            "protocol": 1,
            "job_id": request.job_id,
            "topic": request.topic,
            "options": request.options,
        });
        group.send(&input).await;
        loop {
            tokio::select! {
                // What has come is read first: the time may be over while it waits for us.
                biased;
                line = lines.next() => {
                    let Some(line) = line? else { break };
                    output.read(&line)?;
                    if exit.is_none() {
                        deadline = Instant::now() + self.read_timeout(&output);
                    }
                }
                report = group.exit_status(), if exit.is_none() => {
                    exit = Some(report?);
                    // Its output is in the pipe; a child that holds the pipe
                    // open must not delay the call.
                    group.kill();
                    deadline = Instant::now() + REAP_TIMEOUT;
                }
                () = sleep_until(deadline.min(end)) => match exit {
                    Some(_) => break,
                    None => return Err(AgentError::retry(AgentErrorKind::Timeout, "the script was too slow")),
                }
            }
        }
        check_exit(exit, &self.command[0])?;
        Ok(Completion {
            title: output.title.filter(|title| !title.trim().is_empty()),
            text: output.text.finish()?,
            truncated: false,
            usage: Usage::default(),
        })
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the arguments nor the environment: both may hold a key.
        f.debug_struct("Script")
            .field("program", &self.command[0])
            .finish_non_exhaustive()
    }
}

impl Agent for Script {
    fn scope(&self) -> CallScope {
        CallScope::WholePost
    }

    fn call<'a>(
        &'a self,
        request: &'a CompletionRequest,
        on_event: &'a OnEvent<'a>,
    ) -> CallFuture<'a> {
        Box::pin(async move {
            let started = ProcessGroup::start(&self.supervisor, &self.command, &self.environment);
            let (mut group, stdout, stderr) = started.map_err(|error| {
                let message = format!("can't start {}: {error}", self.supervisor.display());
                AgentError::fatal(AgentErrorKind::Unavailable, message)
            })?;
            let stderr = AbortOnDropHandle::new(tokio::spawn(read_stderr(stderr)));
            let reply = self.exchange(&mut group, stdout, request, on_event).await;
            group.shut_down().await;
            let stderr = timeout(REAP_TIMEOUT, stderr)
                .await
                .ok()
                .and_then(Result::ok);
            reply.map_err(|error| with_stderr(error, &stderr.unwrap_or_default()))
        })
    }
}

fn passed_variable((name, value): (OsString, OsString)) -> Option<(OsString, OsString)> {
    let known = name.to_str()?;
    if let Some(name) = known.strip_prefix(PASSED_PREFIX) {
        return (!name.is_empty()).then(|| (name.into(), value));
    }
    (PASSED_VARIABLES.contains(&known) || known.starts_with("LC_")).then_some((name, value))
}

/// What the program has written so far.
struct ScriptOutput<'a> {
    title: Option<String>,
    text: OutputBuffer<'a>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ScriptMessage {
    Delta {
        text: String,
    },
    Progress {
        percent: f64,
        message: Option<String>,
    },
    Post {
        title: Option<String>,
        content: String,
    },
    Error {
        #[serde(default)]
        message: String,
        #[serde(default)]
        retry: bool,
        retry_after_s: Option<f64>,
    },
    #[serde(other)]
    Other,
}

impl ScriptOutput<'_> {
    fn read(&mut self, line: &[u8]) -> Result<(), AgentError> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let message = serde_json::from_slice(line).map_err(|error| {
            let line = log_excerpt(&String::from_utf8_lossy(line), 200);
            AgentError::fatal(
                AgentErrorKind::BadOutput,
                format!("a line can't be read ({error}): {line}"),
            )
        })?;
        match message {
            ScriptMessage::Delta { text } => self.text.write(text)?,
            // The conversion saturates at 0 and 255.
            ScriptMessage::Progress { percent, message } => {
                self.text.progress((percent as u8).min(100), message)
            }
            ScriptMessage::Post { title, content } => {
                self.title = title;
                self.text.replace(content)?;
            }
            ScriptMessage::Error {
                message,
                retry,
                retry_after_s,
            } => {
                return Err(script_error(&message, retry, retry_after_s));
            }
            ScriptMessage::Other => {}
        }
        Ok(())
    }
}

fn script_error(message: &str, retry: bool, after: Option<f64>) -> AgentError {
    let message = format!("the script gave up: {}", log_excerpt(message, 300));
    if !retry {
        return AgentError::fatal(AgentErrorKind::Rejected, message);
    }
    let after = after.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let after = after.map(|after| after.min(MAX_RETRY_AFTER));
    AgentError::Retry {
        failure: AgentErrorKind::Unavailable,
        after,
        message,
    }
}

fn check_exit(report: Option<ExitReport>, program: &str) -> Result<(), AgentError> {
    let fatal = |message| Err(AgentError::fatal(AgentErrorKind::Unavailable, message));
    match report {
        Some(ExitReport::Exit(0)) => Ok(()),
        Some(ExitReport::Exit(75)) => Err(AgentError::retry(
            AgentErrorKind::Unavailable,
            "the script asks to be tried again (exit status 75)",
        )),
        Some(ExitReport::Exit(status)) => {
            fatal(format!("the script failed with exit status {status}"))
        }
        Some(ExitReport::Signal(signal)) => {
            fatal(format!("the script was killed by signal {signal}"))
        }
        Some(ExitReport::NotStarted(why)) => fatal(format!("can't start {program}: {why}")),
        None => Err(AgentError::retry(
            AgentErrorKind::Unavailable,
            "the script's supervisor is gone",
        )),
    }
}

fn with_stderr(mut error: AgentError, stderr: &[u8]) -> AgentError {
    let stderr = log_excerpt(&String::from_utf8_lossy(stderr), MAX_STDERR_BYTES);
    let (AgentError::Retry { message, .. } | AgentError::Fatal { message, .. }) = &mut error;
    if !stderr.is_empty() {
        message.push_str("; standard error: ");
        message.push_str(&stderr);
    }
    error
}

/// Reads to the end, and keeps the last bytes.
async fn read_stderr(mut stderr: ChildStderr) -> Vec<u8> {
    let mut kept = Vec::new();
    while let Ok(1..) = stderr.read_buf(&mut kept).await {
        let surplus = kept.len().saturating_sub(MAX_STDERR_BYTES);
        kept.drain(..surplus);
    }
    kept
}
