//! The current user's account.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use entity::audit::Action;
use entity::{session, user};
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, Set,
};
use serde::Serialize;
use shared::queue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::timestamp;
use crate::auth::current_user::SessionUser;
use crate::auth::login_throttle::{AdmittedAttempt, LoginThrottle, PasswordCheck};
use crate::auth::password::Verification;
use crate::auth::password::rules::new_password;
use crate::error::{Error, Result};
use crate::extract::client_info::ClientInfo;
use crate::extract::field_reader::{FieldReader, FromFields, accept_any};
use crate::extract::json::{JsonBody, ValidatedJson};
use crate::state::AppState;

/// A user.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct User {
    id: Uuid,
    username: String,
    role: user::Role,
    #[serde(serialize_with = "timestamp")]
    created_at: DateTime<Utc>,
}

impl From<user::Model> for User {
    fn from(user: user::Model) -> Self {
        User {
            id: user.id,
            username: user.username,
            role: user.role,
            created_at: user.created_at,
        }
    }
}

/// The current password and the new one.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangePasswordRequest {
    #[schema(max_length = 128, format = Password)]
    current_password: String,
    /// Any characters; neither a common password nor the username.
    #[schema(min_length = 8, max_length = 128, format = Password)]
    new_password: String,
}

impl ChangePasswordRequest {
    fn from_fields(fields: &mut FieldReader, username: &str) -> Option<Self> {
        let current_password = fields.required("current_password", accept_any);
        let new_password = fields.required("new_password", |new| new_password(new, username));
        Some(ChangePasswordRequest {
            current_password: current_password?,
            new_password: new_password?,
        })
    }
}

/// The current password.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteAccountRequest {
    #[schema(max_length = 128, format = Password)]
    password: String,
}

impl FromFields for DeleteAccountRequest {
    fn from_fields(fields: &mut FieldReader) -> Option<Self> {
        let password = fields.required("password", accept_any)?;
        Some(DeleteAccountRequest { password })
    }
}

/// Get the current user
#[utoipa::path(
    get, path = "/users/me", tag = "users",
    responses((status = 200, body = User)),
)]
pub(crate) async fn get_me(me: SessionUser) -> Json<User> {
    Json(me.user.into())
}

/// Change your password
///
/// All other sessions end.
#[utoipa::path(
    put, path = "/users/me/password", tag = "users",
    request_body = ChangePasswordRequest,
    responses((status = 204)),
)]
pub(crate) async fn change_password(
    State(state): State<AppState>,
    me: SessionUser,
    client: ClientInfo,
    body: JsonBody,
) -> Result<StatusCode> {
    let username = &me.user.username;
    let change = body.read(|fields| ChangePasswordRequest::from_fields(fields, username))?;
    verify_password(&state, &me.user, &client, change.current_password).await?;
    let hash = state.passwords.hash(change.new_password).await?;
    state
        .db
        .transaction(async move |tx| {
            let user = lock_if_password_unchanged(tx, &me.user).await?;
            session::Entity::revoke_all(tx, user.id, Some(me.session.id)).await?;
            let own = Some(&user);
            let event = client.audit_event(Action::PasswordChanged, own, own, None);
            event.insert(tx).await?;
            set_password(tx, user, hash).await
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Delete your account
///
/// Your posts, jobs and sessions are deleted; running jobs are stopped.
#[utoipa::path(
    delete, path = "/users/me", tag = "users",
    request_body = DeleteAccountRequest,
    responses(
        (status = 204),
        (status = 409, description = "The last admin can't be deleted."),
    ),
)]
pub(crate) async fn delete_me(
    State(state): State<AppState>,
    me: SessionUser,
    client: ClientInfo,
    ValidatedJson(given): ValidatedJson<DeleteAccountRequest>,
) -> Result<StatusCode> {
    verify_password(&state, &me.user, &client, given.password).await?;
    state
        .db
        .transaction(async move |tx| {
            // A user who was made an admin since the request came is treated as the only one, and
            // may repeat it.
            let locked = match me.user.role {
                user::Role::Admin => user::Entity::lock_with_admins(tx, me.user.id).await?,
                user::Role::User => Vec::new(),
            };
            let user = lock_if_password_unchanged(tx, &me.user).await?;
            let mut others = locked.iter().filter(|admin| admin.id != user.id);
            if user.is_admin() && !others.any(user::Model::is_admin) {
                return Err(Error::LastAdmin);
            }
            queue::detach_user(tx, user.id).await?;
            user::Entity::delete_by_id(user.id).exec(tx).await?;
            let own = Some(&user);
            let event = client.audit_event(Action::AccountDeleted, own, own, None);
            event.insert(tx).await?;
            Ok(())
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn set_password(
    db: &impl ConnectionTrait,
    user: user::Model,
    hash: String,
) -> Result<()> {
    let mut user = user.into_active_model();
    user.password_hash = Set(hash);
    user.update(db).await?;
    Ok(())
}

/// Verifies the user's password once more. With a stolen token passwords are guessed no faster here
/// than at login.
async fn verify_password(
    state: &AppState,
    user: &user::Model,
    client: &ClientInfo,
    password: String,
) -> Result<()> {
    let throttle = LoginThrottle::new(&state.keys, &user.username, client);
    let state = state.clone();
    let user = user.clone();
    let db = state.db.clone();
    let verify = |attempt: AdmittedAttempt| async move {
        let stored = Some(user.password_hash.as_str());
        if state.passwords.verify(password, stored).await? == Verification::Mismatch {
            attempt
                .record_failure(&state.db, Some(&user), Some(&user))
                .await?;
            return Ok(PasswordCheck::Wrong(Error::InvalidCredentials));
        }
        state
            .db
            .transaction(async move |tx| attempt.record_success(tx).await)
            .await
            .map(PasswordCheck::Right)
    };
    throttle.attempt(db, verify).await
}

/// Locks the user's row. An error if the password was changed since it was verified.
async fn lock_if_password_unchanged(
    tx: &DatabaseTransaction,
    before: &user::Model,
) -> Result<user::Model> {
    match user::Entity::lock_for_update(tx, before.id).await? {
        Some(user) if user.password_hash == before.password_hash => Ok(user),
        _ => Err(Error::InvalidCredentials),
    }
}
