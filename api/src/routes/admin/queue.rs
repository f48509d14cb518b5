//! The queue's statistics, and pausing it.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use entity::audit::Action;
use entity::clock::now;
use entity::queue_state;
use sea_orm::ConnectionTrait;
use serde::Serialize;
use shared::queue::{self, JobTimings};
use utoipa::ToSchema;

use crate::auth::current_user::{AdminUser, CurrentUser};
use crate::error::{Error, Result};
use crate::extract::client_info::ClientInfo;
use crate::routes::{optional_timestamp, timestamp};
use crate::state::AppState;

/// Jobs of a status are counted up to this number.
const MAX_COUNTED: u32 = 10_000;

/// Timings are of the latest jobs of the last hour, up to this number.
const MAX_MEASURED: u64 = 2_000;

/// The queue's state and statistics.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Queue {
    /// Whether workers take no jobs.
    paused: bool,
    /// Since when it is paused.
    #[serde(serialize_with = "optional_timestamp")]
    paused_at: Option<DateTime<Utc>>,
    counts: StatusCounts,
    /// When the oldest queued job was created or last retried.
    #[serde(serialize_with = "optional_timestamp")]
    oldest_queued_at: Option<DateTime<Utc>>,
    /// Its age.
    oldest_queued_seconds: Option<i64>,
    /// Jobs that finished in the last minute.
    jobs_per_minute: f64,
    /// The time from a job's creation or last manual retry to its first attempt since; null if no
    /// started job has finished in the last hour.
    pickup_ms: Option<Percentiles>,
    /// The time from there to its end.
    duration_ms: Option<Percentiles>,
}

/// Jobs by status; 10000 means that many or more.
#[derive(Debug, Serialize, ToSchema)]
#[allow(missing_docs, reason = "each is a status")]
pub(crate) struct StatusCounts {
    queued: i64,
    running: i64,
    awaiting_review: i64,
    canceling: i64,
    succeeded: i64,
    failed: i64,
    canceled: i64,
}

/// Percentiles over the jobs of the last hour, or the latest 2,000 of them, in milliseconds.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Percentiles {
    p50: i64,
    p95: i64,
    p99: i64,
}

impl From<queue::StatusCounts> for StatusCounts {
    fn from(counts: queue::StatusCounts) -> Self {
        StatusCounts {
            queued: counts.queued,
            running: counts.running,
            awaiting_review: counts.awaiting_review,
            canceling: counts.canceling,
            succeeded: counts.succeeded,
            failed: counts.failed,
            canceled: counts.canceled,
        }
    }
}

impl Queue {
    async fn load(db: &impl ConnectionTrait) -> Result<Queue> {
        let now = now();
        let paused_at = queue_state::Entity::paused_at(db).await?;
        let counts = queue::status_counts(db, MAX_COUNTED).await?;
        let oldest_queued_at = queue::oldest_queued(db).await?;
        let hour = now - TimeDelta::hours(1);
        let over = queue::finished_since(db, hour, MAX_MEASURED).await?;
        let pickups = over
            .iter()
            .filter_map(|job| Some(job.started_at? - job.asked_at));
        let durations = over
            .iter()
            .filter_map(|job| Some(job.finished_at - job.started_at?));
        Ok(Queue {
            paused: paused_at.is_some(),
            paused_at,
            counts: counts.into(),
            oldest_queued_at,
            oldest_queued_seconds: oldest_queued_at
                .map(|oldest| (now - oldest).num_seconds().max(0)),
            jobs_per_minute: per_minute(&over, now),
            pickup_ms: Percentiles::of(pickups),
            duration_ms: Percentiles::of(durations),
        })
    }
}

/// The rate of the last minute, or of the shorter time that `over` covers.
fn per_minute(over: &[JobTimings], now: DateTime<Utc>) -> f64 {
    let minute = TimeDelta::minutes(1);
    let recent = over
        .iter()
        .take_while(|job| now - job.finished_at <= minute);
    let count = recent.count();
    let all_are_recent = count as u64 == MAX_MEASURED;
    let oldest = over.last().filter(|_| all_are_recent);
    let span = oldest.map_or(minute, |job| now - job.finished_at);
    let span = span
        .to_std()
        .unwrap_or_default()
        .max(Duration::from_secs(1));
    (count as f64 * 60.0 / span.as_secs_f64()).round()
}

impl Percentiles {
    fn of(durations: impl Iterator<Item = TimeDelta>) -> Option<Self> {
        // Clocks of several machines may differ a little.
        let mut millis: Vec<i64> = durations.map(|d| d.num_milliseconds().max(0)).collect();
        millis.sort_unstable();
        let at = |percent: usize| {
            let rank = (millis.len() * percent).div_ceil(100);
            millis.get(rank.max(1) - 1).copied()
        };
        Some(Percentiles {
            p50: at(50)?,
            p95: at(95)?,
            p99: at(99)?,
        })
    }
}

/// The last hour of the queue.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueueHistory {
    /// Its minutes, 60 whole ones and the present one, the earliest first.
    items: Vec<QueueMinute>,
}

/// The jobs that finished in a minute.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueueMinute {
    /// When it began.
    #[serde(serialize_with = "timestamp")]
    start: DateTime<Utc>,
    /// How many jobs finished, in any way; 10000 means that many or more.
    #[schema(minimum = 0, maximum = 10000)]
    finished: i64,
    /// How many of them failed.
    #[schema(minimum = 0, maximum = 10000)]
    failed: i64,
}

const MINUTES: i64 = 60;

impl QueueHistory {
    async fn load(db: &impl ConnectionTrait) -> Result<QueueHistory> {
        let present = now().duration_trunc(TimeDelta::minutes(1));
        let present = present.map_err(|error| Error::Internal(error.to_string()))?;
        let times: Vec<_> = (-MINUTES..=1)
            .map(|minute| present + TimeDelta::minutes(minute))
            .collect();
        let counts = queue::finished_between(db, &times, MAX_COUNTED).await?;
        let minutes = times.into_iter().zip(counts);
        let items = minutes.map(|(start, counts)| QueueMinute {
            start,
            finished: counts.finished,
            failed: counts.failed,
        });
        Ok(QueueHistory {
            items: items.collect(),
        })
    }
}

/// Get the last hour of the queue
///
/// How many jobs finished in each minute.
#[utoipa::path(
    get, path = "/admin/queue/history", tag = "admin",
    responses((status = 200, body = QueueHistory)),
)]
pub(crate) async fn get_queue_history(
    State(state): State<AppState>,
    _: AdminUser,
) -> Result<Json<QueueHistory>> {
    Ok(Json(QueueHistory::load(state.db.read()).await?))
}

/// Get the queue's state and statistics
#[utoipa::path(
    get, path = "/admin/queue", tag = "admin",
    responses((status = 200, body = Queue)),
)]
pub(crate) async fn get_queue(State(state): State<AppState>, _: AdminUser) -> Result<Json<Queue>> {
    Ok(Json(Queue::load(state.db.read()).await?))
}

/// Pause the queue
///
/// Workers take no more jobs; running ones continue, and new ones are accepted. It stays paused
/// until it is resumed, across restarts.
#[utoipa::path(
    post, path = "/admin/queue/pause", tag = "admin",
    responses((status = 200, body = Queue)),
)]
pub(crate) async fn pause_queue(
    State(state): State<AppState>,
    AdminUser(me): AdminUser,
    client: ClientInfo,
) -> Result<Json<Queue>> {
    set_paused(&state, Action::QueuePaused, me, client).await
}

/// Resume the queue
#[utoipa::path(
    post, path = "/admin/queue/resume", tag = "admin",
    responses((status = 200, body = Queue)),
)]
pub(crate) async fn resume_queue(
    State(state): State<AppState>,
    AdminUser(me): AdminUser,
    client: ClientInfo,
) -> Result<Json<Queue>> {
    set_paused(&state, Action::QueueResumed, me, client).await
}

async fn set_paused(
    state: &AppState,
    action: Action,
    me: CurrentUser,
    client: ClientInfo,
) -> Result<Json<Queue>> {
    state
        .db
        .transaction(async move |tx| {
            let changed = match action {
                Action::QueuePaused => queue_state::Entity::pause(tx).await?,
                _ => queue_state::Entity::resume(tx).await?,
            };
            if changed {
                let event = client.audit_event(action, Some(&me.user), None, None);
                event.insert(tx).await?;
            }
            Ok::<_, Error>(())
        })
        .await?;
    Ok(Json(Queue::load(state.db.read()).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_that_so_many_do_not_exceed() {
        let of =
            |millis: Vec<i64>| Percentiles::of(millis.into_iter().map(TimeDelta::milliseconds));
        assert_eq!(of(Vec::new()), None);
        let one = Percentiles {
            p50: 7,
            p95: 7,
            p99: 7,
        };
        assert_eq!(of(vec![7]), Some(one));
        let hundred = Percentiles {
            p50: 50,
            p95: 95,
            p99: 99,
        };
        assert_eq!(of((1..=100).rev().collect()), Some(hundred));
    }

    #[test]
    fn the_rate_is_that_of_the_last_minute() {
        let now = now();
        let over = |ago: i64| JobTimings {
            asked_at: now - TimeDelta::hours(2),
            started_at: None,
            finished_at: now - TimeDelta::seconds(ago),
        };
        assert_eq!(per_minute(&[], now), 0.0);
        assert_eq!(per_minute(&[over(1), over(59), over(61)], now), 2.0);
        // More than are looked at were over in the last half minute.
        let many = vec![over(30); MAX_MEASURED as usize];
        assert_eq!(per_minute(&many, now), 4_000.0);
    }
}
