//! Signing up, signing in, staying signed in, and signing out.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, TimeDelta, Utc};
use entity::audit::{Action, AuditEvent, UserRef};
use entity::clock::{new_id, now};
use entity::{refresh_token, session, user};
use sea_orm::{
    ActiveModelTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, QuerySelect, Set,
};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::users::{User, set_password};
use crate::auth::current_user::CurrentUser;
use crate::auth::login_throttle::{AdmittedAttempt, LoginThrottle, PasswordCheck};
use crate::auth::password::Verification;
use crate::auth::tokens::{new_refresh_token, refresh_token_hash};
use crate::error::{Error, Result, is_unique_violation};
use crate::extract::client_info::ClientInfo;
use crate::extract::json::ValidatedJson;
use crate::state::AppState;

mod requests;

pub(crate) use requests::{LoginRequest, RefreshRequest, RegisterRequest};

/// A user may have so many sessions. The next one ends another.
const MAX_SESSIONS: u64 = 100;

/// What a client is given to stay signed in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenPair {
    user: User,
    /// For the `Authorization` header.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// How long the access token is good, in seconds.
    expires_in: u32,
    /// Good for one refresh.
    refresh_token: String,
    /// How long the refresh token is good, in seconds.
    refresh_expires_in: u32,
}

/// Sign up
#[utoipa::path(
    post, path = "/users/register", tag = "users", security(()),
    request_body = RegisterRequest,
    responses(
        (status = 201, body = TokenPair),
        (status = 409, description = "The name is taken.", body = crate::error::Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn register(
    State(state): State<AppState>,
    client: ClientInfo,
    ValidatedJson(new): ValidatedJson<RegisterRequest>,
) -> Result<(StatusCode, Json<TokenPair>)> {
    // So that nothing is hashed in vain; what counts is the index of names.
    let named = user::Entity::find_by_username(&new.username);
    if named.one(state.db.read()).await?.is_some() {
        return Err(Error::UsernameTaken);
    }
    let password_hash = state.passwords.hash_for_sign_up(new.password).await?;
    let row = user::ActiveModel {
        id: Set(new_id()),
        username_key: Set(user::username_key(&new.username)),
        username: Set(new.username),
        password_hash: Set(password_hash),
        role: Set(user::Role::User),
        disabled_at: Set(None),
        created_at: Set(now()),
    };
    let db = state.db.clone();
    let pair = db
        .transaction(async move |tx| register_tx(tx, state, row, client).await)
        .await?;
    Ok((StatusCode::CREATED, Json(pair)))
}

async fn register_tx(
    tx: &DatabaseTransaction,
    state: AppState,
    row: user::ActiveModel,
    client: ClientInfo,
) -> Result<TokenPair> {
    let user = match user::Entity::insert(row).exec_with_returning(tx).await {
        Err(e) if is_unique_violation(&e) => return Err(Error::UsernameTaken),
        inserted => inserted?,
    };
    let visitor = LoginThrottle::new(&state.keys, &user.username, &client);
    visitor.remember_location(tx).await?;
    start_session(&state, tx, user, client).await
}

/// Sign in
#[utoipa::path(
    post, path = "/users/login", tag = "users", security(()),
    request_body = LoginRequest,
    responses(
        (status = 200, body = TokenPair),
        (status = 401, description = "Name or password is wrong.", body = crate::error::Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "The account is disabled.", body = crate::error::Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn login(
    State(state): State<AppState>,
    client: ClientInfo,
    ValidatedJson(given): ValidatedJson<LoginRequest>,
) -> Result<Json<TokenPair>> {
    let visitor = LoginThrottle::new(&state.keys, &given.username, &client);
    let db = state.db.clone();
    let login = |attempt| verify_and_sign_in(state, given, client, attempt);
    visitor.attempt(db, login).await.map(Json)
}

/// Verifies a password, and signs in whose it is.
async fn verify_and_sign_in(
    state: AppState,
    given: LoginRequest,
    client: ClientInfo,
    attempt: AdmittedAttempt,
) -> Result<PasswordCheck<TokenPair>> {
    loop {
        let named = user::Entity::find_by_username(&given.username);
        let found = named.one(state.db.read()).await?;
        let stored = found.as_ref().map(|user| user.password_hash.as_str());
        let verdict = state.passwords.verify(given.password.clone(), stored);
        let verdict = verdict.await?;
        let user = match found {
            Some(user) if verdict != Verification::Mismatch => user,
            named => {
                attempt
                    .record_failure(&state.db, None, named.as_ref())
                    .await?;
                return Ok(PasswordCheck::Wrong(Error::InvalidCredentials));
            }
        };
        if user.disabled_at.is_some() {
            attempt.record_failure(&state.db, None, Some(&user)).await?;
            return Ok(PasswordCheck::Wrong(Error::AccountDisabled));
        }
        let (ours, client, attempt) = (state.clone(), client.clone(), attempt.clone());
        let entered = state
            .db
            .transaction(async move |tx| login_tx(tx, ours, user, verdict, client, attempt).await)
            .await?;
        if let Some(pair) = entered {
            return Ok(PasswordCheck::Right(pair));
        }
    }
}

/// Signs in a user whose password has been verified. None if it has been
/// changed since.
async fn login_tx(
    tx: &DatabaseTransaction,
    state: AppState,
    verified: user::Model,
    verdict: Verification,
    client: ClientInfo,
    attempt: AdmittedAttempt,
) -> Result<Option<TokenPair>> {
    let user = match user::Entity::lock_for_update(tx, verified.id).await? {
        Some(user) if user.password_hash == verified.password_hash => user,
        _ => return Ok(None),
    };
    if user.disabled_at.is_some() {
        return Err(Error::AccountDisabled);
    }
    if let Verification::NeedsRehash(hash) = verdict {
        set_password(tx, user.clone(), hash).await?;
    }
    attempt.record_success(tx).await?;
    start_session(&state, tx, user, client).await.map(Some)
}

/// Get a new pair of tokens
///
/// The old refresh token is spent. Using one twice ends its session.
#[utoipa::path(
    post, path = "/users/refresh", tag = "users", security(()),
    request_body = RefreshRequest,
    responses(
        (status = 200, body = TokenPair),
        (status = 401, description = "The token is not good.", body = crate::error::Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "The account is disabled.", body = crate::error::Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn refresh(
    State(state): State<AppState>,
    client: ClientInfo,
    ValidatedJson(given): ValidatedJson<RefreshRequest>,
) -> Result<Json<TokenPair>> {
    let db = state.db.clone();
    let pair = db
        .transaction(async move |tx| refresh_tx(tx, state, client, given.refresh_token).await)
        .await?;
    // The end of the session is committed, so it is no error to the transaction.
    pair.map(Json).ok_or(Error::RefreshTokenReused)
}

/// Spends a refresh token for a new pair. None if it was spent before: then its
/// session has been ended.
async fn refresh_tx(
    tx: &DatabaseTransaction,
    state: AppState,
    client: ClientInfo,
    refresh_token: String,
) -> Result<Option<TokenPair>> {
    let hash = refresh_token_hash(&refresh_token);
    // Sessions are locked before their tokens, as their end does it.
    let session = refresh_token::Entity::session_of(&hash).lock_exclusive();
    let Some(session) = session.one(tx).await? else {
        return Err(Error::Unauthenticated);
    };
    if !refresh_token::Entity::consume(tx, &hash).await? {
        tracing::warn!(session = %session.id, "a refresh token was used twice");
        revoke_reused_session(tx, session, client).await?;
        return Ok(None);
    }
    if session.revoked_at.is_some() {
        return Err(Error::SessionRevoked);
    }
    let seconds = session_ttl(&state, session.created_at);
    if !session.is_active() || seconds == 0 {
        return Err(Error::TokenExpired);
    }
    let user = user::Entity::find_by_id(session.user_id).one(tx).await?;
    let user = user.ok_or(Error::SessionRevoked)?;
    if user.disabled_at.is_some() {
        return Err(Error::AccountDisabled);
    }
    let id = session.id;
    let mut session = session.into_active_model();
    session.last_used_at = Set(now());
    session.expires_at = Set(now() + TimeDelta::seconds(seconds.into()));
    session.update(tx).await?;
    issue_token_pair(&state, tx, user, id, seconds)
        .await
        .map(Some)
}

/// Ends a session whose refresh token two parties hold. That is written down
/// once, however often the token comes.
async fn revoke_reused_session(
    tx: &DatabaseTransaction,
    session: session::Model,
    client: ClientInfo,
) -> Result<()> {
    if !session::Entity::revoke(tx, session.user_id, session.id).await? {
        return Ok(());
    }
    let user = user::Entity::find_by_id(session.user_id).one(tx).await?;
    let event = AuditEvent {
        action: Action::RefreshTokenReused,
        actor: None,
        subject: user.as_ref().map(UserRef::from),
        source: client.request_metadata(),
        details: Some(json!({ "session_id": session.id })),
    };
    event.insert(tx).await?;
    Ok(())
}

/// Sign out
///
/// The session is over at once, its access tokens too.
#[utoipa::path(
    post, path = "/users/logout", tag = "users",
    responses((status = 204)),
)]
pub(crate) async fn logout(State(state): State<AppState>, me: CurrentUser) -> Result<StatusCode> {
    let (user, session) = (me.user.id, me.session.id);
    state
        .db
        .transaction(async move |tx| session::Entity::revoke(tx, user, session).await)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Begins a session, with its first pair of tokens.
async fn start_session(
    state: &AppState,
    tx: &DatabaseTransaction,
    user: user::Model,
    client: ClientInfo,
) -> Result<TokenPair> {
    session::Entity::enforce_limit(tx, user.id, MAX_SESSIONS).await?;
    let id = new_id();
    let begun = now();
    let seconds = session_ttl(state, begun);
    let row = session::ActiveModel {
        id: Set(id),
        user_id: Set(user.id),
        created_at: Set(begun),
        last_used_at: Set(begun),
        expires_at: Set(begun + TimeDelta::seconds(seconds.into())),
        revoked_at: Set(None),
        user_agent: Set(client.user_agent),
        ip: Set(client.ip.map(|ip| ip.to_string())),
    };
    session::Entity::insert(row).exec(tx).await?;
    issue_token_pair(state, tx, user, id, seconds).await
}

async fn issue_token_pair(
    state: &AppState,
    tx: &DatabaseTransaction,
    user: user::Model,
    session: Uuid,
    seconds_left: u32,
) -> Result<TokenPair> {
    let refresh_token = new_refresh_token()?;
    let row = refresh_token::ActiveModel {
        hash: Set(refresh_token_hash(&refresh_token)),
        session_id: Set(session),
        created_at: Set(now()),
        spent_at: Set(None),
    };
    refresh_token::Entity::insert(row).exec(tx).await?;
    let ttl = state.config.access_token_ttl();
    Ok(TokenPair {
        access_token: state.keys.access_token(user.id, session, ttl)?,
        token_type: "Bearer",
        expires_in: state.config.access_token_ttl_secs,
        refresh_token,
        refresh_expires_in: seconds_left,
        user: user.into(),
    })
}

/// How long a session lasts from now on if it is not refreshed again. It has an
/// end that no refresh moves.
fn session_ttl(state: &AppState, begun: DateTime<Utc>) -> u32 {
    let whole = i64::from(state.config.session_ttl_secs);
    let left = whole - (now() - begun).num_seconds();
    let left = u32::try_from(left).unwrap_or_default();
    left.min(state.config.refresh_token_ttl_secs)
}
