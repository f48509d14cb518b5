//! The audit trail. It can be read, and nothing else.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use entity::audit;
use sea_orm::{ActiveEnum, ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::AppState;
use crate::auth::Admin;
use crate::error::Result;
use crate::page::{After, List, cut, limit, link};
use crate::query::Params;
use crate::routes::timestamp;

/// Which events to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// How many a page may have, by default 20.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(max_length = 500, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// A page of the audit trail.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventPage {
    #[schema(max_items = 100)]
    items: Vec<Event>,
    /// Leads to the next page; null on the last one.
    next_cursor: Option<String>,
}

/// Something that was done.
#[derive(Debug, Serialize, ToSchema)]
pub struct Event {
    id: Uuid,
    #[serde(serialize_with = "timestamp")]
    at: DateTime<Utc>,
    /// What was done.
    #[schema(example = "role_changed")]
    action: String,
    /// Who did it; null where nobody was signed in.
    actor: Option<Who>,
    /// The user whom it was done to; null where it was none.
    subject: Option<Who>,
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
pub struct Who {
    id: Uuid,
    username: String,
}

impl Who {
    fn new(id: Option<Uuid>, username: Option<String>) -> Option<Self> {
        id.zip(username).map(|(id, username)| Who { id, username })
    }
}

impl From<audit::Model> for Event {
    fn from(event: audit::Model) -> Self {
        Event {
            id: event.id,
            at: event.at,
            action: event.action.to_value(),
            actor: Who::new(event.actor_id, event.actor),
            subject: Who::new(event.subject_id, event.subject),
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
    params(Filter),
    responses((status = 200, body = EventPage)),
)]
pub async fn list(
    State(state): State<AppState>,
    Admin(me): Admin,
    OriginalUri(uri): OriginalUri,
    Params(filter): Params<Filter>,
) -> Result<(HeaderMap, Json<EventPage>)> {
    let limit = limit(filter.limit)?;
    let list = List {
        keys: &state.keys,
        user: me.user.id,
        name: "admin,audit",
    };
    let mut events = audit::Entity::find()
        .order_by_desc(audit::Column::Id)
        .limit(limit + 1);
    if let Some(cursor) = &filter.cursor {
        let after: After = list.position(cursor)?;
        events = events.filter(audit::Column::Id.lt(after.id));
    }
    let mut events = events.all(state.db.read()).await?;
    let last = cut(&mut events, limit).map(|last| After { id: last.id });
    let next_cursor = last.map(|after| list.cursor(&after)).transpose()?;
    let items = events.into_iter().map(Event::from).collect();
    let headers = link(&uri, next_cursor.as_deref());
    Ok((headers, Json(EventPage { items, next_cursor })))
}
