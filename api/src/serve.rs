//! Serving connections, so that none whose client falls silent is kept for ever.

use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;
use tower_http::add_extension::AddExtension;

/// How long a client may take to say what it wants, to read any more of what it is
/// sent, or to want nothing after it was answered. Longer than proxies commonly keep
/// a connection for further use: if they let go of it first, no request of theirs
/// meets a closed one.
pub const PATIENCE: Duration = Duration::from_secs(75);

/// Serves until `stop`, and then what has been begun. A connection is closed when
/// its request has no complete head after `patience`, when nothing of its answer
/// can be sent for as long, or when it is idle for as long. An answer itself may
/// come as slowly as it likes.
pub async fn serve(
    mut listener: TcpListener,
    app: Router,
    patience: Duration,
    stop: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience);
    let open = GracefulShutdown::new();
    loop {
        let (stream, address) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
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
        });
    }
    drop(listener);
    open.shutdown().await;
}
