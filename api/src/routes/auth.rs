//! Registration, login, token refresh and logout.

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::TimeDelta;
use entity::audit::Action;
use entity::clock::{new_id, now};
use entity::{refresh_token, session, user};
use sea_orm::{
    ActiveModelTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, QuerySelect, Set,
};
use serde_json::json;

use super::account::set_password;
use crate::auth::browser;
use crate::auth::current_user::SessionUser;
use crate::auth::login_throttle::{AdmittedAttempt, LoginThrottle, PasswordCheck};
use crate::auth::password::Verification;
use crate::auth::tokens::secret_hash;
use crate::error::{Error, Result, is_unique_violation};
use crate::extract::client_info::ClientInfo;
use crate::extract::json::ValidatedJson;
use crate::state::AppState;

mod requests;
mod token_pair;

use requests::{LoginRequest, RefreshRequest, RegisterRequest};
use token_pair::{TokenPair, issue_token_pair, session_ttl, start_session};

/// Register
#[utoipa::path(
    post, path = "/users/register", tag = "users", security(()),
    request_body = RegisterRequest,
    responses(
        (status = 201, body = TokenPair),
        (status = 409, description = "The username is taken."),
    ),
)]
pub(crate) async fn register(
    State(state): State<AppState>,
    client: ClientInfo,
    headers: HeaderMap,
    ValidatedJson(new): ValidatedJson<RegisterRequest>,
) -> Result<Response> {
    // Avoids hashing in vain; the unique index decides.
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
        .transaction(async move |tx| {
            let user = match user::Entity::insert(row).exec_with_returning(tx).await {
                Err(e) if is_unique_violation(&e) => return Err(Error::UsernameTaken),
                inserted => inserted?,
            };
            let throttle = LoginThrottle::new(&state.keys, &user.username, &client);
            throttle.remember_location(tx).await?;
            start_session(&state, tx, user, client).await
        })
        .await?;
    pair.response(StatusCode::CREATED, new.client.is_some(), &headers)
}

/// Log in
#[utoipa::path(
    post, path = "/users/login", tag = "users", security(()),
    request_body = LoginRequest,
    responses(
        (status = 200, body = TokenPair),
        (status = 401, description = "Wrong username or password."),
        (status = 403, description = "The account is disabled."),
    ),
)]
pub(crate) async fn login(
    State(state): State<AppState>,
    client: ClientInfo,
    headers: HeaderMap,
    ValidatedJson(given): ValidatedJson<LoginRequest>,
) -> Result<Response> {
    let is_browser = given.client.is_some();
    let throttle = LoginThrottle::new(&state.keys, &given.username, &client);
    let db = state.db.clone();
    let verify = |attempt| verify_and_start_session(state, given, client, attempt);
    let pair = throttle.attempt(db, verify).await?;
    pair.response(StatusCode::OK, is_browser, &headers)
}

async fn verify_and_start_session(
    state: AppState,
    given: LoginRequest,
    client: ClientInfo,
    attempt: AdmittedAttempt,
) -> Result<PasswordCheck<TokenPair>> {
    loop {
        let named = user::Entity::find_by_username(&given.username);
        let found = named.one(state.db.read()).await?;
        let stored = found.as_ref().map(|user| user.password_hash.as_str());
        let verification = state.passwords.verify(given.password.clone(), stored);
        let verification = verification.await?;
        let user = match found {
            Some(user) if verification != Verification::Mismatch => user,
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
        let context = state.clone();
        let client = client.clone();
        let attempt = attempt.clone();
        let started = state
            .db
            .transaction(async move |tx| {
                let verified = user;
                let user = match user::Entity::lock_for_update(tx, verified.id).await? {
                    Some(user) if user.password_hash == verified.password_hash => user,
                    // The password has been changed since: verify again.
                    _ => return Ok(None),
                };
                if user.disabled_at.is_some() {
                    return Err(Error::AccountDisabled);
                }
                if let Verification::NeedsRehash(hash) = verification {
                    set_password(tx, user.clone(), hash).await?;
                }
                attempt.record_success(tx).await?;
                start_session(&context, tx, user, client).await.map(Some)
            })
            .await?;
        if let Some(pair) = started {
            return Ok(PasswordCheck::Right(pair));
        }
    }
}

/// Refresh the tokens
///
/// A refresh token is valid once. Using it again ends its session. A browser sends its cookie, with
/// the header `X-Requested-With: blog`, and no body; it may do so twice within ten seconds, as two of
/// its tabs do.
#[utoipa::path(
    post, path = "/users/refresh", tag = "users", security(()),
    request_body(content = Option<RefreshRequest>),
    responses(
        (status = 200, body = TokenPair),
        (status = 401, description = "The token is invalid, expired or reused."),
        (status = 403, description = "The account is disabled."),
    ),
)]
pub(crate) async fn refresh(
    State(state): State<AppState>,
    client: ClientInfo,
    headers: HeaderMap,
    ValidatedJson(given): ValidatedJson<RefreshRequest>,
) -> Result<Response> {
    let cookie = browser::refresh_token(&headers);
    let is_browser = given.refresh_token.is_none();
    let token = given
        .refresh_token
        .or(cookie)
        .ok_or(Error::Unauthenticated)?;
    let hash = secret_hash(&token);
    let browser = is_browser.then(|| browser::fingerprint(&client));
    let db = state.db.clone();
    let pair = db
        .transaction(async move |tx| {
            // Sessions are locked before their tokens, here and wherever they end.
            let session = refresh_token::Entity::session_of(&hash).lock_exclusive();
            let session = session.one(tx).await?.ok_or(Error::Unauthenticated)?;
            if !consume(tx, &hash, browser.as_deref()).await? {
                tracing::warn!(session = %session.id, "refresh token reused: ending its session");
                revoke_reused_session(tx, session, client).await?;
                // Not an error, which would roll that back.
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
            let pair = issue_token_pair(&state, tx, user, id, seconds).await?;
            Ok(Some(pair))
        })
        .await?;
    let pair = pair.ok_or(Error::RefreshTokenReused)?;
    pair.response(StatusCode::OK, is_browser, &headers)
}

/// Uses a refresh token; false if that is not allowed any more.
async fn consume(tx: &DatabaseTransaction, hash: &str, browser: Option<&str>) -> Result<bool> {
    if refresh_token::Entity::consume(tx, hash, browser).await? {
        return Ok(true);
    }
    let Some(browser) = browser else {
        return Ok(false);
    };
    Ok(refresh_token::Entity::consume_again(tx, hash, browser).await?)
}

/// Ends a session whose refresh token was used twice, so two parties have it. Recorded once,
/// however often the token comes.
async fn revoke_reused_session(
    tx: &DatabaseTransaction,
    session: session::Model,
    client: ClientInfo,
) -> Result<()> {
    if !session::Entity::revoke(tx, session.user_id, session.id).await? {
        return Ok(());
    }
    let user = user::Entity::find_by_id(session.user_id).one(tx).await?;
    let details = Some(json!({ "session_id": session.id }));
    let event = client.audit_event(Action::RefreshTokenReused, None, user.as_ref(), details);
    event.insert(tx).await?;
    Ok(())
}

/// Log out
///
/// The session ends at once, and its access tokens with it. A browser may send its cookie instead of
/// an access token, with the header `X-Requested-With: blog`.
#[utoipa::path(
    post, path = "/users/logout", tag = "users",
    responses((status = 204)),
)]
pub(crate) async fn logout(State(state): State<AppState>, mut parts: Parts) -> Result<Response> {
    let signed_in = SessionUser::from_request_parts(&mut parts, &state).await;
    let cookie = browser::refresh_token(&parts.headers);
    let (user, session) = match (signed_in, &cookie) {
        (Ok(me), _) => (me.user.id, me.session.id),
        (Err(_), Some(token)) => {
            let session = refresh_token::Entity::session_of(&secret_hash(token));
            let session = session.one(state.db.read()).await?;
            let session = session.ok_or(Error::Unauthenticated)?;
            (session.user_id, session.id)
        }
        (Err(error), None) => return Err(error),
    };
    let db = state.db.clone();
    db.transaction(async move |tx| session::Entity::revoke(tx, user, session).await)
        .await?;
    let mut headers = HeaderMap::new();
    if cookie.is_some() {
        let gone = browser::clear_cookie(&parts.headers)?;
        headers.insert(header::SET_COOKIE, gone);
    }
    Ok((StatusCode::NO_CONTENT, headers).into_response())
}
