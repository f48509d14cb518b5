//! Shutdown on signals.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code of a process that a signal has ended is this plus the signal's number.
const ENDED_BY_SIGNAL: i32 = 128;

/// Cancels `stop` at the first SIGTERM or SIGINT, and exits the process at the second. No signal is
/// missed once this has returned. Call it first: process 1 of a container is not even killed by a
/// signal that it has no handler for.
pub fn cancel_on_signal(stop: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut next = async move || {
        tokio::select! {
            _ = terminate.recv() => SignalKind::terminate(),
            _ = interrupt.recv() => SignalKind::interrupt(),
        }
    };
    tokio::spawn(async move {
        next().await;
        // First, so that it is true when it is told.
        stop.cancel();
        tracing::info!("stopping: starting no new work, finishing what runs");
        let again = next().await;
        tracing::warn!("second signal: exiting at once");
        std::process::exit(ENDED_BY_SIGNAL + again.as_raw_value());
    });
    Ok(())
}
