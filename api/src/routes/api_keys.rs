//! A user's API keys.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use entity::api_key::{self, Scope};
use entity::audit::Action;
use entity::clock::{new_id, now};
use entity::user;
use sea_orm::{EntityTrait, PaginatorTrait, QuerySelect, Set};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{optional_timestamp, timestamp};
use crate::auth::api_keys;
use crate::auth::current_user::SessionUser;
use crate::error::{Error, Result};
use crate::extract::client_info::ClientInfo;
use crate::extract::field_reader::{FieldReader, FromFields, Violation};
use crate::extract::json::ValidatedJson;
use crate::extract::path::PathId;
use crate::extract::text_rules::trimmed_length;
use crate::state::AppState;

/// How many keys a user may have.
const MAX_KEYS: u64 = 100;

/// A new API key.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateApiKeyRequest {
    /// What it is for.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = "^[^\\x00]*[^\\s\\x00][^\\x00]*$"
    )]
    name: String,
    #[schema(min_items = 1, max_items = 3, example = json!(["read", "write"]))]
    scopes: Vec<Scope>,
    /// From when on it is refused. Without it the key is valid until it is revoked.
    expires_at: Option<DateTime<Utc>>,
}

impl FromFields for CreateApiKeyRequest {
    fn from_fields(fields: &mut FieldReader) -> Option<Self> {
        let name = fields.required("name", trimmed_length(1, 100));
        let scopes = fields.required("scopes", scopes);
        let expires_at = fields.optional("expires_at", future);
        Some(CreateApiKeyRequest {
            name: name?,
            scopes: scopes?,
            expires_at: expires_at?,
        })
    }
}

fn scopes(mut scopes: Vec<Scope>) -> std::result::Result<Vec<Scope>, Violation> {
    if scopes.is_empty() {
        return Err(("too_short", "must not be empty".to_owned()));
    }
    if scopes.len() > Scope::ALL.len() {
        return Err(("too_long", "must have at most 3 items".to_owned()));
    }
    scopes.sort();
    scopes.dedup();
    Ok(scopes)
}

fn future(time: DateTime<Utc>) -> std::result::Result<DateTime<Utc>, Violation> {
    if time <= now() {
        return Err(("out_of_range", "must be in the future".to_owned()));
    }
    Ok(time)
}

/// A user's API keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApiKeys {
    #[schema(max_items = 100)]
    items: Vec<ApiKey>,
}

/// An API key, but for the key itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApiKey {
    id: Uuid,
    name: String,
    /// How the key begins.
    #[schema(example = "bpk_5TzGYyqD")]
    prefix: String,
    scopes: Vec<Scope>,
    #[serde(serialize_with = "timestamp")]
    created_at: DateTime<Utc>,
    /// To the minute; null if it was never used.
    #[serde(serialize_with = "optional_timestamp")]
    last_used_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "optional_timestamp")]
    expires_at: Option<DateTime<Utc>>,
}

/// A new API key, with the key itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NewApiKey {
    /// The key. It is shown this once.
    key: String,
    #[serde(flatten)]
    about: ApiKey,
}

impl From<api_key::Model> for ApiKey {
    fn from(key: api_key::Model) -> Self {
        ApiKey {
            id: key.id,
            scopes: key.scopes(),
            name: key.name,
            prefix: key.prefix,
            created_at: key.created_at,
            last_used_at: key.last_used_at,
            expires_at: key.expires_at,
        }
    }
}

/// Create an API key
///
/// For a program that acts for you: it sends the key in the place of an access token. A key is never
/// good for accounts, passwords, sessions and other keys.
#[utoipa::path(
    post, path = "/users/me/keys", tag = "users", operation_id = "create_api_key",
    request_body = CreateApiKeyRequest,
    responses(
        (status = 201, body = NewApiKey),
        (status = 409, description = "You have as many keys as you may have."),
    ),
)]
pub(crate) async fn create_api_key(
    State(state): State<AppState>,
    me: SessionUser,
    client: ClientInfo,
    ValidatedJson(request): ValidatedJson<CreateApiKeyRequest>,
) -> Result<(StatusCode, Json<NewApiKey>)> {
    let new = api_keys::new_key(&state.keys, me.user.id)?;
    let scopes: Vec<&str> = request.scopes.iter().map(|scope| scope.name()).collect();
    let row = api_key::ActiveModel {
        id: Set(new_id()),
        user_id: Set(me.user.id),
        name: Set(request.name),
        prefix: Set(new.prefix),
        hash: Set(new.hash),
        scopes: Set(scopes.join(" ")),
        created_at: Set(now()),
        last_used_at: Set(None),
        expires_at: Set(request.expires_at),
    };
    let created = state
        .db
        .transaction(async move |tx| {
            // Else several at once might be too many.
            let locked = user::Entity::lock_for_update(tx, me.user.id).await?;
            let owner = locked.ok_or(Error::SessionRevoked)?;
            let keys = api_key::Entity::of_user(owner.id).limit(MAX_KEYS);
            if keys.count(tx).await? >= MAX_KEYS {
                return Err(Error::TooManyKeys);
            }
            let key = api_key::Entity::insert(row).exec_with_returning(tx).await?;
            audit(&client, Action::ApiKeyCreated, &owner, key.id)
                .insert(tx)
                .await?;
            Ok(key)
        })
        .await?;
    let created = NewApiKey {
        key: new.key,
        about: created.into(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// List your API keys
///
/// The newest first.
#[utoipa::path(
    get, path = "/users/me/keys", tag = "users", operation_id = "list_api_keys",
    responses((status = 200, body = ApiKeys)),
)]
pub(crate) async fn list_api_keys(
    State(state): State<AppState>,
    me: SessionUser,
) -> Result<Json<ApiKeys>> {
    let keys = api_key::Entity::of_user(me.user.id);
    let keys = keys.all(state.db.read()).await?;
    let items = keys.into_iter().map(ApiKey::from).collect();
    Ok(Json(ApiKeys { items }))
}

/// Revoke an API key
///
/// It is refused from then on.
#[utoipa::path(
    delete, path = "/users/me/keys/{id}", tag = "users", operation_id = "revoke_api_key",
    params(("id" = Uuid, Path)),
    responses((status = 204)),
)]
pub(crate) async fn revoke_api_key(
    State(state): State<AppState>,
    me: SessionUser,
    client: ClientInfo,
    PathId(id): PathId,
) -> Result<StatusCode> {
    state
        .db
        .transaction(async move |tx| {
            if !api_key::Entity::revoke(tx, me.user.id, id).await? {
                return Err(Error::NotFound);
            }
            audit(&client, Action::ApiKeyRevoked, &me.user, id)
                .insert(tx)
                .await?;
            Ok(())
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn audit(
    client: &ClientInfo,
    action: Action,
    owner: &user::Model,
    key: Uuid,
) -> entity::audit::AuditEvent {
    let details = Some(json!({ "key_id": key }));
    client.audit_event(action, Some(owner), Some(owner), details)
}
