//! The states of a connection, and what moves it from one to the next.

use tokio::time::Instant;

/// Where a connection is between one request and the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No byte of a request has come since then.
    Idle(Instant),
    /// The head of a request has begun to come then, and is not complete.
    Head(Instant),
    /// The body of a request that began then is wanted, and does not come.
    Body(Instant),
    /// A request is being answered. If its client does not read the response, the client is waited
    /// for from that time on.
    Response(Option<Instant>),
    /// The response is complete, but not all of it is sent. The rest is as before.
    Flush(Option<Instant>),
    /// The connection is being closed in favour of another.
    Closing,
}

impl Phase {
    /// Since when the client has been waited for, or will be; None if it is not.
    pub(super) fn waits_since(self) -> Option<Instant> {
        match self {
            Phase::Idle(since) | Phase::Head(since) | Phase::Body(since) => Some(since),
            Phase::Response(unread) | Phase::Flush(unread) => unread,
            Phase::Closing => None,
        }
    }

    pub(super) fn bytes_received(self) -> Self {
        match self {
            Phase::Idle(_) => Phase::Head(Instant::now()),
            other => other,
        }
    }

    /// The head of a request is complete.
    pub(super) fn begin_response(self) -> Self {
        match self {
            // The response before is not all sent.
            Phase::Response(unread) | Phase::Flush(unread) => Phase::Response(unread),
            _ => Phase::Response(None),
        }
    }

    /// The body of the request that began at `since` is wanted, and does not come. However many
    /// bytes come then, the client has been waited for since `since` until the body is complete:
    /// sending a byte now and then gains nothing.
    pub(super) fn body_pending(self, since: Instant) -> Self {
        match self {
            Phase::Response(_) => Phase::Body(since),
            other => other,
        }
    }

    /// The body of the request is complete, or no longer wanted.
    pub(super) fn body_received(self) -> Self {
        match self {
            Phase::Body(_) => Phase::Response(None),
            other => other,
        }
    }

    pub(super) fn response_ready(self) -> Self {
        match self {
            Phase::Response(unread) => Phase::Flush(unread),
            Phase::Body(_) => Phase::Flush(None),
            other => other,
        }
    }

    /// Nothing more of the response can be sent, for its client does not read. From `deadline` on
    /// the client is waited for.
    pub(super) fn write_blocked(self, deadline: Instant) -> Self {
        match self {
            Phase::Response(None) => Phase::Response(Some(deadline)),
            Phase::Flush(None) => Phase::Flush(Some(deadline)),
            other => other,
        }
    }

    pub(super) fn write_progressed(self) -> Self {
        match self {
            Phase::Response(_) => Phase::Response(None),
            Phase::Flush(_) => Phase::Flush(None),
            other => other,
        }
    }

    /// All that was to be sent is sent.
    pub(super) fn flushed(self) -> Self {
        match self {
            Phase::Flush(_) => Phase::Idle(Instant::now()),
            other => other,
        }
    }
}
