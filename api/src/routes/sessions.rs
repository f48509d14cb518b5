//! A user's sessions.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use entity::session;
use sea_orm::QueryOrder;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::timestamp;
use crate::auth::current_user::SessionUser;
use crate::error::{Error, Result};
use crate::extract::path::PathId;
use crate::state::AppState;

/// A user's active sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sessions {
    #[schema(max_items = 100)]
    items: Vec<Session>,
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Session {
    id: Uuid,
    #[serde(serialize_with = "timestamp")]
    created_at: DateTime<Utc>,
    /// When it was last refreshed.
    #[serde(serialize_with = "timestamp")]
    last_used_at: DateTime<Utc>,
    /// When it ends unless it is refreshed.
    #[serde(serialize_with = "timestamp")]
    expires_at: DateTime<Utc>,
    /// The client's `User-Agent` at login.
    user_agent: Option<String>,
    /// The client's address at login.
    ip: Option<String>,
    /// Whether it is the session of this request.
    current: bool,
}

impl Session {
    fn new(session: session::Model, current: Uuid) -> Self {
        Session {
            id: session.id,
            created_at: session.created_at,
            last_used_at: session.last_used_at,
            expires_at: session.expires_at,
            user_agent: session.user_agent,
            ip: session.ip,
            current: session.id == current,
        }
    }
}

/// List your sessions
#[utoipa::path(
    get, path = "/users/me/sessions", tag = "users",
    responses((status = 200, body = Sessions)),
)]
pub(crate) async fn list_sessions(
    State(state): State<AppState>,
    me: SessionUser,
) -> Result<Json<Sessions>> {
    let sessions = session::Entity::active_of(me.user.id)
        .order_by_desc(session::Column::Id)
        .all(state.db.read())
        .await?;
    let items = sessions
        .into_iter()
        .map(|session| Session::new(session, me.session.id))
        .collect();
    Ok(Json(Sessions { items }))
}

/// End a session
#[utoipa::path(
    delete, path = "/users/me/sessions/{id}", tag = "users",
    params(("id" = Uuid, Path)),
    responses((status = 204)),
)]
pub(crate) async fn revoke_session(
    State(state): State<AppState>,
    me: SessionUser,
    PathId(id): PathId,
) -> Result<StatusCode> {
    let revoked = state
        .db
        .transaction(async move |tx| session::Entity::revoke(tx, me.user.id, id).await)
        .await?;
    if revoked {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Error::NotFound)
    }
}

/// End all other sessions
#[utoipa::path(
    delete, path = "/users/me/sessions", tag = "users",
    responses((status = 204)),
)]
pub(crate) async fn revoke_other_sessions(
    State(state): State<AppState>,
    me: SessionUser,
) -> Result<StatusCode> {
    let user = me.user.id;
    let current = Some(me.session.id);
    state
        .db
        .transaction(async move |tx| session::Entity::revoke_all(tx, user, current).await)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
