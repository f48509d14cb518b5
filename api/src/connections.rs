//! Which connections are open, what each of them waits for, and which one is
//! closed when there is no place for another.
//!
//! Half a request costs a client nothing, so a few clients could take all places.
//! No network gets more than its share, and no place is held by who keeps the
//! server waiting while somebody else wants it. A request that is being answered
//! is never given up for that, unless its client does not read the answer.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{AcquireError, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, TrustedProxy};
use crate::middleware::client_ip::{ip_prefix, is_trusted};

mod service;
mod stream;

pub(crate) use service::respond;
pub(crate) use stream::ConnectionStream;

/// How long a client may take for the head of a request.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may want nothing after it was answered, and take to read any
/// more of what it is sent. Longer than proxies commonly keep a connection for
/// further use: if they let go of it first, no request of theirs meets a closed one.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// No more files are opened than this, though the system may allow any number.
const MAX_OPEN_FILES: u64 = 65_536;

/// Open files that connections leave to all else, which is the database above all.
const RESERVED_FILES: u64 = 64;

/// Lets us open as many files as the system's administrators allow. The limit that
/// a process starts with is lower, for the sake of programs that use `select`.
///
/// # Errors
/// When the system refuses.
pub fn raise_open_file_limit() -> std::io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(u64::MAX).min(MAX_OPEN_FILES);
    if current.is_some_and(|current| current < wanted) {
        let current = Some(wanted);
        setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    }
    Ok(())
}

/// How many connections there may be, and how long they may wait for their clients.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// How many connections there may be at once.
    pub max_connections: usize,
    /// How many of them one address may have, or one network of IPv6.
    pub max_per_address: usize,
    /// How long the head of a request may take, and its client not read what it is
    /// sent if others want the place.
    pub head_timeout: Duration,
    /// How long a connection may be idle, or its client not read what it is sent.
    pub idle_timeout: Duration,
    /// Who may have any number of connections: all their clients come from there.
    pub trusted_proxies: Vec<TrustedProxy>,
}

impl ConnectionLimits {
    /// The limits of an API with these settings: as many connections as the system
    /// lets us open files, but for those that are reserved.
    pub fn new(config: &Config) -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let max_connections = usize::try_from(files.saturating_sub(RESERVED_FILES))
            .unwrap_or(usize::MAX)
            .clamp(1, Semaphore::MAX_PERMITS);
        let wanted = config.max_connections_per_address;
        ConnectionLimits {
            max_connections,
            max_per_address: max_per_address(wanted, max_connections),
            head_timeout: HEAD_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            trusted_proxies: config.trusted_proxies.clone(),
        }
    }
}

/// Whatever is set, one address leaves half of all places to the others.
fn max_per_address(wanted: u32, max_connections: usize) -> usize {
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    wanted.min(max_connections / 2).max(1)
}

/// Where a connection is between one request and the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No byte of a request has come since then.
    Idle(Instant),
    /// The head of a request has begun to come then, and is not whole.
    Head(Instant),
    /// The body of a request that began then is wanted, and does not come.
    Body(Instant),
    /// A request is being answered. If its client does not read what it is sent, the
    /// client is waited for from that time on.
    Answer(Option<Instant>),
    /// The answer is whole, but not all of it is sent. The rest is as before.
    Flush(Option<Instant>),
    /// The connection is closed to make place for another.
    Closing,
}

impl Phase {
    /// Since when the client has been waited for, or will be; None if it is not.
    fn waits_since(self) -> Option<Instant> {
        match self {
            Phase::Idle(since) | Phase::Head(since) | Phase::Body(since) => Some(since),
            Phase::Answer(unread) | Phase::Flush(unread) => unread,
            Phase::Closing => None,
        }
    }
}

/// All open connections.
#[derive(Debug)]
pub(crate) struct ConnectionTable {
    limits: ConnectionLimits,
    places: Arc<Semaphore>,
    open: Mutex<OpenConnections>,
    /// Told when a connection begins to wait for its client.
    begins_to_wait: Notify,
}

impl ConnectionTable {
    pub(crate) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(ConnectionTable {
            places: Arc::new(Semaphore::new(limits.max_connections)),
            limits,
            open: Mutex::default(),
            begins_to_wait: Notify::new(),
        })
    }

    /// A place for a new connection from this address, for which another one may be
    /// closed. None if its network has all places that it may have, and all its
    /// requests are being answered. Waits while all requests of everybody are.
    ///
    /// Only one may ask at a time.
    pub(crate) async fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<ConnectionSlot> {
        let is_limited = !is_trusted(&self.limits.trusted_proxies, peer);
        let network = is_limited.then(|| ip_prefix(peer));
        let permit = if network.is_some_and(|network| self.is_at_limit(network)) {
            if !self.open().close_longest_waiting(network) {
                return None;
            }
            self.next_slot().await
        } else {
            self.evict_for_slot().await
        };
        let (id, closing) = self.open().add(network);
        let table = self.clone();
        Some(ConnectionSlot {
            connection: Connection { table, id },
            closing,
            _permit: permit,
        })
    }

    fn is_at_limit(&self, network: IpAddr) -> bool {
        let open = self.open();
        let network = open.networks.get(&network);
        network.is_some_and(|network| network.open >= self.limits.max_per_address)
    }

    /// A free place, or that of the connection that has waited longest.
    async fn evict_for_slot(&self) -> Permit {
        loop {
            if let Ok(permit) = self.places.clone().try_acquire_owned() {
                return Ok(permit);
            }
            if self.open().close_longest_waiting(None) {
                return self.next_slot().await;
            }
            let next = self.open().waiting.first().map(|(since, _)| *since);
            tokio::select! {
                permit = self.next_slot() => return permit,
                () = self.begins_to_wait.notified() => {}
                () = until(next) => {}
            }
        }
    }

    /// The next place that is free. A connection that is closed still has its place,
    /// and an open file, until the task that serves it has ended.
    async fn next_slot(&self) -> Permit {
        self.places.clone().acquire_owned().await
    }

    fn open(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Never, if no time is given.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// An error only if the semaphore were closed, which it never is.
type Permit = Result<OwnedSemaphorePermit, AcquireError>;

/// Connections by the time since when their client has been waited for.
type Waiting = BTreeSet<(Instant, u64)>;

#[derive(Debug, Default)]
struct OpenConnections {
    next_id: u64,
    entries: HashMap<u64, Entry>,
    waiting: Waiting,
    networks: HashMap<IpAddr, Network>,
}

#[derive(Debug)]
struct Entry {
    /// None if its connections are not limited.
    network: Option<IpAddr>,
    phase: Phase,
    closing: CancellationToken,
}

/// A network's connections, but for those that are closing.
#[derive(Debug, Default)]
struct Network {
    open: usize,
    waiting: Waiting,
}

impl OpenConnections {
    /// Adds a connection, from which the head of a request is awaited at once.
    fn add(&mut self, network: Option<IpAddr>) -> (u64, CancellationToken) {
        let id = self.next_id;
        self.next_id += 1;
        let closing = CancellationToken::new();
        let entry = Entry {
            network,
            phase: Phase::Answer(None),
            closing: closing.clone(),
        };
        self.entries.insert(id, entry);
        if let Some(network) = network {
            self.networks.entry(network).or_default().open += 1;
        }
        self.set_phase(id, Phase::Head(Instant::now()));
        (id, closing)
    }

    fn phase(&self, id: u64) -> Phase {
        let entry = self.entries.get(&id);
        entry.map_or(Phase::Closing, |entry| entry.phase)
    }

    fn set_phase(&mut self, id: u64, phase: Phase) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut entry.phase, phase);
        let network = entry.network.and_then(|of| self.networks.get_mut(&of));
        let of_network = network.map(|network| &mut network.waiting);
        for waiting in [Some(&mut self.waiting), of_network].into_iter().flatten() {
            if let Some(since) = before.waits_since() {
                waiting.remove(&(since, id));
            }
            if let Some(since) = phase.waits_since() {
                waiting.insert((since, id));
            }
        }
    }

    /// Has the connection closed, of a network or of all, that has waited longest
    /// for its client. False if none waits.
    fn close_longest_waiting(&mut self, network: Option<IpAddr>) -> bool {
        let waiting = match network {
            Some(network) => self.networks.get(&network).map(|of| &of.waiting),
            None => Some(&self.waiting),
        };
        let first = waiting.and_then(BTreeSet::first).copied();
        let Some((_, id)) = first.filter(|(since, _)| *since <= Instant::now()) else {
            return false;
        };
        self.end_phase(id);
        if let Some(entry) = self.entries.get(&id) {
            entry.closing.cancel();
        }
        true
    }

    fn remove(&mut self, id: u64) {
        self.end_phase(id);
        self.entries.remove(&id);
    }

    /// From now on a connection neither waits nor counts.
    fn end_phase(&mut self, id: u64) {
        self.set_phase(id, Phase::Closing);
        let entry = self.entries.get_mut(&id);
        let Some(address) = entry.and_then(|entry| entry.network.take()) else {
            return;
        };
        if let Some(network) = self.networks.get_mut(&address) {
            network.open -= 1;
            if network.open == 0 {
                self.networks.remove(&address);
            }
        }
    }
}

/// A connection's place, which is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    connection: Connection,
    closing: CancellationToken,
    _permit: Permit,
}

impl ConnectionSlot {
    pub(crate) fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// Waits until the connection is to be closed.
    pub(crate) async fn evicted(&self) {
        self.closing.cancelled().await;
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.connection.table.open().remove(self.connection.id);
    }
}

/// Tells the table what becomes of a connection. What comes from its client, and is
/// sent there, passes by [`ConnectionStream`]; the rest is told by [`respond`].
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    table: Arc<ConnectionTable>,
    id: u64,
}

impl Connection {
    /// When the client has been waited for long enough; None if it may take its time,
    /// or somebody else looks at the clock.
    fn deadline(&self) -> Option<Instant> {
        match self.table.open().phase(self.id) {
            Phase::Head(since) => Some(since + self.table.limits.head_timeout),
            Phase::Idle(since) => Some(since + self.table.limits.idle_timeout),
            _ => None,
        }
    }

    /// Bytes have come from the client.
    fn bytes_received(&self) {
        self.advance(|phase| match phase {
            Phase::Idle(_) => Phase::Head(Instant::now()),
            other => other,
        });
    }

    /// The head of a request is whole. False if it is too late, and the request must
    /// not be begun.
    fn begin_response(&self) -> bool {
        self.advance(|phase| match phase {
            // The one before is not all sent.
            Phase::Answer(unread) | Phase::Flush(unread) => Phase::Answer(unread),
            _ => Phase::Answer(None),
        })
    }

    /// The body of the request that began at `since` is wanted, and does not come.
    /// However many bytes come then, the client has been waited for since `since`
    /// until the body is whole: who sends a byte now and then gains nothing.
    fn body_pending(&self, since: Instant) {
        self.advance(|phase| match phase {
            Phase::Answer(_) => Phase::Body(since),
            other => other,
        });
    }

    /// The body of the request is whole, or no longer wanted. False if it is too late,
    /// and the request must not be gone on with.
    fn body_received(&self) -> bool {
        self.advance(|phase| match phase {
            Phase::Body(_) => Phase::Answer(None),
            other => other,
        })
    }

    /// The answer is whole, and is to be sent.
    fn response_ready(&self) {
        self.advance(|phase| match phase {
            Phase::Answer(unread) => Phase::Flush(unread),
            Phase::Body(_) => Phase::Flush(None),
            other => other,
        });
    }

    /// Nothing more of the answer can be sent, for its client does not read. A while
    /// later it is one that is waited for.
    fn write_blocked(&self) {
        let later = Instant::now() + self.table.limits.head_timeout;
        self.advance(|phase| match phase {
            Phase::Answer(None) => Phase::Answer(Some(later)),
            Phase::Flush(None) => Phase::Flush(Some(later)),
            other => other,
        });
    }

    /// Some more of the answer is sent.
    fn write_progressed(&self) {
        self.advance(|phase| match phase {
            Phase::Answer(_) => Phase::Answer(None),
            Phase::Flush(_) => Phase::Flush(None),
            other => other,
        });
    }

    /// All that was to be sent is sent.
    fn flushed(&self) {
        self.advance(|phase| match phase {
            Phase::Flush(_) => Phase::Idle(Instant::now()),
            other => other,
        });
    }

    /// False if the connection is closing, and remains so.
    fn advance(&self, next: impl FnOnce(Phase) -> Phase) -> bool {
        let mut open = self.table.open();
        let phase = open.phase(self.id);
        if phase == Phase::Closing {
            return false;
        }
        let next = next(phase);
        if next != phase {
            open.set_phase(self.id, next);
        }
        drop(open);
        if next != phase && next.waits_since().is_some() {
            self.table.begins_to_wait.notify_one();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn table(max_connections: usize, max_per_address: usize) -> Arc<ConnectionTable> {
        ConnectionTable::new(ConnectionLimits {
            max_connections,
            max_per_address,
            head_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(5),
            trusted_proxies: Vec::new(),
        })
    }

    fn evicted(place: &ConnectionSlot) -> bool {
        place.closing.is_cancelled()
    }

    #[test]
    fn an_address_leaves_half_of_all_places_whatever_is_set() {
        assert_eq!(max_per_address(512, 20_000), 512);
        assert_eq!(max_per_address(512, 960), 480);
        assert_eq!(max_per_address(u32::MAX, 3), 1);
        assert_eq!(max_per_address(512, 1), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_bit_by_bit_is_waited_for_since_its_request_began() {
        let table = table(2, 2);
        let slow = table.admit(ONE).await.unwrap();
        let body = slow.connection();
        assert!(body.begin_response());
        let since = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let other = table.admit(TWO).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..3 {
            body.bytes_received();
            body.body_pending(since);
        }
        assert!(table.open().close_longest_waiting(None));
        assert!(evicted(&slow) && !evicted(&other));
    }

    #[tokio::test]
    async fn what_is_begun_too_late_is_not_begun() {
        let table = table(2, 2);
        let place = table.admit(ONE).await.unwrap();
        let connection = place.connection();
        assert!(table.open().close_longest_waiting(None));
        assert!(!connection.begin_response());
        connection.flushed();
        assert!(!connection.body_received());
        assert!(!table.open().close_longest_waiting(None));
    }

    #[tokio::test]
    async fn nothing_is_kept_of_connections_that_have_ended() {
        let table = table(4, 2);
        for peer in [ONE, ONE, ONE, TWO] {
            let place = table.admit(peer).await.unwrap();
            place.connection().begin_response();
        }
        let places = [table.admit(ONE).await, table.admit(TWO).await];
        assert!(table.open().close_longest_waiting(Some(ONE)));
        drop(places);
        let open = table.open();
        assert!(open.entries.is_empty() && open.waiting.is_empty() && open.networks.is_empty());
        assert_eq!(table.places.available_permits(), 4);
    }

    #[tokio::test]
    async fn a_network_of_ipv6_is_one_address() {
        let table = table(4, 1);
        let admit = async |peer: &str| table.admit(peer.parse().unwrap()).await.unwrap();
        let first = admit("2001:db8:1:2::1").await;
        let other = admit("2001:db8:1:3::1").await;
        let second = admit("2001:db8:1:2::2").await;
        assert!(evicted(&first));
        assert!(!evicted(&other) && !evicted(&second));
    }
}
