//! Connection limits: how many may be open, what each of them waits for, and which one is closed to
//! admit another.
//!
//! Half a request costs a client nothing, so a few clients could occupy every slot. No network gets
//! more than its share, and a client that keeps the server waiting loses its slot to one that needs
//! it. A request that is being answered is never given up for that, unless its client does not read
//! the response.

mod limits;
mod open_connections;
mod phase;
mod service;
mod stream;
mod table;

pub use limits::{ConnectionLimits, raise_open_file_limit};
pub(crate) use service::respond;
pub(crate) use stream::ConnectionStream;
pub(crate) use table::{ConnectionSlot, ConnectionTable};
