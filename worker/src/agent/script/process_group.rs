//! A program and all that it starts, as a process group.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

use super::bounded_lines::BoundedLines;
use super::supervisor::ExitReport;
use crate::agent::{AgentError, AgentErrorKind};
use crate::config::PROGRAM_NAME;

/// How long the group may take to be reaped, and its pipes to close, after it
/// was killed.
pub(super) const REAP_TIMEOUT: Duration = Duration::from_millis(500);

/// The most that the supervisor reports.
const MAX_STATUS_BYTES: usize = 4096;

/// A program's process group, led by its supervisor; killed on drop.
pub(super) struct ProcessGroup {
    leader: Child,
    /// The supervisor kills the group when this closes.
    to_leader: OwnedWriteHalf,
    from_leader: BoundedLines<OwnedReadHalf>,
}

impl ProcessGroup {
    /// Starts a program with nothing but this environment.
    pub(super) fn start(
        supervisor: &Path,
        command: &[String],
        environment: &[(OsString, OsString)],
    ) -> io::Result<(ProcessGroup, ChildStdout, ChildStderr)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (from_leader, to_leader) = UnixStream::from_std(ours)?.into_split();
        let mut leader = Command::new(supervisor)
            .arg0(PROGRAM_NAME)
            .args(["supervise", "--"])
            .args(command)
            .env_clear()
            .envs(environment.iter().cloned())
            .process_group(0)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (stdout, stderr) = (leader.stdout.take(), leader.stderr.take());
        let from_leader = BoundedLines::new(from_leader, MAX_STATUS_BYTES, MAX_STATUS_BYTES);
        let group = ProcessGroup {
            leader,
            to_leader,
            from_leader,
        };
        match (stdout, stderr) {
            (Some(stdout), Some(stderr)) => Ok((group, stdout, stderr)),
            _ => Err(io::Error::other("the pipes are missing")),
        }
    }

    /// Writes the program's standard input, one line.
    pub(super) async fn send(&mut self, line: &serde_json::Value) {
        // It fails if the supervisor is gone; then `exit_status` fails, too.
        let _ = self
            .to_leader
            .write_all(format!("{line}\n").as_bytes())
            .await;
    }

    /// Waits until the program has exited. Cancel safe.
    pub(super) async fn exit_status(&mut self) -> Result<ExitReport, AgentError> {
        let line = self.from_leader.next().await?.unwrap_or_default();
        serde_json::from_slice(&line).map_err(|_| {
            AgentError::retry(
                AgentErrorKind::Unavailable,
                "the script's supervisor is gone",
            )
        })
    }

    pub(super) fn kill(&self) {
        // Without an id the leader is reaped, and its id may be reused.
        if let Some(leader) = self
            .leader
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
        {
            // It fails if no process is left.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }

    /// Kills the group and reaps its leader.
    pub(super) async fn shut_down(mut self) {
        self.kill();
        // If that takes longer, tokio reaps it at a later SIGCHLD.
        let _ = timeout(REAP_TIMEOUT, self.leader.wait()).await;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.kill();
    }
}
