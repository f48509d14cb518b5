//! How many connections there may be, and how long they may wait for their clients.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Semaphore;

use crate::config::{Config, TrustedProxy};

/// How long a client may take for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be idle after a response, and how long its client may take to read any
/// more of one. Longer than proxies commonly keep a connection: if they close it first, no request
/// of theirs meets a closed one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// No more files are opened than this, though the system may allow any number.
const MAX_OPEN_FILES: u64 = 65_536;

/// Open files that connections leave to everything else, mostly the database.
const RESERVED_FILES: u64 = 64;

/// Raises the soft limit of open files to the hard one. The limit that a process starts with is
/// lower, for the sake of programs that use `select`.
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
    /// How long the head of a request may take; and how long a client may read nothing of a
    /// response before it can be evicted.
    pub head_timeout: Duration,
    /// How long a connection may be idle, or its client not read what it is sent.
    pub idle_timeout: Duration,
    /// Who may have any number of connections: all their clients come from there.
    pub trusted_proxies: Vec<TrustedProxy>,
}

impl ConnectionLimits {
    /// The limits of an API with these settings: as many connections as there may be open files,
    /// except for the reserved ones.
    pub fn new(config: &Config) -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let max_connections = usize::try_from(files.saturating_sub(RESERVED_FILES))
            .unwrap_or(usize::MAX)
            .clamp(1, Semaphore::MAX_PERMITS);
        ConnectionLimits {
            max_connections,
            max_per_address: max_per_address(config.max_connections_per_address, max_connections),
            head_timeout: HEAD_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            trusted_proxies: config.trusted_proxies.clone(),
        }
    }
}

/// Whatever is set, one address leaves half of all connections to the others.
fn max_per_address(wanted: u32, max_connections: usize) -> usize {
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    wanted.min(max_connections / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leaves_half_of_all_connections_whatever_is_set() {
        assert_eq!(max_per_address(512, 20_000), 512);
        assert_eq!(max_per_address(512, 960), 480);
        assert_eq!(max_per_address(u32::MAX, 3), 1);
        assert_eq!(max_per_address(512, 1), 1);
    }
}
