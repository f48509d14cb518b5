//! The client's address: rate limits and login throttling count by it, and users and admins see it.
//!
//! Behind proxies every connection comes from a proxy. Each appends the address of its own client
//! to `X-Forwarded-For`. So the list is read from its end: as long as an address is a trusted
//! proxy's, the one that it appended is believed. The client may have invented all before that.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::Response;

use crate::config::TrustedProxy;
use crate::state::AppState;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientIp(pub IpAddr);

/// Middleware: adds a [`ClientIp`] to the request's extensions.
pub(crate) async fn client_ip(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let connection = request.extensions().get::<ConnectInfo<SocketAddr>>();
    if let Some(ConnectInfo(peer)) = connection {
        let trusted = &state.config.trusted_proxies;
        let address = resolve_client_ip(trusted, peer.ip(), request.headers());
        request.extensions_mut().insert(address);
    }
    next.run(request).await
}

fn resolve_client_ip(trusted: &[TrustedProxy], peer: IpAddr, headers: &HeaderMap) -> ClientIp {
    let fields = headers.get_all(FORWARDED_FOR).iter().rev();
    let mut listed = fields.flat_map(|field| field.as_bytes().rsplit(|byte| *byte == b','));
    let mut address = peer.to_canonical();
    while is_trusted(trusted, address) {
        let Some(before) = listed.next().and_then(parse_forwarded_ip) else {
            break;
        };
        address = before;
    }
    ClientIp(address)
}

pub(crate) fn is_trusted(trusted: &[TrustedProxy], address: IpAddr) -> bool {
    trusted.iter().any(|proxy| proxy.contains(address))
}

/// An address as proxies write it, some of them with a port.
fn parse_forwarded_ip(listed: &[u8]) -> Option<IpAddr> {
    let listed = str::from_utf8(listed).ok()?.trim();
    let with_port = || listed.parse::<SocketAddr>().map(|address| address.ip());
    let bare = listed.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<IpAddr>().or_else(|_| with_port()).ok()?;
    Some(address.to_canonical())
}

/// The /64 network of an IPv6 address, whose addresses all belong to one client.
pub(crate) fn ip_prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whom a connection from `peer` with these fields is taken for, if 10.0.0.0/8
    /// and 2001:db8::1 are trusted.
    fn taken_for(peer: &str, fields: &[&str]) -> String {
        let trusted = ["10.0.0.0/8", " 2001:db8::1"].map(|proxies| proxies.parse().unwrap());
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(FORWARDED_FOR, field.parse().unwrap());
        }
        resolve_client_ip(&trusted, peer.parse().unwrap(), &headers)
            .0
            .to_string()
    }

    #[test]
    fn who_is_no_trusted_proxy_is_not_believed() {
        assert_eq!(taken_for("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(taken_for("2001:db8::2", &["198.51.100.7"]), "2001:db8::2");
    }

    #[test]
    fn the_last_that_is_no_trusted_proxy_is_the_client() {
        assert_eq!(taken_for("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(taken_for("2001:db8::1", &["2001:db8::7"]), "2001:db8::7");
        let invented = "127.0.0.1, 10.9.9.9, 198.51.100.7, 10.0.0.2";
        assert_eq!(taken_for("10.0.0.1", &[invented]), "198.51.100.7");
        let of_two = ["127.0.0.1", "198.51.100.7,10.0.0.2"];
        assert_eq!(taken_for("::ffff:10.0.0.1", &of_two), "198.51.100.7");
    }

    #[test]
    fn a_port_and_brackets_are_left_out() {
        assert_eq!(
            taken_for("10.0.0.1", &["198.51.100.7:4711"]),
            "198.51.100.7"
        );
        assert_eq!(
            taken_for("10.0.0.1", &["[2001:db8::7]:4711"]),
            "2001:db8::7"
        );
        assert_eq!(taken_for("10.0.0.1", &["[2001:db8::7]"]), "2001:db8::7");
    }

    #[test]
    fn a_proxy_that_tells_nothing_that_can_be_read_is_the_client() {
        assert_eq!(taken_for("10.0.0.1", &[]), "10.0.0.1");
        for unreadable in ["", "unknown", "198.51.100.7, _hidden", "198.51.100.7,"] {
            assert_eq!(taken_for("10.0.0.1", &[unreadable]), "10.0.0.1");
        }
        assert_eq!(taken_for("10.0.0.1", &["10.0.0.2, 10.0.0.3"]), "10.0.0.2");
    }

    #[test]
    fn a_network_is_one_client_and_its_neighbour_another() {
        let of = |address: &str| ip_prefix(address.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
