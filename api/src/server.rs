//! Serving connections, so that none whose client falls silent is kept for ever,
//! and none of them keeps others out.

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::connections::{
    ConnectionLimits, ConnectionSlot, ConnectionStream, ConnectionTable, respond,
};

/// How large the head of a request may be, and how much of a body is read ahead.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Serves until `stop`, and then what has been begun. A connection is closed when
/// the head of its request takes too long, when nothing of its answer can be sent
/// for too long, or when it is idle for too long. An answer itself may come as
/// slowly as it likes.
///
/// Of more connections than there may be, those are closed that have waited longest
/// for their clients. While all are being answered the others wait, or are closed if
/// all are of their own address. Whoever does not read an answer is waited for, too.
pub async fn serve(
    mut listener: TcpListener,
    app: Router,
    limits: ConnectionLimits,
    stop: CancellationToken,
) {
    let mut http = http1::Builder::new();
    // It would count the time that a connection is idle, too. The stream does better.
    http.header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES);
    let app = TowerToHyperService::new(app);
    let write_timeout = limits.idle_timeout;
    let table = ConnectionTable::new(limits);
    let open = GracefulShutdown::new();
    loop {
        let next = async {
            let (stream, address) = Listener::accept(&mut listener).await;
            (stream, address, table.admit(address.ip()).await)
        };
        let (stream, address, place) = tokio::select! {
            next = next => next,
            () = stop.cancelled() => break,
        };
        let Some(place) = place else {
            tracing::debug!(%address, "a client has too many connections");
            continue;
        };
        tracing::trace!(%address, "a client connects");
        let stream = ConnectionStream::new(stream, place.connection(), write_timeout);
        let (app, connection) = (app.clone(), place.connection());
        let service =
            service_fn(move |request| respond(app.clone(), request, address, connection.clone()));
        let served = open.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(run_connection(served, place));
    }
    drop(listener);
    open.shutdown().await;
}

/// Serves a connection until it ends, or its place is wanted for another.
async fn run_connection(served: impl Future<Output = hyper::Result<()>>, place: ConnectionSlot) {
    tokio::select! {
        // Once it is to be closed, nothing more is begun.
        biased;
        () = place.evicted() => tracing::debug!("a connection makes place for another"),
        ended = served => if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke off");
        }
    }
}
