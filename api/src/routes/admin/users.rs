//! All users: listing them, changing their role, disabling them.

use axum::Json;
use axum::extract::{OriginalUri, State};
use chrono::{DateTime, Utc};
use entity::audit::Action;
use entity::clock::now;
use entity::{session, user};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, Condition, DatabaseTransaction, EntityTrait, IntoActiveModel, Set,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::queue::{self, CANCEL_BATCH};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::auth::current_user::AdminUser;
use crate::error::{Error, Result, merge_violations};
use crate::extract::client_info::ClientInfo;
use crate::extract::field_reader::{FieldReader, FromFields, accept_any};
use crate::extract::json::ValidatedJson;
use crate::extract::path::PathId;
use crate::extract::query::{ValidatedQuery, search_term};
use crate::pagination::{CursorCodec, Page, PageRequest, PageResponse, paginate};
use crate::routes::{optional_timestamp, timestamp};
use crate::state::AppState;
use crate::substring_search;

/// Which users to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListUsersQuery {
    /// Text in the name, case-insensitive.
    #[param(max_length = 200, pattern = "^[^\\x00]*$")]
    q: Option<String>,
    /// Entries per page, by default 20.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
    /// `next_cursor` of the previous page.
    #[param(max_length = 500, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// A user as admins see them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdminUserView {
    id: Uuid,
    username: String,
    role: user::Role,
    /// Whether the account is disabled.
    disabled: bool,
    /// Since when it is disabled.
    #[serde(serialize_with = "optional_timestamp")]
    disabled_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "timestamp")]
    created_at: DateTime<Utc>,
}

impl From<user::Model> for AdminUserView {
    fn from(user: user::Model) -> Self {
        AdminUserView {
            id: user.id,
            username: user.username,
            role: user.role,
            disabled: user.disabled_at.is_some(),
            disabled_at: user.disabled_at,
            created_at: user.created_at,
        }
    }
}

/// What to change; what is left out stays.
#[derive(Clone, Copy, Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateUserRequest {
    role: Option<user::Role>,
    /// Whether to disable the account: all its sessions end, and its jobs are canceled.
    disabled: Option<bool>,
}

impl FromFields for UpdateUserRequest {
    fn from_fields(fields: &mut FieldReader) -> Option<Self> {
        let role = fields.optional("role", accept_any);
        let disabled = fields.optional("disabled", accept_any);
        Some(UpdateUserRequest {
            role: role?,
            disabled: disabled?,
        })
    }
}

type AdminUserViewPage = Page<AdminUserView>;

/// List all users
///
/// The newest first. A page of a search scans at most 2,500 users, so it may have few or none, and
/// still have a next one.
#[utoipa::path(
    get, path = "/admin/users", tag = "admin",
    params(ListUsersQuery),
    responses((status = 200, body = AdminUserViewPage)),
)]
pub(crate) async fn list_users(
    State(state): State<AppState>,
    AdminUser(me): AdminUser,
    OriginalUri(uri): OriginalUri,
    ValidatedQuery(query): ValidatedQuery<ListUsersQuery>,
) -> Result<PageResponse<AdminUserView>> {
    let list = CursorCodec::new(&state.keys, me.user.id, "admin,users");
    let page = PageRequest::new(list, query.limit, query.cursor.as_deref());
    let (page, q) = merge_violations(page, search_term(query.q.as_deref()))?;
    let named = q.map(|q| {
        let name = Expr::col(user::Column::Username);
        Condition::all().add(substring_search::contains(state.db.backend(), name, q))
    });
    let db = state.db.read();
    let users = user::Entity::find();
    let (users, next) = paginate(db, page, users, named, user::Column::Id).await?;
    let items = users.into_iter().map(AdminUserView::from).collect();
    Ok(Page::response(&uri, items, next))
}

/// Change a user's role, or disable the account
///
/// It takes effect at once. A disabled user's sessions end, queued jobs are canceled, and running
/// ones are stopped.
#[utoipa::path(
    patch, path = "/admin/users/{id}", tag = "admin",
    params(("id" = Uuid, Path)),
    request_body = UpdateUserRequest,
    responses(
        (status = 200, body = AdminUserView),
        (status = 409, description = "At least one admin is required."),
    ),
)]
pub(crate) async fn update_user(
    State(state): State<AppState>,
    AdminUser(me): AdminUser,
    client: ClientInfo,
    PathId(id): PathId,
    ValidatedJson(change): ValidatedJson<UpdateUserRequest>,
) -> Result<Json<AdminUserView>> {
    let (user, canceled) = state
        .db
        .transaction(async move |tx| {
            let locked = user::Entity::lock_with_admins(tx, id).await?;
            let found = |id| locked.iter().find(|user| user.id == id);
            // The role may have been taken away since the request came.
            if !found(me.user.id).is_some_and(user::Model::is_admin) {
                return Err(Error::Forbidden);
            }
            let before = found(id).ok_or(Error::NotFound)?;
            let after = apply(tx, before, change).await?;
            let mut others = locked.iter().filter(|user| user.id != id);
            if before.is_admin() && !after.is_admin() && !others.any(user::Model::is_admin) {
                return Err(Error::LastAdmin);
            }
            for (action, details) in changes(before, &after) {
                let event = client.audit_event(action, Some(&me.user), Some(&after), details);
                event.insert(tx).await?;
            }
            let mut canceled = Vec::new();
            if change.disabled == Some(true) {
                session::Entity::revoke_all(tx, id, None).await?;
                canceled = queue::cancel_for_user(tx, id, CANCEL_BATCH).await?;
            }
            Ok((after, canceled))
        })
        .await?;
    for job in &canceled {
        state.metrics.job_canceled(job);
    }
    if canceled.len() as u64 == CANCEL_BATCH {
        cancel_remaining(&state, id).await?;
    }
    Ok(Json(user.into()))
}

async fn apply(
    tx: &DatabaseTransaction,
    before: &user::Model,
    change: UpdateUserRequest,
) -> Result<user::Model> {
    let mut user = before.clone().into_active_model();
    user.role = Set(change.role.unwrap_or(before.role));
    user.disabled_at = Set(match change.disabled {
        Some(true) => before.disabled_at.or_else(|| Some(now())),
        Some(false) => None,
        None => before.disabled_at,
    });
    Ok(user.update(tx).await?)
}

/// Cancels the remaining jobs of a disabled user in batches. If it is interrupted, the cleanup
/// continues.
async fn cancel_remaining(state: &AppState, user: Uuid) -> Result<()> {
    loop {
        let canceled = state
            .db
            .transaction(async move |tx| queue::cancel_for_disabled(tx, user, CANCEL_BATCH).await)
            .await?;
        for job in &canceled {
            state.metrics.job_canceled(job);
        }
        if canceled.is_empty() {
            return Ok(());
        }
    }
}

/// The audit events of a change, with their details.
fn changes(before: &user::Model, after: &user::Model) -> Vec<(Action, Option<serde_json::Value>)> {
    let mut changes = Vec::new();
    if before.role != after.role {
        let details = json!({ "from": before.role, "to": after.role });
        changes.push((Action::RoleChanged, Some(details)));
    }
    match (before.disabled_at, after.disabled_at) {
        (None, Some(_)) => changes.push((Action::UserDisabled, None)),
        (Some(_), None) => changes.push((Action::UserEnabled, None)),
        _ => {}
    }
    changes
}
