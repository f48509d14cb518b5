//! The open connections, ordered by how long each has waited for its client.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::phase::Phase;

/// Connections by the time since when their client has been waited for.
type Waiting = BTreeSet<(Instant, u64)>;

#[derive(Debug, Default)]
pub(super) struct OpenConnections {
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

/// A network's connections, except for those that are closing.
#[derive(Debug, Default)]
struct Network {
    open: usize,
    waiting: Waiting,
}

impl OpenConnections {
    /// Adds a connection, from which the head of a request is awaited at once.
    pub(super) fn add(&mut self, network: Option<IpAddr>) -> (u64, CancellationToken) {
        let id = self.next_id;
        self.next_id += 1;
        let closing = CancellationToken::new();
        let entry = Entry {
            network,
            phase: Phase::Response(None),
            closing: closing.clone(),
        };
        self.entries.insert(id, entry);
        if let Some(network) = network {
            self.networks.entry(network).or_default().open += 1;
        }
        self.set_phase(id, Phase::Head(Instant::now()));
        (id, closing)
    }

    /// How many connections a network has.
    pub(super) fn count(&self, network: IpAddr) -> usize {
        self.networks
            .get(&network)
            .map_or(0, |network| network.open)
    }

    /// Since when the client has been waited for that has been for longest.
    pub(super) fn longest_waiting_since(&self) -> Option<Instant> {
        self.waiting.first().map(|(since, _)| *since)
    }

    pub(super) fn phase(&self, id: u64) -> Phase {
        let entry = self.entries.get(&id);
        entry.map_or(Phase::Closing, |entry| entry.phase)
    }

    pub(super) fn set_phase(&mut self, id: u64, phase: Phase) {
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

    /// Closes the connection, of a network or of all, that has waited longest for its client. False
    /// if none waits.
    pub(super) fn close_longest_waiting(&mut self, network: Option<IpAddr>) -> bool {
        let waiting = match network {
            Some(network) => self.networks.get(&network).map(|of| &of.waiting),
            None => Some(&self.waiting),
        };
        let first = waiting.and_then(BTreeSet::first).copied();
        let Some((_, id)) = first.filter(|(since, _)| *since <= Instant::now()) else {
            return false;
        };
        self.begin_closing(id);
        if let Some(entry) = self.entries.get(&id) {
            entry.closing.cancel();
        }
        true
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.begin_closing(id);
        self.entries.remove(&id);
    }

    /// From now on a connection neither waits nor counts.
    fn begin_closing(&mut self, id: u64) {
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

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.waiting.is_empty() && self.networks.is_empty()
    }
}
