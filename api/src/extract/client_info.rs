//! Who asks, as far as a request tells without a token.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use entity::audit::RequestMetadata;

use crate::middleware::client_ip::ClientIp;
use crate::middleware::request_context::current_origin;

/// What is known of the client, for users to tell their sessions apart, and for
/// the audit trail.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// The program, as it names itself.
    pub user_agent: Option<String>,
    /// Its address.
    pub ip: Option<IpAddr>,
    /// The request's id.
    pub request_id: Option<String>,
}

impl ClientInfo {
    /// From where it does what it does.
    pub fn request_metadata(&self) -> RequestMetadata {
        RequestMetadata {
            address: self.ip.map(|ip| ip.to_string()),
            request_id: self.request_id.clone(),
        }
    }
}

const MAX_USER_AGENT_LEN: usize = 256;

impl<S: Send + Sync> FromRequestParts<S> for ClientInfo {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> std::result::Result<Self, Self::Rejection> {
        let user_agent = parts
            .headers
            .get(header::USER_AGENT)
            .and_then(|value| value.to_str().ok())
            .map(|value| value.chars().take(MAX_USER_AGENT_LEN).collect());
        let address = parts.extensions.get::<ClientIp>();
        Ok(ClientInfo {
            user_agent,
            ip: address.map(|ClientIp(address)| *address),
            request_id: current_origin().request_id,
        })
    }
}
