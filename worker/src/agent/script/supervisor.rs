//! The supervisor of a script agent's program: kills its process group when the
//! worker dies.
//!
//! A worker that is killed with SIGKILL can't clean up after itself. So the
//! program is not its child, but that of a process of the worker's own binary,
//! `worker supervise -- program`, which leads the process group and whose
//! standard input is one end of a socket. The kernel closes the worker's end
//! whatever the worker dies of, and then the supervisor kills the group.
//!
//! Over the socket the worker sends one line for the program's standard input;
//! back comes one line on how the program ended, an [`ExitReport`]. Then the
//! supervisor waits until the worker kills the group: what the program has left
//! behind is never without one.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{Signal, getpgrp, getpid, kill_current_process_group};
use serde::{Deserialize, Serialize};

/// How a program ended.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ExitReport {
    /// It exited by itself.
    Exit(i32),
    /// It was killed.
    Signal(i32),
    /// It could not be started.
    NotStarted(String),
}

/// Runs a program for a script agent: `worker supervise -- program`, which only
/// the worker itself starts. It returns only if it can't start.
pub(crate) fn supervise(command: &[OsString]) -> io::Result<()> {
    if getpgrp() != getpid() {
        return Err(io::Error::other(
            "this command is only for the worker's own use",
        ));
    }
    let mut worker = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut input = Vec::new();
    let mut from_worker = BufReader::new(worker.try_clone()?);
    from_worker.read_until(b'\n', &mut input)?;
    let watch = std::thread::spawn(move || {
        // Nothing more is sent: this returns when the worker is gone.
        let _ = from_worker.read(&mut [0]);
        kill_current_process_group(Signal::KILL)
    });

    let ending =
        run(command, &input).unwrap_or_else(|error| ExitReport::NotStarted(error.to_string()));
    let mut line = serde_json::to_vec(&ending)?;
    line.push(b'\n');
    // If the worker is gone, the watch kills the group.
    let _ = worker.write_all(&line);
    watch
        .join()
        .map_err(|_| io::Error::other("the watch panicked"))??;
    Ok(())
}

fn run(command: &[OsString], input: &[u8]) -> io::Result<ExitReport> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::Error::other("no program is named"));
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // It fails if the program does not read it.
        let _ = stdin.write_all(input);
    }
    child.wait().map(ExitReport::from)
}

impl From<ExitStatus> for ExitReport {
    fn from(status: ExitStatus) -> Self {
        match status.code() {
            Some(code) => ExitReport::Exit(code),
            None => ExitReport::Signal(status.signal().unwrap_or_default()),
        }
    }
}
