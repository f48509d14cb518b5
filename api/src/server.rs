//! Serves connections, with timeouts and limits that `connections` keeps.

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

/// The limit for the head of a request, and the size of the read buffer.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Serves until `stop`, and then completes the requests in progress. A connection is closed when
/// the head of its request takes too long, when nothing of its response can be sent for too long,
/// or when it is idle for too long. A response itself may come as slowly as it likes.
///
/// At the limit, those connections are closed that have waited longest for their clients, which
/// includes clients that do not read a response. While all are being answered new ones wait, or are
/// closed if all are of their own address.
pub async fn serve(
    mut listener: TcpListener,
    app: Router,
    limits: ConnectionLimits,
    stop: CancellationToken,
) {
    let mut http = http1::Builder::new();
    // It would count idle time, too. The stream has timeouts of its own.
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
        let (stream, address, slot) = tokio::select! {
            next = next => next,
            () = stop.cancelled() => break,
        };
        let Some(slot) = slot else {
            tracing::debug!(%address, "connection refused: too many from this address");
            continue;
        };
        tracing::trace!(%address, "connection accepted");
        let stream = ConnectionStream::new(stream, slot.connection(), write_timeout);
        let app = app.clone();
        let connection = slot.connection();
        let service =
            service_fn(move |request| respond(app.clone(), request, address, connection.clone()));
        let served = open.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(run_connection(served, slot));
    }
    drop(listener);
    open.shutdown().await;
}

/// Serves a connection until it ends or is evicted.
async fn run_connection(served: impl Future<Output = hyper::Result<()>>, slot: ConnectionSlot) {
    tokio::select! {
        // Once it is evicted, nothing more is begun.
        biased;
        () = slot.evicted() => tracing::debug!("connection evicted in favour of another"),
        ended = served => if let Err(error) = ended {
            tracing::debug!(%error, "connection failed");
        }
    }
}
