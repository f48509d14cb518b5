//! What a request tells of its client without a token.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use entity::audit::{Action, AuditEvent, RequestMetadata, UserRef};
use entity::user;
use serde_json::Value;

use crate::middleware::client_ip::ClientIp;
use crate::middleware::request_context::current_origin;

/// The client, as the list of sessions and the audit trail show it.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// The request's id.
    pub request_id: Option<String>,
}

impl ClientInfo {
    /// An audit event of this request: `actor` is signed in, and `subject` is the user acted on.
    pub(crate) fn audit_event(
        &self,
        action: Action,
        actor: Option<&user::Model>,
        subject: Option<&user::Model>,
        details: Option<Value>,
    ) -> AuditEvent {
        AuditEvent {
            action,
            actor: actor.map(UserRef::from),
            subject: subject.map(UserRef::from),
            source: RequestMetadata {
                address: self.ip.map(|ip| ip.to_string()),
                request_id: self.request_id.clone(),
            },
            details,
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
