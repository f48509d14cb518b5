//! The events of a job, as a stream or by long poll.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::events::JobEvent;
use utoipa::{IntoParams, ToSchema};

use super::read::max_wait;
use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};
use crate::events::{EventReader, Frame};
use crate::extract::path::PathId;
use crate::extract::query::ValidatedQuery;
use crate::http_headers::prefers_json_to;
use crate::state::AppState;

/// How often a comment is sent when nothing else is, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// When a client is to come back after its connection has broken.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// Which events to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// The number of the last event that the client has. Without one it gets a `snapshot` first.
    #[param(minimum = 0, maximum = 2147483647)]
    after: Option<i32>,
    /// Only with `Accept: application/json`: wait for so many seconds if there are no events yet.
    #[param(minimum = 0, maximum = 60)]
    wait: Option<u64>,
}

/// Events of a job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventList {
    /// In order; each as in the stream.
    #[schema(value_type = Vec<JobEvent>)]
    events: Vec<Value>,
    /// What to give as `after` for those that follow; null if there were none yet.
    next: Option<i32>,
}

/// Watch a job
///
/// A stream of events, as the post is written. Each event has the next number of the job as its
/// `id`; `Last-Event-ID`, or `after`, gives those that follow. A client without a number, or whose
/// next event is not kept any more, gets all so far in one `snapshot`. The stream closes after the
/// `end`; who asks for more then gets 204. With `Accept: application/json` the same events come as
/// a list.
#[utoipa::path(
    get, path = "/jobs/{id}/events", tag = "jobs",
    params(
        ("id" = Uuid, Path),
        EventsQuery,
        (
            "Last-Event-ID" = Option<i32>, Header, nullable = false, minimum = 0,
            maximum = 2147483647, description = "Wins over `after`.",
        ),
    ),
    responses(
        (status = 200, content(
            (JobEvent = "text/event-stream"),
            (EventList = "application/json"),
        )),
        (status = 204, description = "The job has finished, and the client has all of its events."),
    ),
)]
pub(crate) async fn get_job_events(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    ValidatedQuery(query): ValidatedQuery<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let wait = max_wait(query.wait)?.unwrap_or_default();
    if query.after.is_some_and(|after| after < 0) {
        let message = "must be the number of an event, or 0";
        return Err(Error::invalid("after", "out_of_range", message));
    }
    let after = last_event_id(&headers)?.or(query.after);
    let job = me.job(id).one(state.db.read()).await?;
    let job = job.ok_or(Error::NotFound)?;
    let Some(reader) = state.events.open(&me, &job, after).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    if prefers_json_to(&headers, "text/event-stream") {
        return Ok(Json(read_list(reader, wait).await?).into_response());
    }
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(events(reader))
        .keep_alive(keep_alive)
        .into_response();
    let headers = response.headers_mut();
    let no_store = HeaderValue::from_static("no-store");
    headers.insert(header::CACHE_CONTROL, no_store);
    // Else nginx collects the events before it sends them.
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    headers.insert(unbuffered, HeaderValue::from_static("no"));
    Ok(response)
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i32>> {
    let Some(id) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let id = id.to_str().ok().and_then(|id| id.trim().parse().ok());
    let id = id.filter(|id| *id >= 0);
    let invalid = || Error::invalid("Last-Event-ID", "invalid", "must be the number of an event");
    id.map(Some).ok_or_else(invalid)
}

fn events(reader: EventReader) -> impl Stream<Item = std::result::Result<Event, Infallible>> {
    let begin = stream::once(async { Event::default().retry(RECONNECT_AFTER) });
    let frames = stream::unfold(reader, async |mut reader| {
        let frames = reader.next(Duration::MAX).await.unwrap_or_else(|error| {
            // The client comes back with its number.
            tracing::warn!(?error, "can't read events; closing a stream");
            None
        })?;
        Some((stream::iter(frames), reader))
    });
    let event = |Frame { seq, name, data }: Frame| {
        Event::default().id(seq.to_string()).event(name).data(data)
    };
    begin.chain(frames.flatten().map(event)).map(Ok)
}

async fn read_list(mut reader: EventReader, wait: Duration) -> Result<EventList> {
    let frames = reader.next(wait).await?.unwrap_or_default();
    let event = |Frame { seq, name, data }: Frame| {
        let data: Value = serde_json::from_str(&data).map_err(Error::internal)?;
        Ok(json!({ "id": seq, "event": name, "data": data }))
    };
    Ok(EventList {
        events: frames.into_iter().map(event).collect::<Result<_>>()?,
        next: reader.after(),
    })
}
