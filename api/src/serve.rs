//! Serving connections, so that none whose client falls silent is kept for ever.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;
use tower_http::add_extension::AddExtension;

/// How long a client may take to say what it wants, to read any more of what it is
/// sent, or to want nothing after it was answered. Longer than proxies commonly keep
/// a connection for further use: if they let go of it first, no request of theirs
/// meets a closed one.
pub const PATIENCE: Duration = Duration::from_secs(75);

/// Open files that connections leave to all else, which is the database above all.
const KEPT: u64 = 64;

/// How many connections there may be at once: as many as the system lets us open
/// files, but for those that are kept.
pub fn most_connections() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let most = usize::try_from(files.saturating_sub(KEPT)).unwrap_or(usize::MAX);
    most.clamp(1, Semaphore::MAX_PERMITS)
}

/// Serves until `stop`, and then what has been begun. A connection is closed when
/// its request has no complete head after `patience`, when nothing of its answer
/// can be sent for as long, or when it is idle for as long. An answer itself may
/// come as slowly as it likes. Of more than `most` connections at once the others
/// wait until one is closed.
pub async fn serve(
    mut listener: TcpListener,
    app: Router,
    patience: Duration,
    most: usize,
    stop: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience);
    let open = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(most));
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, Listener::accept(&mut listener).await)
        };
        let (place, (stream, address)) = tokio::select! {
            next = next => next,
            () = stop.cancelled() => break,
        };
        tracing::trace!(%address, "a client connects");
        let app = AddExtension::new(app.clone(), ConnectInfo(address));
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(patience));
        let stream = TokioIo::new(Box::pin(stream));
        let connection = http.serve_connection(stream, TowerToHyperService::new(app));
        let connection = open.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke off");
            }
            drop(place);
        });
    }
    drop(listener);
    open.shutdown().await;
}
