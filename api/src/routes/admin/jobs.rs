//! All users' jobs.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use entity::audit::Action;
use entity::{job, user};
use sea_orm::{DatabaseTransaction, EntityTrait, QuerySelect};
use serde_json::json;
use shared::queue::{self, JobQuota, RetriedBy};
use uuid::Uuid;

use crate::auth::current_user::{AdminUser, CurrentUser};
use crate::error::{Error, Result, merge_violations};
use crate::extract::client_info::ClientInfo;
use crate::extract::path::PathId;
use crate::extract::query::ValidatedQuery;
use crate::middleware::request_context::current_origin;
use crate::pagination::{CursorCodec, Page, PageRequest, PageResponse, paginate};
use crate::state::AppState;

pub(crate) mod bulk;
mod filter;
mod response;

use filter::{JobFilter, ListAllJobsQuery};
use response::AdminJob;

type AdminJobPage = Page<AdminJob>;

/// List all users' jobs
///
/// The newest first. With several filters a page scans at most 2,500 jobs, so it may have few or
/// none, and still have a next one.
#[utoipa::path(
    get, path = "/admin/jobs", tag = "admin",
    params(ListAllJobsQuery),
    responses((status = 200, body = AdminJobPage)),
)]
pub(crate) async fn list_all_jobs(
    State(state): State<AppState>,
    AdminUser(me): AdminUser,
    OriginalUri(uri): OriginalUri,
    ValidatedQuery(query): ValidatedQuery<ListAllJobsQuery>,
) -> Result<PageResponse<AdminJob>> {
    let list = CursorCodec::new(&state.keys, me.user.id, "admin,jobs");
    let page = PageRequest::new(list, query.limit, query.cursor.as_deref());
    let (page, filter) = merge_violations(page, JobFilter::try_from(&query))?;
    let (jobs, wanted) = filter.rows(state.db.backend())?;
    let db = state.db.read();
    let (jobs, next) = paginate(db, page, jobs, wanted, job::Column::Id).await?;
    Ok(Page::response(&uri, AdminJob::load(db, jobs).await?, next))
}

/// Get any user's job
#[utoipa::path(
    get, path = "/admin/jobs/{id}", tag = "admin",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = AdminJob)),
)]
pub(crate) async fn get_any_job(
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
/// A queued job is canceled at once. A running one is `canceling` until the worker has stopped.
#[utoipa::path(
    post, path = "/admin/jobs/{id}/cancel", tag = "admin",
    params(("id" = Uuid, Path)),
    responses(
        (status = 202, body = AdminJob),
        (status = 409, description = "The job has finished."),
    ),
)]
pub(crate) async fn cancel_any_job(
    State(state): State<AppState>,
    AdminUser(me): AdminUser,
    client: ClientInfo,
    PathId(id): PathId,
) -> Result<(StatusCode, Json<AdminJob>)> {
    let job = state
        .db
        .transaction(async move |tx| {
            lock_for_update(tx, id).await?;
            let job = queue::cancel(tx, id, false)
                .await?
                .ok_or(Error::JobFinished)?;
            record(tx, Action::JobCanceled, &me, &client, &job).await?;
            Ok::<_, Error>(job)
        })
        .await?;
    state.metrics.job_canceled(&job);
    let job = AdminJob::load_one(state.db.read(), job).await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

/// Retry any user's failed or canceled job
///
/// It continues from its finished steps. Only a post's latest job can be retried. The owner's quota
/// does not apply.
#[utoipa::path(
    post, path = "/admin/jobs/{id}/retry", tag = "admin",
    params(("id" = Uuid, Path)),
    responses(
        (status = 202, body = AdminJob),
        (status = 409, description = "The job has succeeded or is not the latest, the post is being \
            generated, or the owner is disabled."),
    ),
)]
pub(crate) async fn retry_any_job(
    State(state): State<AppState>,
    AdminUser(me): AdminUser,
    client: ClientInfo,
    PathId(id): PathId,
) -> Result<(StatusCode, Json<AdminJob>)> {
    let origin = current_origin();
    let attempts = state.config.job_max_attempts;
    let job = state
        .db
        .transaction(async move |tx| {
            let job = job::Entity::find_by_id(id).one(tx).await?;
            let owner = job.ok_or(Error::NotFound)?.user_id;
            let room = queue::quota(tx, owner, u32::MAX).await?;
            if room == JobQuota::AccountDisabled {
                return Err(Error::OwnerDisabled);
            }
            let job = lock_for_update(tx, id).await?;
            let job = queue::retry(tx, &job, RetriedBy::Admin, room, attempts, origin).await?;
            record(tx, Action::JobRetried, &me, &client, &job).await?;
            Ok(job)
        })
        .await?;
    let job = AdminJob::load_one(state.db.read(), job).await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

async fn lock_for_update(tx: &DatabaseTransaction, id: Uuid) -> Result<job::Model> {
    let job = job::Entity::find_by_id(id).lock_exclusive();
    job.one(tx).await?.ok_or(Error::NotFound)
}

async fn record(
    tx: &DatabaseTransaction,
    action: Action,
    me: &CurrentUser,
    client: &ClientInfo,
    job: &job::Model,
) -> Result<()> {
    let owner = user::Entity::find_by_id(job.user_id).one(tx).await?;
    let details = Some(json!({ "job_id": job.id, "blog_id": job.post_id }));
    let event = client.audit_event(action, Some(&me.user), owner.as_ref(), details);
    event.insert(tx).await?;
    Ok(())
}
