//! The table of open connections, which admits new ones and evicts others for them.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{AcquireError, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::limits::ConnectionLimits;
use super::open_connections::OpenConnections;
use super::phase::Phase;
use crate::middleware::client_ip::{ip_prefix, is_trusted};

/// All open connections.
#[derive(Debug)]
pub(crate) struct ConnectionTable {
    limits: ConnectionLimits,
    slots: Arc<Semaphore>,
    open: Mutex<OpenConnections>,
    /// Notified when a connection begins to wait for its client.
    begins_to_wait: Notify,
}

/// An error only if the semaphore were closed, which it never is.
type Permit = Result<OwnedSemaphorePermit, AcquireError>;

impl ConnectionTable {
    pub(crate) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(ConnectionTable {
            slots: Arc::new(Semaphore::new(limits.max_connections)),
            limits,
            open: Mutex::default(),
            begins_to_wait: Notify::new(),
        })
    }

    /// A slot for a new connection from this address, for which another one may be closed. None if
    /// its network has all slots that it may have, and all its requests are being answered. Waits
    /// while those of everybody are.
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
        self.open().count(network) >= self.limits.max_per_address
    }

    /// A free slot, or that of the connection that has waited longest.
    async fn evict_for_slot(&self) -> Permit {
        loop {
            if let Ok(permit) = self.slots.clone().try_acquire_owned() {
                return Ok(permit);
            }
            if self.open().close_longest_waiting(None) {
                return self.next_slot().await;
            }
            let next = self.open().longest_waiting_since();
            tokio::select! {
                permit = self.next_slot() => return permit,
                () = self.begins_to_wait.notified() => {}
                () = until(next) => {}
            }
        }
    }

    /// The next slot that is free. A connection that is closed still has its slot, and an open
    /// file, until the task that serves it has ended.
    async fn next_slot(&self) -> Permit {
        self.slots.clone().acquire_owned().await
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

/// A connection's slot, which is free again when this is dropped.
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

/// An open connection's entry in the table. Its stream reports what is received and sent; its
/// service, how far each request is.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    table: Arc<ConnectionTable>,
    id: u64,
}

impl Connection {
    /// When the client has been waited for long enough; None if it may take its time, or another
    /// timeout applies.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.table.open().phase(self.id) {
            Phase::Head(since) => Some(since + self.table.limits.head_timeout),
            Phase::Idle(since) => Some(since + self.table.limits.idle_timeout),
            _ => None,
        }
    }

    /// From when on the client is waited for, if it reads nothing from now on.
    pub(super) fn read_deadline(&self) -> Instant {
        Instant::now() + self.table.limits.head_timeout
    }

    /// Moves the connection to its next phase. False if it is closing, and stays so.
    pub(super) fn advance(&self, next: impl FnOnce(Phase) -> Phase) -> bool {
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
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const TWO: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    fn table(max_connections: usize, max_per_address: usize) -> Arc<ConnectionTable> {
        ConnectionTable::new(ConnectionLimits {
            max_connections,
            max_per_address,
            head_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(5),
            trusted_proxies: Vec::new(),
        })
    }

    fn evicted(slot: &ConnectionSlot) -> bool {
        slot.closing.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_bit_by_bit_is_waited_for_since_its_request_began() {
        let table = table(2, 2);
        let slow = table.admit(ONE).await.unwrap();
        let body = slow.connection();
        assert!(body.advance(Phase::begin_response));
        let since = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let other = table.admit(TWO).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..3 {
            body.advance(Phase::bytes_received);
            body.advance(|phase| phase.body_pending(since));
        }
        assert!(table.open().close_longest_waiting(None));
        assert!(evicted(&slow) && !evicted(&other));
    }

    #[tokio::test]
    async fn what_is_begun_too_late_is_not_begun() {
        let table = table(2, 2);
        let slot = table.admit(ONE).await.unwrap();
        let connection = slot.connection();
        assert!(table.open().close_longest_waiting(None));
        assert!(!connection.advance(Phase::begin_response));
        connection.advance(Phase::flushed);
        assert!(!connection.advance(Phase::body_received));
        assert!(!table.open().close_longest_waiting(None));
    }

    #[tokio::test]
    async fn nothing_is_kept_of_connections_that_have_ended() {
        let table = table(4, 2);
        for peer in [ONE, ONE, ONE, TWO] {
            let slot = table.admit(peer).await.unwrap();
            slot.connection().advance(Phase::begin_response);
        }
        let slots = [table.admit(ONE).await, table.admit(TWO).await];
        assert!(table.open().close_longest_waiting(Some(ONE)));
        drop(slots);
        assert!(table.open().is_empty());
        assert_eq!(table.slots.available_permits(), 4);
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
