//! Being told to stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell tells of a process that a signal has ended.
const ENDED_BY_SIGNAL: i32 = 128;

/// Cancels `stop` at the first SIGTERM or SIGINT, and ends the process at the
/// second. From when this returns no signal is missed; so it comes first of all, for
/// process 1 of a container is not even killed by a signal that nobody listens for.
///
/// # Errors
/// When the system does not let us listen.
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
        tracing::info!("stopping: nothing new is begun, what is under way may end");
        stop.cancel();
        let again = next().await;
        tracing::warn!("stopping at once, for a second signal came");
        std::process::exit(ENDED_BY_SIGNAL + again.as_raw_value());
    });
    Ok(())
}
