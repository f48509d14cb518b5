//! All users' jobs.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, StatusCode};
use entity::audit::{Action, AuditEvent, RequestMetadata, UserRef};
use entity::{job, user};
use sea_orm::ColumnTrait;
use sea_orm::{DatabaseTransaction, EntityTrait, QueryFilter, QuerySelect};
use serde::Serialize;
use serde_json::json;
use shared::queue::{self, JobQuota, RequestOrigin};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::current_user::{AdminUser, CurrentUser};
use crate::error::{Error, Result, merge_violations};
use crate::extract::client_info::ClientInfo;
use crate::extract::path::PathId;
use crate::extract::query::ValidatedQuery;
use crate::middleware::request_context::current_origin;
use crate::pagination::{CursorCodec, IdCursor, next_link_header, page_limit, scan_page};
use crate::state::AppState;

pub(crate) mod bulk;
mod filter;
mod response;

pub(crate) use filter::{JobFilter, ListAllJobsQuery};
pub(crate) use response::AdminJob;

/// A page of all users' jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdminJobPage {
    #[schema(max_items = 100)]
    items: Vec<AdminJob>,
    /// Leads to the next page; null on the last one. With several filters at once
    /// a page that is not the last may have fewer jobs than asked for.
    next_cursor: Option<String>,
}

/// List all users' jobs
///
/// The newest first. Of several filters one leads to 2,500 jobs a page, which
/// are looked through for the others; so a page may have few jobs or none, and
/// still lead to a next one.
#[utoipa::path(
    get, path = "/admin/jobs", tag = "admin", operation_id = "list_all_jobs",
    params(ListAllJobsQuery),
    responses((status = 200, body = AdminJobPage)),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    AdminUser(me): AdminUser,
    OriginalUri(uri): OriginalUri,
    ValidatedQuery(filter): ValidatedQuery<ListAllJobsQuery>,
) -> Result<(HeaderMap, Json<AdminJobPage>)> {
    let (limit, selection) =
        merge_violations(page_limit(filter.limit), JobFilter::try_from(&filter))?;
    let list = CursorCodec {
        keys: &state.keys,
        user: me.user.id,
        name: "admin,jobs",
    };
    let after = filter.cursor.as_deref();
    let after = after.map(|cursor| list.decode(cursor)).transpose()?;
    let (jobs, next) = page(&state, &selection, after, limit).await?;
    let next_cursor = next.map(|after| list.encode(&after)).transpose()?;
    let items = AdminJob::load(state.db.read(), jobs).await?;
    let headers = next_link_header(&uri, next_cursor.as_deref());
    Ok((headers, Json(AdminJobPage { items, next_cursor })))
}

/// A page of the jobs that are meant, and where it ended if more may follow.
async fn page(
    state: &AppState,
    selection: &JobFilter,
    after: Option<IdCursor>,
    limit: u64,
) -> Result<(Vec<job::Model>, Option<IdCursor>)> {
    let (mut jobs, wanted) = selection.rows(state.db.backend())?;
    if let Some(after) = after {
        jobs = jobs.filter(job::Column::Id.lt(after.id));
    }
    let db = state.db.read();
    Ok(scan_page(db, jobs, wanted, job::Column::Id, |job| job.id, limit).await?)
}

/// Get any user's job
#[utoipa::path(
    get, path = "/admin/jobs/{id}", tag = "admin", operation_id = "get_any_job",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = AdminJob)),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    _: AdminUser,
    PathId(id): PathId,
) -> Result<Json<AdminJob>> {
    let job = job::Entity::find_by_id(id).one(state.db.read()).await?;
    let job = job.ok_or(Error::NotFound)?;
    Ok(Json(AdminJob::load_one(state.db.read(), job).await?))
}

/// Cancel any user's job
///
/// At once if it is queued. If it runs, it is `canceling` until the worker has
/// really stopped.
#[utoipa::path(
    post, path = "/admin/jobs/{id}/cancel", tag = "admin", operation_id = "cancel_any_job",
    params(("id" = Uuid, Path)),
    responses(
        (status = 202, body = AdminJob),
        (status = 409, description = "The job is over.", body = crate::error::Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn cancel(
    State(state): State<AppState>,
    AdminUser(me): AdminUser,
    client: ClientInfo,
    PathId(id): PathId,
) -> Result<(StatusCode, Json<AdminJob>)> {
    let job = state
        .db
        .transaction(async move |tx| cancel_tx(tx, me, client.request_metadata(), id).await)
        .await?;
    state.metrics.job_canceled(&job);
    let job = AdminJob::load_one(state.db.read(), job).await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

async fn cancel_tx(
    tx: &DatabaseTransaction,
    me: CurrentUser,
    source: RequestMetadata,
    id: Uuid,
) -> Result<job::Model> {
    lock_for_update(tx, id).await?;
    let job = queue::cancel(tx, id).await?.ok_or(Error::JobFinished)?;
    record(tx, Action::JobCanceled, me, source, &job).await?;
    Ok(job)
}

/// Try any user's job again that failed or was canceled
///
/// It goes on from what it had finished. Only a post's latest job can be tried
/// again. The owner's quota does not count here.
#[utoipa::path(
    post, path = "/admin/jobs/{id}/retry", tag = "admin", operation_id = "retry_any_job",
    params(("id" = Uuid, Path)),
    responses(
        (status = 202, body = AdminJob),
        (status = 409, description = "The job has succeeded or is not the latest, the post is being \
            generated, or the owner is disabled.", body = crate::error::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn retry(
    State(state): State<AppState>,
    AdminUser(me): AdminUser,
    client: ClientInfo,
    PathId(id): PathId,
) -> Result<(StatusCode, Json<AdminJob>)> {
    let (origin, attempts) = (current_origin(), state.config.job_max_attempts);
    let job = state
        .db
        .transaction(async move |tx| {
            retry_tx(tx, me, client.request_metadata(), id, origin, attempts).await
        })
        .await?;
    let job = AdminJob::load_one(state.db.read(), job).await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

async fn retry_tx(
    tx: &DatabaseTransaction,
    me: CurrentUser,
    source: RequestMetadata,
    id: Uuid,
    origin: RequestOrigin,
    attempts: i32,
) -> Result<job::Model> {
    let job = job::Entity::find_by_id(id).one(tx).await?;
    let owner = job.ok_or(Error::NotFound)?.user_id;
    let room = queue::check_quota(tx, owner, u32::MAX).await?;
    if room == JobQuota::AccountDisabled {
        return Err(Error::OwnerDisabled);
    }
    let before = lock_for_update(tx, id).await?;
    let job = queue::retry(tx, &before, room, attempts, origin).await?;
    record(tx, Action::JobRetried, me, source, &job).await?;
    Ok(job)
}

/// A job that nobody else changes before `tx` ends.
async fn lock_for_update(tx: &DatabaseTransaction, id: Uuid) -> Result<job::Model> {
    let job = job::Entity::find_by_id(id).lock_exclusive();
    job.one(tx).await?.ok_or(Error::NotFound)
}

async fn record(
    tx: &DatabaseTransaction,
    action: Action,
    me: CurrentUser,
    source: RequestMetadata,
    job: &job::Model,
) -> Result<()> {
    let owner = user::Entity::find_by_id(job.user_id).one(tx).await?;
    let event = AuditEvent {
        action,
        actor: Some(UserRef::from(&me.user)),
        subject: owner.as_ref().map(UserRef::from),
        source,
        details: Some(json!({ "job_id": job.id, "blog_id": job.post_id })),
    };
    event.insert(tx).await?;
    Ok(())
}
