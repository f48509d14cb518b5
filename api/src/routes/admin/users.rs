//! All users, whether they are let in, and what they may do.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use entity::audit::{Action, Event, Source, Who};
use entity::clock::now;
use entity::{job, session, user};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, DatabaseTransaction, EntityTrait, IntoActiveModel,
    QueryFilter, Set,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::auth::Admin;
use crate::body::{Body, Fields, Valid, any};
use crate::client::Client;
use crate::error::{Error, Result, both};
use crate::page::{After, List, limit, link, look_through};
use crate::query::{Id, Params, searched};
use crate::routes::users::Role;
use crate::routes::{optional_timestamp, timestamp};
use shared::queue::{self, CANCEL_BATCH};

use crate::{AppState, search};

/// Which users to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// What the name must contain, whatever its case.
    #[param(max_length = 200, pattern = "^[^\\x00]*$")]
    q: Option<String>,
    /// How many a page may have, by default 20.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(max_length = 500, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// A page of users.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountPage {
    #[schema(max_items = 100)]
    items: Vec<Account>,
    /// Leads to the next page; null on the last one. A search may have fewer
    /// users than asked for on a page that is not the last.
    next_cursor: Option<String>,
}

/// A user, as admins see them.
#[derive(Debug, Serialize, ToSchema)]
pub struct Account {
    id: Uuid,
    username: String,
    role: Role,
    /// Whether they are kept out.
    disabled: bool,
    /// Since when they are kept out.
    #[serde(serialize_with = "optional_timestamp")]
    disabled_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "timestamp")]
    created_at: DateTime<Utc>,
}

impl From<user::Model> for Account {
    fn from(user: user::Model) -> Self {
        Account {
            id: user.id,
            username: user.username,
            role: user.role.into(),
            disabled: user.disabled_at.is_some(),
            disabled_at: user.disabled_at,
            created_at: user.created_at,
        }
    }
}

/// What is to be otherwise; what is left out stays.
#[derive(Clone, Copy, Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountChange {
    role: Option<Role>,
    /// Whether to keep them out: all their sessions end, and their jobs are
    /// canceled.
    disabled: Option<bool>,
}

impl Body for AccountChange {
    fn read(fields: &mut Fields) -> Option<Self> {
        let role = fields.optional("role", any);
        let disabled = fields.optional("disabled", any);
        Some(AccountChange {
            role: role?,
            disabled: disabled?,
        })
    }
}

/// List all users
///
/// The newest first. A page of a search looks through no more than 2,500 users,
/// so it may have few or none, and still lead to a next one.
#[utoipa::path(
    get, path = "/admin/users", tag = "admin", operation_id = "list_users",
    params(Filter),
    responses((status = 200, body = AccountPage)),
)]
pub async fn list(
    State(state): State<AppState>,
    Admin(me): Admin,
    OriginalUri(uri): OriginalUri,
    Params(filter): Params<Filter>,
) -> Result<(HeaderMap, Json<AccountPage>)> {
    let (limit, q) = both(limit(filter.limit), searched(filter.q.as_deref()))?;
    let list = List {
        keys: &state.keys,
        user: me.user.id,
        name: "admin,users",
    };
    let mut users = user::Entity::find();
    if let Some(cursor) = &filter.cursor {
        let after: After = list.position(cursor)?;
        users = users.filter(user::Column::Id.lt(after.id));
    }
    let named = q.map(|q| {
        let name = Expr::col(user::Column::Username);
        Condition::all().add(search::contains(state.db.backend(), name, q))
    });
    let (users, next) = look_through(
        state.db.read(),
        users,
        named,
        user::Column::Id,
        |user| user.id,
        limit,
    )
    .await?;
    let next_cursor = next.map(|after| list.cursor(&after)).transpose()?;
    let items = users.into_iter().map(Account::from).collect();
    let headers = link(&uri, next_cursor.as_deref());
    Ok((headers, Json(AccountPage { items, next_cursor })))
}

/// Change what a user may do, or keep them out
///
/// Who is disabled has no session from then on, their queued jobs are canceled,
/// and those that run are stopped. It acts at once.
#[utoipa::path(
    patch, path = "/admin/users/{id}", tag = "admin", operation_id = "update_user",
    params(("id" = Uuid, Path)),
    request_body = AccountChange,
    responses(
        (status = 200, body = Account),
        (status = 409, description = "There would be no admin left.", body = crate::error::Problem,
            content_type = "application/problem+json"),
    ),
)]
pub async fn update(
    State(state): State<AppState>,
    Admin(me): Admin,
    client: Client,
    Id(id): Id,
    Valid(change): Valid<AccountChange>,
) -> Result<Json<Account>> {
    let (user, canceled) = state
        .db
        .transaction(async move |tx| apply(tx, me.user, client.source(), id, change).await)
        .await?;
    canceled.iter().for_each(|job| state.metrics.canceled(job));
    if canceled.len() as u64 == CANCEL_BATCH {
        cancel_remaining(&state, id).await?;
    }
    Ok(Json(user.into()))
}

/// Makes the change, and writes it down. Returns the user as they are then, and
/// the first of their jobs that were called off.
/// Cancels what is left of the jobs of a disabled user, batch by batch. Should this
/// break off, the cleanup goes on with it.
async fn cancel_remaining(state: &AppState, user: Uuid) -> Result<()> {
    loop {
        let canceled = state
            .db
            .transaction(async move |tx| queue::cancel_for_disabled(tx, user, CANCEL_BATCH).await)
            .await?;
        canceled.iter().for_each(|job| state.metrics.canceled(job));
        if canceled.is_empty() {
            return Ok(());
        }
    }
}

async fn apply(
    tx: &DatabaseTransaction,
    me: user::Model,
    source: Source,
    id: Uuid,
    change: AccountChange,
) -> Result<(user::Model, Vec<job::Model>)> {
    let held = user::Entity::hold_with_admins(tx, id).await?;
    let found = |id| held.iter().find(|user| user.id == id);
    // Another may have taken that away since the request came.
    if !found(me.id).is_some_and(user::Model::is_admin) {
        return Err(Error::Forbidden);
    }
    let before = found(id).ok_or(Error::NotFound)?;
    let role = change.role.map_or(before.role, user::Role::from);
    let disabled_at = match change.disabled {
        Some(true) => before.disabled_at.or_else(|| Some(now())),
        Some(false) => None,
        None => before.disabled_at,
    };
    let mut after = before.clone().into_active_model();
    after.role = Set(role);
    after.disabled_at = Set(disabled_at);
    let after = after.update(tx).await?;
    let mut others = held.iter().filter(|user| user.id != id);
    if before.is_admin() && !after.is_admin() && !others.any(user::Model::is_admin) {
        return Err(Error::LastAdmin);
    }

    for (action, details) in changes(before, &after) {
        let event = Event {
            action,
            actor: Some(Who::from(&me)),
            subject: Some(Who::from(&after)),
            source: source.clone(),
            details,
        };
        event.record(tx).await?;
    }
    let mut canceled = Vec::new();
    if change.disabled == Some(true) {
        session::Entity::revoke_all(tx, id, None).await?;
        canceled = queue::cancel_for_user(tx, id, CANCEL_BATCH).await?;
    }
    Ok((after, canceled))
}

/// What is to be written down of a change.
fn changes(before: &user::Model, after: &user::Model) -> Vec<(Action, Option<serde_json::Value>)> {
    let mut changes = Vec::new();
    if before.role != after.role {
        let details = json!({ "from": Role::from(before.role), "to": Role::from(after.role) });
        changes.push((Action::RoleChanged, Some(details)));
    }
    match (before.disabled_at, after.disabled_at) {
        (None, Some(_)) => changes.push((Action::UserDisabled, None)),
        (Some(_), None) => changes.push((Action::UserEnabled, None)),
        _ => {}
    }
    changes
}
