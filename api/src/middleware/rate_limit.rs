//! Rate limiting, per user or address. A client has its requests of a minute at once, and gets them
//! back one by one. Each API process counts separately.
//!
//! The headers are those of
//! <https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/11/>.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use uuid::Uuid;

use crate::auth::api_keys::{self, RefusedKeys};
use crate::auth::current_user::bearer;
use crate::auth::tokens::SigningKeys;
use crate::error::Error;
use crate::middleware::client_ip::{ClientIp, ip_prefix};

pub(crate) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Limited paths: neither those for operators nor the documentation.
pub(crate) const LIMITED_PREFIX: &str = "/api/v1/";

/// Where passwords and refresh tokens are tried: these always count for the address, so that nobody
/// may try more of them by having more accounts.
const CREDENTIAL_ROUTES: [&str; 3] = [
    "/api/v1/users/register",
    "/api/v1/users/login",
    "/api/v1/users/refresh",
];

const MAX_TRACKED_CLIENTS: usize = 100_000;

/// After so many requests, clients with their full quota are dropped.
const CLEANUP_EVERY: usize = 1000;

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ClientKey {
    User(Uuid),
    Address(IpAddr),
    /// Those that can't be distinguished.
    Shared,
}

#[derive(Debug)]
pub(crate) struct RateLimit {
    keys: Arc<SigningKeys>,
    refused_keys: RefusedKeys,
    per_minute: NonZeroU32,
    known: DefaultKeyedRateLimiter<ClientKey, StateInformationMiddleware>,
    counted: AtomicUsize,
}

const MINUTE: u32 = 60;

impl RateLimit {
    pub(crate) fn new(
        per_minute: NonZeroU32,
        keys: Arc<SigningKeys>,
        refused_keys: RefusedKeys,
    ) -> Self {
        let known = RateLimiter::keyed(Quota::per_minute(per_minute));
        RateLimit {
            keys,
            refused_keys,
            per_minute,
            known: known.with_middleware(),
            counted: AtomicUsize::new(0),
        }
    }

    /// Counts a request. Returns how many more are left, or after how many seconds to retry.
    fn count(&self, who: ClientKey) -> Result<u32, u64> {
        let counted = self.counted.fetch_add(1, Ordering::Relaxed);
        if counted.is_multiple_of(CLEANUP_EVERY) {
            self.known.retain_recent();
        }
        let who = match who {
            // Clients may have any number of addresses; users must sign up first.
            ClientKey::Address(_) if self.known.len() >= MAX_TRACKED_CLIENTS => ClientKey::Shared,
            who => who,
        };
        match self.known.check_key(&who) {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(until) => {
                let wait = until.wait_time_from(self.known.clock().now());
                Err(wait.as_secs() + 1)
            }
        }
    }

    fn set_headers(&self, counted: Result<u32, u64>, response: &mut Response) {
        let limit = self.per_minute.get();
        let policy = format!("\"default\";q={limit};w={MINUTE}");
        // The time until there is one more.
        let (left, seconds) = match counted {
            Ok(left) => (left, MINUTE.div_ceil(limit).into()),
            Err(seconds) => (0, seconds),
        };
        let left = format!("\"default\";r={left};t={seconds}");
        for (name, value) in [(RATELIMIT_POLICY, policy), (RATELIMIT, left)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
    }
}

/// Middleware: refuses requests beyond the limit, and sets the headers of all responses.
pub(crate) async fn rate_limit(
    State(limit): State<Option<Arc<RateLimit>>>,
    request: Request,
    next: Next,
) -> Response {
    let is_limited = request.uri().path().starts_with(LIMITED_PREFIX);
    let Some(limit) = limit.filter(|_| is_limited) else {
        return next.run(request).await;
    };
    let counted = limit.count(client_key(&limit, &request));
    let mut response = match counted {
        Ok(_) => next.run(request).await,
        Err(seconds) => Error::RateLimited(seconds).into_response(),
    };
    limit.set_headers(counted, &mut response);
    response
}

/// The user of a valid token or of a key of ours, or the address. Whether the session or key is
/// still active would cost a query.
fn client_key(limit: &RateLimit, request: &Request) -> ClientKey {
    let is_door = CREDENTIAL_ROUTES.contains(&request.uri().path());
    let token = bearer(request.headers()).filter(|_| !is_door);
    let user = token.and_then(|token| match limit.keys.read_access_token(token) {
        Ok(claims) => Some(claims.sub),
        Err(_) if limit.refused_keys.contains(token) => None,
        Err(_) => api_keys::user_of(&limit.keys, token),
    });
    if let Some(user) = user {
        return ClientKey::User(user);
    }
    let address = request.extensions().get::<ClientIp>();
    address.map_or(ClientKey::Shared, |ClientIp(address)| {
        ClientKey::Address(ip_prefix(*address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(per_minute: u32) -> RateLimit {
        let keys = SigningKeys::new(&"0123456789abcdef0123456789abcdef".into());
        let per_minute = NonZeroU32::new(per_minute).unwrap();
        RateLimit::new(per_minute, Arc::new(keys), RefusedKeys::default())
    }

    fn address(n: u32) -> ClientKey {
        ClientKey::Address(std::net::Ipv4Addr::from_bits(n).into())
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_memory_and_holds_up_no_user() {
        // Nobody is forgotten within a minute.
        let limit = limit(1);
        let user = ClientKey::User(Uuid::now_v7());
        let flood = u32::try_from(MAX_TRACKED_CLIENTS).unwrap() * 2;
        let refused = (0..flood).filter(|n| limit.count(address(*n)).is_err());
        // One that can't be told apart from others is let through, as one of them.
        assert_eq!(refused.count(), MAX_TRACKED_CLIENTS - 1);
        assert_eq!(limit.known.len(), MAX_TRACKED_CLIENTS + 1);
        assert_eq!(limit.count(user), Ok(0));
        assert!(limit.count(user).is_err());
    }

    #[test]
    fn those_who_are_quiet_are_forgotten() {
        let limit = limit(u32::MAX);
        for n in 0..50_000 {
            assert!(limit.count(address(n)).is_ok());
        }
        assert!(limit.known.len() <= CLEANUP_EVERY, "{}", limit.known.len());
    }
}
