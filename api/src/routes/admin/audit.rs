//! The audit trail. It can be read, and nothing else.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use entity::audit;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::AppState;
use crate::auth::current_user::AdminUser;
use crate::error::Result;
use crate::extract::query::ValidatedQuery;
use crate::pagination::{CursorCodec, IdCursor, next_link_header, page_limit, split_page};
use crate::routes::timestamp;

/// Which events to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListAuditQuery {
    /// How many a page may have, by default 20.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(max_length = 500, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// A page of the audit trail.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEventPage {
    #[schema(max_items = 100)]
    items: Vec<AuditEvent>,
    /// Leads to the next page; null on the last one.
    next_cursor: Option<String>,
}

/// Something that was done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEvent {
    id: Uuid,
    #[serde(serialize_with = "timestamp")]
    at: DateTime<Utc>,
    action: audit::Action,
    /// Who did it; null where nobody was signed in.
    actor: Option<UserRef>,
    /// The user whom it was done to; null where it was none.
    subject: Option<UserRef>,
    /// The address that it came from; null for the command line.
    address: Option<String>,
    /// The request that did it, as the log has it; null for the command line.
    request_id: Option<String>,
    /// What else there is to say.
    #[schema(value_type = Option<Object>)]
    details: Option<Value>,
}

/// A user, as they were called at the time.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserRef {
    id: Uuid,
    username: String,
}

impl UserRef {
    fn new(id: Option<Uuid>, username: Option<String>) -> Option<Self> {
        id.zip(username)
            .map(|(id, username)| UserRef { id, username })
    }
}

impl From<audit::Model> for AuditEvent {
    fn from(event: audit::Model) -> Self {
        AuditEvent {
            id: event.id,
            at: event.at,
            action: event.action,
            actor: UserRef::new(event.actor_id, event.actor),
            subject: UserRef::new(event.subject_id, event.subject),
            address: event.address,
            request_id: event.request_id,
            details: event.details,
        }
    }
}

/// Read the audit trail
///
/// The latest first. Events are kept for 400 days.
#[utoipa::path(
    get, path = "/admin/audit", tag = "admin", operation_id = "list_audit_events",
    params(ListAuditQuery),
    responses((status = 200, body = AuditEventPage)),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    AdminUser(me): AdminUser,
    OriginalUri(uri): OriginalUri,
    ValidatedQuery(filter): ValidatedQuery<ListAuditQuery>,
) -> Result<(HeaderMap, Json<AuditEventPage>)> {
    let limit = page_limit(filter.limit)?;
    let list = CursorCodec {
        keys: &state.keys,
        user: me.user.id,
        name: "admin,audit",
    };
    let mut events = audit::Entity::find()
        .order_by_desc(audit::Column::Id)
        .limit(limit + 1);
    if let Some(cursor) = &filter.cursor {
        let after: IdCursor = list.decode(cursor)?;
        events = events.filter(audit::Column::Id.lt(after.id));
    }
    let mut events = events.all(state.db.read()).await?;
    let last = split_page(&mut events, limit).map(|last| IdCursor { id: last.id });
    let next_cursor = last.map(|after| list.encode(&after)).transpose()?;
    let items = events.into_iter().map(AuditEvent::from).collect();
    let headers = next_link_header(&uri, next_cursor.as_deref());
    Ok((headers, Json(AuditEventPage { items, next_cursor })))
}
