//! Who asks, as far as a request tells without a token.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use entity::audit::Source;

use crate::address::Address;
use crate::observe::origin;

/// What is known of the client, for users to tell their sessions apart, and for
/// the audit trail.
#[derive(Clone, Debug)]
pub struct Client {
    /// The program, as it names itself.
    pub user_agent: Option<String>,
    /// Its address.
    pub ip: Option<IpAddr>,
    /// The request's id.
    pub request_id: Option<String>,
}

impl Client {
    /// From where it does what it does.
    pub fn source(&self) -> Source {
        Source {
            address: self.ip.map(|ip| ip.to_string()),
            request_id: self.request_id.clone(),
        }
    }
}

const LONGEST_USER_AGENT: usize = 256;

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> std::result::Result<Self, Self::Rejection> {
        let user_agent = parts
            .headers
            .get(header::USER_AGENT)
            .and_then(|value| value.to_str().ok())
            .map(|value| value.chars().take(LONGEST_USER_AGENT).collect());
        let address = parts.extensions.get::<Address>();
        Ok(Client {
            user_agent,
            ip: address.map(|Address(address)| *address),
            request_id: origin().request_id,
        })
    }
}
