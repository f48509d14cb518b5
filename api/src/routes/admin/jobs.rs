//! All users' jobs.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, StatusCode};
use entity::audit::{Action, Event, Source, Who};
use entity::{job, user};
use sea_orm::ColumnTrait;
use sea_orm::{DatabaseTransaction, EntityTrait, QueryFilter, QuerySelect};
use serde::Serialize;
use serde_json::json;
use shared::queue::{self, JobQuota, RequestOrigin};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::AppState;
use crate::auth::{Admin, SignedIn};
use crate::client::Client;
use crate::error::{Error, Result, both};
use crate::observe::origin;
use crate::page::{After, List, limit, link, look_through};
use crate::query::{Id, Params};

pub mod bulk;
mod filter;
mod view;

pub use filter::{Filter, Selection};
pub use view::{AdminJob, Owner};

/// A page of all users' jobs.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminJobPage {
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
    params(Filter),
    responses((status = 200, body = AdminJobPage)),
)]
pub async fn list(
    State(state): State<AppState>,
    Admin(me): Admin,
    OriginalUri(uri): OriginalUri,
    Params(filter): Params<Filter>,
) -> Result<(HeaderMap, Json<AdminJobPage>)> {
    let (limit, selection) = both(limit(filter.limit), Selection::try_from(&filter))?;
    let list = List {
        keys: &state.keys,
        user: me.user.id,
        name: "admin,jobs",
    };
    let after = filter.cursor.as_deref();
    let after = after.map(|cursor| list.position(cursor)).transpose()?;
    let (jobs, next) = page(&state, &selection, after, limit).await?;
    let next_cursor = next.map(|after| list.cursor(&after)).transpose()?;
    let items = AdminJob::load(state.db.read(), jobs).await?;
    let headers = link(&uri, next_cursor.as_deref());
    Ok((headers, Json(AdminJobPage { items, next_cursor })))
}

/// A page of the jobs that are meant, and where it ended if more may follow.
async fn page(
    state: &AppState,
    selection: &Selection,
    after: Option<After>,
    limit: u64,
) -> Result<(Vec<job::Model>, Option<After>)> {
    let (mut jobs, wanted) = selection.rows(state.db.backend())?;
    if let Some(after) = after {
        jobs = jobs.filter(job::Column::Id.lt(after.id));
    }
    let db = state.db.read();
    Ok(look_through(db, jobs, wanted, job::Column::Id, |job| job.id, limit).await?)
}

/// Get any user's job
#[utoipa::path(
    get, path = "/admin/jobs/{id}", tag = "admin", operation_id = "get_any_job",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = AdminJob)),
)]
pub async fn get(State(state): State<AppState>, _: Admin, Id(id): Id) -> Result<Json<AdminJob>> {
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
pub async fn cancel(
    State(state): State<AppState>,
    Admin(me): Admin,
    client: Client,
    Id(id): Id,
) -> Result<(StatusCode, Json<AdminJob>)> {
    let job = state
        .db
        .transaction(async move |tx| call_off(tx, me, client.source(), id).await)
        .await?;
    state.metrics.canceled(&job);
    let job = AdminJob::load_one(state.db.read(), job).await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

async fn call_off(
    tx: &DatabaseTransaction,
    me: SignedIn,
    source: Source,
    id: Uuid,
) -> Result<job::Model> {
    hold(tx, id).await?;
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
pub async fn retry(
    State(state): State<AppState>,
    Admin(me): Admin,
    client: Client,
    Id(id): Id,
) -> Result<(StatusCode, Json<AdminJob>)> {
    let (origin, attempts) = (origin(), state.config.job_max_attempts);
    let job = state
        .db
        .transaction(async move |tx| try_again(tx, me, client.source(), id, origin, attempts).await)
        .await?;
    let job = AdminJob::load_one(state.db.read(), job).await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

async fn try_again(
    tx: &DatabaseTransaction,
    me: SignedIn,
    source: Source,
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
    let before = hold(tx, id).await?;
    let job = queue::retry(tx, &before, room, attempts, origin).await?;
    record(tx, Action::JobRetried, me, source, &job).await?;
    Ok(job)
}

/// A job that nobody else changes before `tx` ends.
async fn hold(tx: &DatabaseTransaction, id: Uuid) -> Result<job::Model> {
    let job = job::Entity::find_by_id(id).lock_exclusive();
    job.one(tx).await?.ok_or(Error::NotFound)
}

async fn record(
    tx: &DatabaseTransaction,
    action: Action,
    me: SignedIn,
    source: Source,
    job: &job::Model,
) -> Result<()> {
    let owner = user::Entity::find_by_id(job.user_id).one(tx).await?;
    let event = Event {
        action,
        actor: Some(Who::from(&me.user)),
        subject: owner.as_ref().map(Who::from),
        source,
        details: Some(json!({ "job_id": job.id, "blog_id": job.post_id })),
    };
    event.record(tx).await?;
    Ok(())
}
