//! The current user. The session or API key is looked up for every request, or known to be as it was
//! looked up, so that a logout, a revoked key or a disabled account takes effect at once.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use entity::api_key::{self, Scope};
use entity::{job, post, session, user};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, Select};
use uuid::Uuid;

use super::api_keys;
use super::tokens::secret_hash;
use crate::error::{Error, Result};
use crate::state::AppState;

/// The user who sent the request, and with what.
#[derive(Clone, Debug)]
pub(crate) struct CurrentUser {
    pub user: user::Model,
    pub credential: Credential,
}

/// What a request is authenticated by.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    /// An access token of this session.
    Session(session::Model),
    /// This API key.
    ApiKey(api_key::Model),
}

impl Credential {
    /// The id of the session or key.
    pub(crate) fn id(&self) -> Uuid {
        match self {
            Credential::Session(session) => session.id,
            Credential::ApiKey(key) => key.id,
        }
    }
}

impl CurrentUser {
    /// The user's own post of that id.
    pub(crate) fn post(&self, id: Uuid) -> Select<post::Entity> {
        post::Entity::owned_by(self.user.id).filter(post::Column::Id.eq(id))
    }

    /// # Errors
    /// [`Error::InsufficientScope`] for an API key without this scope.
    fn check_scope(&self, needed: Scope) -> Result<()> {
        match &self.credential {
            Credential::ApiKey(key) if !key.scopes().contains(&needed) => {
                Err(Error::InsufficientScope)
            }
            _ => Ok(()),
        }
    }

    /// The user's own job of that id.
    pub(crate) fn job(&self, id: Uuid) -> Select<job::Entity> {
        job::Entity::owned_by(self.user.id).filter(job::Column::Id.eq(id))
    }
}

impl FromRequestParts<AppState> for CurrentUser {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let me = authenticate(parts, state).await?;
        let needed = if parts.method.is_safe() {
            Scope::Read
        } else {
            Scope::Write
        };
        me.check_scope(needed)?;
        Ok(me)
    }
}

/// Who sent the request, whatever an API key is good for.
async fn authenticate(parts: &Parts, state: &AppState) -> Result<CurrentUser> {
    let token = bearer(&parts.headers).ok_or(Error::Unauthenticated)?;
    let (user, credential) = if token.starts_with(api_keys::PREFIX) {
        let (user, key) = find_key(state, token).await?;
        store_use(state, &key);
        (user, Credential::ApiKey(key))
    } else {
        let (user, session) = find_session(state, token).await?;
        (user, Credential::Session(session))
    };
    if user.disabled_at.is_some() {
        return Err(Error::AccountDisabled);
    }
    Ok(CurrentUser { user, credential })
}

async fn find_session(state: &AppState, token: &str) -> Result<(user::Model, session::Model)> {
    let claims = state.keys.read_access_token(token)?;
    let look_up = async {
        let found = session::Entity::find_by_id(claims.sid)
            .find_also_related(user::Entity)
            .one(state.db.read())
            .await?;
        Ok(found.and_then(|(session, user)| Some((session, user?))))
    };
    let found = state.sessions.get(claims.sid, look_up).await?;
    let (session, user) = found.ok_or(Error::SessionRevoked)?;
    if !session.is_active() || user.id != claims.sub {
        return Err(Error::SessionRevoked);
    }
    Ok((user, session))
}

async fn find_key(state: &AppState, key: &str) -> Result<(user::Model, api_key::Model)> {
    let found = api_key::Entity::find()
        .filter(api_key::Column::Hash.eq(secret_hash(key)))
        .find_also_related(user::Entity)
        .one(state.db.read())
        .await?;
    match found {
        Some((key, Some(user))) if key.is_valid() => Ok((user, key)),
        _ => {
            // Invented ones count for the address anyway.
            if api_keys::user_of(&state.keys, key).is_some() {
                state.refused_keys.add(key);
            }
            Err(Error::Unauthenticated)
        }
    }
}

/// Stores that the key was used, now and then. The request does not wait for that.
fn store_use(state: &AppState, key: &api_key::Model) {
    if !key.is_use_due() {
        return;
    }
    let (db, id) = (state.db.clone(), key.id);
    tokio::spawn(async move {
        let used = async move |tx: &_| api_key::Entity::set_used(tx, id).await;
        if let Err(error) = db.transaction(used).await {
            tracing::debug!(%error, "can't store the use of an API key");
        }
    });
}

/// A user who is signed in, and does not use an API key.
#[derive(Clone, Debug)]
pub(crate) struct SessionUser {
    pub user: user::Model,
    pub session: session::Model,
}

impl FromRequestParts<AppState> for SessionUser {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let CurrentUser { user, credential } = authenticate(parts, state).await?;
        match credential {
            Credential::Session(session) => Ok(SessionUser { user, session }),
            Credential::ApiKey(_) => Err(Error::InsufficientScope),
        }
    }
}

/// An admin who sent the request. The role is looked up with the session, so a demoted admin is
/// refused from then on.
#[derive(Clone, Debug)]
pub(crate) struct AdminUser(pub CurrentUser);

impl FromRequestParts<AppState> for AdminUser {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let me = authenticate(parts, state).await?;
        me.check_scope(Scope::Admin)?;
        if me.user.is_admin() {
            Ok(AdminUser(me))
        } else {
            Err(Error::Forbidden)
        }
    }
}

/// The bearer token of a request. With several `Authorization` headers there is none: a proxy might
/// believe one and we another.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
