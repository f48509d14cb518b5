//! Who is asking. The session is looked up for every request, so that a logout
//! or a disabled account acts at once.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use entity::audit::Source;
use entity::{session, user};
use sea_orm::EntityTrait;

use crate::AppState;
use crate::address::Address;
use crate::error::{Error, Result};
use crate::observe::origin;

/// The user who sent the request, and the session that it came with.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// Who.
    pub user: user::Model,
    /// Which sign-in.
    pub session: session::Model,
}

impl FromRequestParts<AppState> for SignedIn {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let token = bearer(&parts.headers).ok_or(Error::Unauthenticated)?;
        let claims = state.keys.read_access_token(token)?;
        let found = session::Entity::find_by_id(claims.sid)
            .find_also_related(user::Entity)
            .one(state.db.read())
            .await?;
        let Some((session, Some(user))) = found else {
            return Err(Error::SessionRevoked);
        };
        if !session.is_live() || user.id != claims.sub {
            return Err(Error::SessionRevoked);
        }
        if user.disabled_at.is_some() {
            return Err(Error::AccountDisabled);
        }
        Ok(SignedIn { user, session })
    }
}

/// An admin who sent the request. What a user may do is looked up with the
/// session, so who is an admin no longer is refused from then on.
#[derive(Clone, Debug)]
pub struct Admin(pub SignedIn);

impl FromRequestParts<AppState> for Admin {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let me = SignedIn::from_request_parts(parts, state).await?;
        match me.user.is_admin() {
            true => Ok(Admin(me)),
            false => Err(Error::Forbidden),
        }
    }
}

/// The token that a request came with. Of several, a proxy might believe one and
/// we another, so several are none.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let value = given.next()?.to_str().ok()?;
    if given.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

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
