//! The current user. The session is looked up for every request, so that a logout or a disabled
//! account takes effect at once.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use entity::{job, post, session, user};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, Select};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::state::AppState;

/// The user who sent the request, and the session of its token.
#[derive(Clone, Debug)]
pub(crate) struct CurrentUser {
    pub user: user::Model,
    pub session: session::Model,
}

impl CurrentUser {
    /// The user's own post of that id.
    pub(crate) fn post(&self, id: Uuid) -> Select<post::Entity> {
        post::Entity::owned_by(self.user.id).filter(post::Column::Id.eq(id))
    }

    /// The user's own job of that id.
    pub(crate) fn job(&self, id: Uuid) -> Select<job::Entity> {
        job::Entity::owned_by(self.user.id).filter(job::Column::Id.eq(id))
    }
}

impl FromRequestParts<AppState> for CurrentUser {
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
        if !session.is_active() || user.id != claims.sub {
            return Err(Error::SessionRevoked);
        }
        if user.disabled_at.is_some() {
            return Err(Error::AccountDisabled);
        }
        Ok(CurrentUser { user, session })
    }
}

/// An admin who sent the request. The role is looked up with the session, so a demoted admin is
/// refused from then on.
#[derive(Clone, Debug)]
pub(crate) struct AdminUser(pub CurrentUser);

impl FromRequestParts<AppState> for AdminUser {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let me = CurrentUser::from_request_parts(parts, state).await?;
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
