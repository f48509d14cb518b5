//! Answering a connection's requests, and telling how far each one has come.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::time::Instant;

use super::Connection;

/// Has the app answer a request.
pub(crate) async fn respond(
    app: TowerToHyperService<Router>,
    request: Request<Incoming>,
    address: SocketAddr,
    connection: Connection,
) -> Result<Response<ResponseBody>, Infallible> {
    if !connection.begin_response() {
        return closing().await;
    }
    let since = Instant::now();
    let waiting = connection.clone();
    let mut request = request.map(|body| RequestBody {
        body,
        since,
        connection: waiting,
    });
    request.extensions_mut().insert(ConnectInfo(address));
    let response = app.call(request).await?;
    Ok(response.map(|body| ResponseBody { body, connection }))
}

/// Nothing more is done for a connection that is to be closed: its task ends as soon
/// as it is woken.
async fn closing<T>() -> T {
    std::future::pending().await
}

/// A request's body, which tells when it is waited for.
#[derive(Debug)]
struct RequestBody {
    body: Incoming,
    since: Instant,
    connection: Connection,
}

impl hyper::body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match frame {
            Poll::Pending => self.connection.body_pending(self.since),
            // As in `closing`: the request must not be carried out.
            Poll::Ready(None) if !self.connection.body_received() => return Poll::Pending,
            Poll::Ready(_) => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.connection.body_received();
    }
}

/// An answer's body, which tells when it is whole.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    body: Body,
    connection: Connection,
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.connection.response_ready();
    }
}
