//! The parent of a script agent's program, which outlives neither the worker
//! nor the program's children.
//!
//! A worker that is killed with SIGKILL can't clean up after itself. So the
//! program is not its child, but that of a process of the worker's own binary,
//! `worker supervise -- program`, which leads the process group and whose
//! standard input is one end of a socket. The other end is the worker's, and
//! the kernel closes it whatever the worker dies of: then the whole group dies.
//!
//! Over the socket the worker sends one line for the program's standard input;
//! back comes one line on how the program ended, an [`ExitReport`]. After that the
//! group stays until the worker kills it, so that there is no moment in which
//! nobody watches over what the program has left behind.

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
    /// It was never there.
    NotStarted(String),
}

/// Run a program for a script agent: what `worker supervise -- program` does.
/// Only the worker itself calls that. It does not return unless it can't begin.
pub fn supervise(command: &[OsString]) -> io::Result<()> {
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
        // Nothing more is sent: this waits for the worker's end.
        let _ = from_worker.read(&mut [0]);
        kill_current_process_group(Signal::KILL)
    });

    let ending =
        run(command, &input).unwrap_or_else(|error| ExitReport::NotStarted(error.to_string()));
    let mut line = serde_json::to_vec(&ending)?;
    line.push(b'\n');
    // If the worker is not there any more, the watch does what is left to do.
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
        // It need not read what it does not want to know.
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
