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

/// How long things may last that follow the group's death at once.
pub(super) const REAP_TIMEOUT: Duration = Duration::from_millis(500);

/// The most that the supervisor says.
const MAX_STATUS_BYTES: usize = 4096;

/// A program's process group, led by its supervisor. It dies with this value.
pub(super) struct ProcessGroup {
    leader: Child,
    /// Open as long as the group is to live.
    to_leader: OwnedWriteHalf,
    from_leader: BoundedLines<OwnedReadHalf>,
}

impl ProcessGroup {
    /// Start a program with nothing but this environment.
    pub(super) fn start(
        supervisor: &Path,
        command: &[String],
        environment: &[(OsString, OsString)],
    ) -> io::Result<(ProcessGroup, ChildStdout, ChildStderr)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (from_leader, to_leader) = UnixStream::from_std(ours)?.into_split();
        let mut leader = Command::new(supervisor)
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

    /// Give the program the line that it is to read.
    pub(super) async fn send(&mut self, line: &serde_json::Value) {
        // It fails if the supervisor is gone, and then no ending will come.
        let _ = self
            .to_leader
            .write_all(format!("{line}\n").as_bytes())
            .await;
    }

    /// Wait until the program has ended. It loses nothing when it is dropped
    /// while it waits.
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
        // Without an id the leader is reaped, and its number may be another's.
        if let Some(leader) = self
            .leader
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
        {
            // It fails if all are dead.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }

    /// Kill the group and reap its leader.
    pub(super) async fn shut_down(mut self) {
        self.kill();
        // If that takes longer, tokio reaps it later: it keeps the children that
        // are dropped before, and looks after them at each SIGCHLD.
        let _ = timeout(REAP_TIMEOUT, self.leader.wait()).await;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.kill();
    }
}
