//! Sessions and their tokens.

use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use entity::clock::{new_id, now};
use entity::{refresh_token, session, user};
use sea_orm::{DatabaseTransaction, EntityTrait, Set};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::browser;
use crate::auth::tokens::{new_refresh_token, secret_hash};
use crate::error::Result;
use crate::extract::client_info::ClientInfo;
use crate::routes::account::User;
use crate::state::AppState;

/// The limit of a user's sessions. The least recently used one ends for a new one.
const MAX_SESSIONS: u64 = 100;

/// An access token, and a refresh token for the next pair.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenPair {
    user: User,
    /// For the `Authorization` header.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// The lifetime of the access token, in seconds.
    expires_in: u32,
    /// Valid once. Null for a browser, which gets it as a cookie.
    refresh_token: Option<String>,
    /// The lifetime of the refresh token, in seconds.
    refresh_expires_in: u32,
}

impl TokenPair {
    /// The response with the pair. `asked` are the headers of the request.
    pub(super) fn response(
        mut self,
        status: StatusCode,
        is_browser: bool,
        asked: &HeaderMap,
    ) -> Result<Response> {
        let mut headers = HeaderMap::new();
        if is_browser && let Some(token) = self.refresh_token.take() {
            let cookie = browser::set_cookie(asked, &token, self.refresh_expires_in)?;
            headers.insert(header::SET_COOKIE, cookie);
        }
        Ok((status, headers, Json(self)).into_response())
    }
}

/// Starts a session, with its first pair of tokens.
pub(super) async fn start_session(
    state: &AppState,
    tx: &DatabaseTransaction,
    user: user::Model,
    client: ClientInfo,
) -> Result<TokenPair> {
    session::Entity::enforce_limit(tx, user.id, MAX_SESSIONS).await?;
    let id = new_id();
    let started_at = now();
    let seconds = session_ttl(state, started_at);
    let row = session::ActiveModel {
        id: Set(id),
        user_id: Set(user.id),
        created_at: Set(started_at),
        last_used_at: Set(started_at),
        expires_at: Set(started_at + TimeDelta::seconds(seconds.into())),
        revoked_at: Set(None),
        user_agent: Set(client.user_agent),
        ip: Set(client.ip.map(|ip| ip.to_string())),
    };
    session::Entity::insert(row).exec(tx).await?;
    issue_token_pair(state, tx, user, id, seconds).await
}

pub(super) async fn issue_token_pair(
    state: &AppState,
    tx: &DatabaseTransaction,
    user: user::Model,
    session: Uuid,
    seconds_left: u32,
) -> Result<TokenPair> {
    let refresh_token = new_refresh_token()?;
    let row = refresh_token::ActiveModel {
        hash: Set(secret_hash(&refresh_token)),
        session_id: Set(session),
        created_at: Set(now()),
        spent_at: Set(None),
        spent_by: Set(None),
        spent_again_at: Set(None),
    };
    refresh_token::Entity::insert(row).exec(tx).await?;
    let ttl = state.config.access_token_ttl();
    Ok(TokenPair {
        access_token: state.keys.access_token(user.id, session, ttl)?,
        token_type: "Bearer",
        expires_in: state.config.access_token_ttl_secs,
        refresh_token: Some(refresh_token),
        refresh_expires_in: seconds_left,
        user: user.into(),
    })
}

/// The remaining lifetime of a session that is not refreshed again. It has an end that no refresh
/// extends.
pub(super) fn session_ttl(state: &AppState, started_at: DateTime<Utc>) -> u32 {
    let whole = i64::from(state.config.session_ttl_secs);
    let left = whole - (now() - started_at).num_seconds();
    let left = u32::try_from(left).unwrap_or_default();
    left.min(state.config.refresh_token_ttl_secs)
}
