//! Listing a user's jobs.

use axum::extract::{OriginalUri, State};
use entity::job;
use sea_orm::{ColumnTrait, QueryFilter};
use serde::Deserialize;
use utoipa::IntoParams;

use super::response::Job;
use crate::auth::current_user::CurrentUser;
use crate::error::Result;
use crate::extract::query::ValidatedQuery;
use crate::pagination::{CursorCodec, Page, PageRequest, PageResponse, paginate};
use crate::state::AppState;

/// Which jobs to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListJobsQuery {
    status: Option<job::Status>,
    /// Entries per page, by default 20.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
    /// `next_cursor` of the previous page.
    #[param(max_length = 500, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

type JobPage = Page<Job>;

/// List your jobs
#[utoipa::path(
    get, path = "/jobs", tag = "jobs",
    params(ListJobsQuery),
    responses((status = 200, body = JobPage)),
)]
pub(crate) async fn list_jobs(
    State(state): State<AppState>,
    me: CurrentUser,
    OriginalUri(uri): OriginalUri,
    ValidatedQuery(query): ValidatedQuery<ListJobsQuery>,
) -> Result<PageResponse<Job>> {
    let list = CursorCodec::new(&state.keys, me.user.id, "jobs");
    let page = PageRequest::new(list, query.limit, query.cursor.as_deref())?;
    let mut jobs = job::Entity::owned_by(me.user.id);
    if let Some(status) = query.status {
        jobs = jobs.filter(job::Column::Status.eq(status));
    }
    let db = state.db.read();
    let (jobs, next) = paginate(db, page, jobs, None, job::Column::Id).await?;
    Ok(Page::response(&uri, Job::load(db, jobs).await?, next))
}
