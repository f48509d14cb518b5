//! The audit trail, which is read-only.

use axum::extract::{OriginalUri, State};
use chrono::{DateTime, Utc};
use entity::audit;
use sea_orm::EntityTrait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::auth::current_user::AdminUser;
use crate::error::Result;
use crate::extract::query::ValidatedQuery;
use crate::pagination::{CursorCodec, Page, PageRequest, PageResponse, paginate};
use crate::routes::timestamp;
use crate::state::AppState;

/// Which events to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListAuditQuery {
    /// Entries per page, by default 20.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
    /// `next_cursor` of the previous page.
    #[param(max_length = 500, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// An audit event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEvent {
    id: Uuid,
    #[serde(serialize_with = "timestamp")]
    at: DateTime<Utc>,
    action: audit::Action,
    /// Who did it; null if nobody was signed in.
    actor: Option<UserRef>,
    /// The user it was done to; null if it was none.
    subject: Option<UserRef>,
    /// The client's address; null for the command line.
    address: Option<String>,
    /// The request's id, as in the log; null for the command line.
    request_id: Option<String>,
    /// Further details.
    #[schema(value_type = Option<Object>)]
    details: Option<Value>,
}

/// A user, with the name at the time.
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

type AuditEventPage = Page<AuditEvent>;

/// List audit events
///
/// The latest first. Events are kept for 400 days.
#[utoipa::path(
    get, path = "/admin/audit", tag = "admin",
    params(ListAuditQuery),
    responses((status = 200, body = AuditEventPage)),
)]
pub(crate) async fn list_audit_events(
    State(state): State<AppState>,
    AdminUser(me): AdminUser,
    OriginalUri(uri): OriginalUri,
    ValidatedQuery(query): ValidatedQuery<ListAuditQuery>,
) -> Result<PageResponse<AuditEvent>> {
    let list = CursorCodec::new(&state.keys, me.user.id, "admin,audit");
    let page = PageRequest::new(list, query.limit, query.cursor.as_deref())?;
    let db = state.db.read();
    let events = audit::Entity::find();
    let (events, next) = paginate(db, page, events, None, audit::Column::Id).await?;
    let items = events.into_iter().map(AuditEvent::from).collect();
    Ok(Page::response(&uri, items, next))
}
