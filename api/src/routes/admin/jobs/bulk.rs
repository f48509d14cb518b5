//! Canceling and retrying all jobs that match a filter.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use entity::audit::Action;
use entity::{job, user};
use sea_orm::{
    ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::queue::{self, EnqueueError, JobQuota, RequestOrigin, RetriedBy};
use utoipa::ToSchema;
use uuid::Uuid;

use super::filter::JobFilter;
use crate::auth::current_user::AdminUser;
use crate::error::Result;
use crate::extract::client_info::ClientInfo;
use crate::extract::field_reader::{FieldReader, FromFields, accept_any};
use crate::extract::json::ValidatedJson;
use crate::middleware::request_context::current_origin;
use crate::pagination::{IdCursor, scan_page};
use crate::state::AppState;

/// How many jobs are changed in one transaction, so that others need not wait for long.
const BATCH: u64 = 50;

/// How many jobs one request may change.
const MAX_JOBS: usize = 10_000;

/// What to do, and with which jobs.
#[derive(Clone, Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkJobRequest {
    action: BulkAction,
    filter: JobFilter,
    /// Only count what would be changed.
    #[schema(value_type = Option<bool>, nullable = false)]
    dry_run: bool,
}

/// An action on many jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BulkAction {
    /// As `POST /admin/jobs/{id}/cancel` does.
    Cancel,
    /// As `POST /admin/jobs/{id}/retry` does.
    Retry,
}

impl BulkAction {
    fn suits(self, job: &job::Model) -> bool {
        match self {
            BulkAction::Cancel => !job.status.is_finished(),
            BulkAction::Retry => matches!(job.status, job::Status::Failed | job::Status::Canceled),
        }
    }
}

impl FromFields for BulkJobRequest {
    fn from_fields(fields: &mut FieldReader) -> Option<Self> {
        let action = fields.required("action", accept_any);
        let filter = fields.nested_required("filter", JobFilter::from_fields);
        let dry_run = fields.optional("dry_run", accept_any);
        Some(BulkJobRequest {
            action: action?,
            filter: filter?,
            dry_run: dry_run?.unwrap_or_default(),
        })
    }
}

/// The result.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct BulkJobResponse {
    /// How many jobs matched the filter.
    #[schema(format = Int32)]
    matched: usize,
    /// How many of them were changed. The others were finished already, or could not be retried.
    /// After a dry run: how many have a status that the action changes.
    #[schema(format = Int32)]
    changed: usize,
    /// Whether the filter matches more. Repeat the request for those, with a filter that excludes
    /// the changed ones.
    more: bool,
}

/// Cancel or retry all jobs that match a filter
///
/// The newest first, up to 10,000 at once, in many small transactions. If it is interrupted, repeat
/// the request.
#[utoipa::path(
    post, path = "/admin/jobs/bulk", tag = "admin",
    request_body = BulkJobRequest,
    responses((status = 200, body = BulkJobResponse)),
)]
pub(crate) async fn change_jobs(
    State(state): State<AppState>,
    AdminUser(me): AdminUser,
    client: ClientInfo,
    ValidatedJson(change): ValidatedJson<BulkJobRequest>,
) -> Result<Json<BulkJobResponse>> {
    // Validated before anything is recorded.
    change.filter.rows(state.db.backend())?;
    if !change.dry_run {
        // Recorded first, since the work takes many transactions.
        let details = Some(json!({ "action": change.action, "filter": change.filter }));
        let event = client.audit_event(Action::JobsBulkChanged, Some(&me.user), None, details);
        state
            .db
            .transaction(async move |tx| event.insert(tx).await)
            .await?;
    }
    let mut outcome = BulkJobResponse::default();
    let mut after = None;
    loop {
        let (jobs, next) = next_batch(&state, &change.filter, after).await?;
        outcome.matched += jobs.len();
        outcome.changed += match change.dry_run {
            true => jobs.iter().filter(|job| change.action.suits(job)).count(),
            false => apply(&state, change.action, jobs).await?,
        };
        outcome.more = next.is_some() && outcome.matched >= MAX_JOBS;
        after = next;
        if after.is_none() || outcome.more {
            return Ok(Json(outcome));
        }
    }
}

/// The next matches, and where they ended if more may follow.
async fn next_batch(
    state: &AppState,
    filter: &JobFilter,
    after: Option<IdCursor>,
) -> Result<(Vec<job::Model>, Option<IdCursor>)> {
    let (mut jobs, wanted) = filter.rows(state.db.backend())?;
    if let Some(after) = after {
        jobs = jobs.filter(job::Column::Id.lt(after.id));
    }
    let db = state.db.read();
    Ok(scan_page(db, jobs, wanted, job::Column::Id, |job| job.id, BATCH).await?)
}

/// Returns how many of the jobs were changed.
async fn apply(state: &AppState, action: BulkAction, jobs: Vec<job::Model>) -> Result<usize> {
    if jobs.is_empty() {
        return Ok(0);
    }
    let attempts = state.config.job_max_attempts;
    let origin = current_origin();
    let changed = state
        .db
        .transaction(async move |tx| match action {
            BulkAction::Cancel => {
                let jobs = lock_jobs(tx, &jobs).await?;
                let ids: Vec<Uuid> = jobs.iter().map(|job| job.id).collect();
                Ok(queue::cancel_many(tx, &ids).await?)
            }
            BulkAction::Retry => retry_many(tx, &jobs, attempts, origin).await,
        })
        .await?;
    for job in &changed {
        state.metrics.job_canceled(job);
    }
    Ok(changed.len())
}

async fn retry_many(
    tx: &DatabaseTransaction,
    jobs: &[job::Model],
    attempts: i32,
    origin: RequestOrigin,
) -> Result<Vec<job::Model>> {
    let mut retried = Vec::new();
    let owners = lock_owners(tx, jobs).await?;
    for job in lock_jobs(tx, jobs).await? {
        if !owners.contains(&job.user_id) {
            continue;
        }
        match queue::retry(
            tx,
            &job,
            RetriedBy::Admin,
            JobQuota::Left(1),
            attempts,
            origin.clone(),
        )
        .await
        {
            Ok(job) => retried.push(job),
            Err(EnqueueError::AlreadyFinished | EnqueueError::AlreadyRunning) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(retried)
}

/// Locks the jobs' owners, in the order of their ids to avoid deadlocks. Returns those that are
/// enabled.
async fn lock_owners(tx: &DatabaseTransaction, jobs: &[job::Model]) -> Result<BTreeSet<Uuid>> {
    let ids: BTreeSet<Uuid> = jobs.iter().map(|job| job.user_id).collect();
    let owners = user::Entity::lock_all_for_quota(tx, ids, false).await?;
    let enabled = owners.into_iter().filter(|user| user.disabled_at.is_none());
    Ok(enabled.map(|user| user.id).collect())
}

/// Locks the jobs and reads them again.
async fn lock_jobs(tx: &DatabaseTransaction, jobs: &[job::Model]) -> Result<Vec<job::Model>> {
    let jobs = job::Entity::find()
        .filter(job::Column::Id.is_in(jobs.iter().map(|job| job.id)))
        .order_by_asc(job::Column::Id)
        .lock_exclusive();
    Ok(jobs.all(tx).await?)
}
