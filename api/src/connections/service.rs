//! The HTTP service of a connection, which reports how far each request is.

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

use super::phase::Phase;
use super::table::Connection;

/// Answers a request with `app`.
pub(crate) async fn respond(
    app: TowerToHyperService<Router>,
    request: Request<Incoming>,
    address: SocketAddr,
    connection: Connection,
) -> Result<Response<ResponseBody>, Infallible> {
    if !connection.advance(Phase::begin_response) {
        // Nothing more is done for it: its task ends as soon as it is woken.
        return std::future::pending().await;
    }
    let since = Instant::now();
    let mut request = request.map(|body| RequestBody {
        body,
        since,
        connection: connection.clone(),
    });
    request.extensions_mut().insert(ConnectInfo(address));
    let response = app.call(request).await?;
    Ok(response.map(|body| ResponseBody { body, connection }))
}

/// A request's body, which reports when it is waited for.
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
            Poll::Pending => {
                let since = self.since;
                self.connection.advance(|phase| phase.body_pending(since));
            }
            // The request must not be carried out, as above.
            Poll::Ready(None) if !self.connection.advance(Phase::body_received) => {
                return Poll::Pending;
            }
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
        self.connection.advance(Phase::body_received);
    }
}

/// A response's body, which reports when it is complete.
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
        self.connection.advance(Phase::response_ready);
    }
}
