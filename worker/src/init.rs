//! A minimal init, for a worker that is process 1 of its container.
//!
//! The kernel hands a process whose parent has ended to process 1, which must
//! reap it when it ends; until then it stays in the process table as a zombie.
//! That happens to a script agent's program and its children whenever they are
//! killed together with their supervisor. The worker itself can't reap whatever
//! ends: tokio, too, waits for its children, and must learn how they ended.
//!
//! So process 1 starts the same program once more, which does the work, forwards
//! signals to it, reaps all that ends, and exits when the worker does, as it did.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

/// The signals that are meant for the worker. The kernel drops those that
/// process 1 has no handler for.
const FORWARDED: [Signal; 6] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
];

/// Whether this process is process 1, and must [`run`] instead of working.
#[must_use]
pub(crate) fn is_needed() -> bool {
    getpid().is_init()
}

/// Runs this program once more, as a child, and returns its exit status.
///
/// # Errors
/// When the child can't be started.
pub(crate) fn run() -> io::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(async {
            // Before there is a child: the signals that come until then are kept.
            let mut ends = signal(SignalKind::child())?;
            let mut listeners = Vec::new();
            for kind in FORWARDED {
                listeners.push((kind, signal(SignalKind::from_raw(kind.as_raw()))?));
            }
            let child = start()?;
            for (kind, mut listener) in listeners {
                tokio::spawn(async move {
                    while listener.recv().await.is_some() {
                        // The child is not reaped yet, or this would not run.
                        let _ = kill_process(child, kind);
                    }
                });
            }
            loop {
                // First, because some may have ended before the handler was there.
                if let Some(status) = reap(child)? {
                    return Ok(status);
                }
                ends.recv().await;
            }
        })
}

fn start() -> io::Result<Pid> {
    let mut arguments = std::env::args_os();
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // Ctrl-C goes to the whole process group: in ours, the child would get it twice.
    let child = command.args(arguments).process_group(0).spawn()?;
    Ok(Pid::from_child(&child))
}

/// Reaps all that have ended; if the child has, its exit status.
fn reap(child: Pid) -> io::Result<Option<ExitCode>> {
    while let Some((id, status)) = wait(WaitOptions::NOHANG)? {
        if id == child {
            return Ok(Some(exit_code(status)));
        }
    }
    Ok(None)
}

/// 128 + the signal's number if one killed it, as shells do it.
fn exit_code(status: WaitStatus) -> ExitCode {
    let code = status
        .exit_status()
        .or_else(|| Some(128 + status.terminating_signal()?));
    let code = code.and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
