//! The outline of a post whose job awaits its review.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use entity::job::{self, PlannedSection, Status};
use sea_orm::{ConnectionTrait, QuerySelect, Select};
use serde::Serialize;
use shared::queue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::response::{Post, accepted};
use super::update::MAX_TITLE_LEN;
use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};
use crate::extract::field_reader::{FieldReader, FromFields, Violation};
use crate::extract::json::ValidatedJson;
use crate::extract::path::PathId;
use crate::extract::text_rules::{length, trimmed_length};
use crate::http_headers::{Format, if_match_allows, version_etag, with_etag};
use crate::middleware::request_context::current_origin;
use crate::state::AppState;
use crate::storage_quota::StorageQuota;

/// What a post is to tell.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Outline {
    title: String,
    /// The sections, in order.
    #[schema(min_items = 1, max_items = 20)]
    sections: Vec<OutlineItem>,
    /// Raised by every change; the `ETag`.
    version: i32,
}

/// A section of an outline.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutlineItem {
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\x00\\r\\n]*[^\\s\\x00][^\\x00\\r\\n]*$"
    )]
    heading: String,
    /// What it is to tell, in a sentence or two; empty if it does not say.
    #[schema(max_length = 1000, pattern = "^[^\\x00]*$")]
    #[serde(default)]
    about: String,
}

/// Another outline.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateOutlineRequest {
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\x00\\r\\n]*[^\\s\\x00][^\\x00\\r\\n]*$"
    )]
    title: String,
    /// The sections, in order.
    #[schema(min_items = 1, max_items = 20)]
    sections: Vec<OutlineItem>,
}

const MAX_SECTIONS: usize = 20;
const MAX_HEADING_LEN: usize = 200;
const MAX_ABOUT_LEN: usize = 1000;

impl FromFields for UpdateOutlineRequest {
    fn from_fields(fields: &mut FieldReader) -> Option<Self> {
        let title = fields.required("title", one_line(MAX_TITLE_LEN));
        let sections = fields.nested_list("sections", 1..=MAX_SECTIONS, |fields| {
            let heading = fields.required("heading", one_line(MAX_HEADING_LEN));
            let about = fields.optional("about", length(0, MAX_ABOUT_LEN));
            Some(OutlineItem {
                heading: heading?,
                about: about?.unwrap_or_default(),
            })
        });
        Some(UpdateOutlineRequest {
            title: title?,
            sections: sections?,
        })
    }
}

/// A text that is a title or a heading.
fn one_line(max_len: usize) -> impl Fn(String) -> std::result::Result<String, Violation> {
    let text = trimmed_length(1, max_len);
    move |value| {
        let line = text(value)?;
        if line.contains(['\n', '\r']) {
            return Err(("invalid", "must be a single line".to_owned()));
        }
        Ok(line)
    }
}

impl From<UpdateOutlineRequest> for job::Outline {
    fn from(UpdateOutlineRequest { title, sections }: UpdateOutlineRequest) -> Self {
        let section = |OutlineItem { heading, about }| PlannedSection { heading, about };
        job::Outline {
            title,
            sections: sections.into_iter().map(section).collect(),
        }
    }
}

/// The latest job of the user's own post, and its outline.
///
/// # Errors
/// [`Error::NotFound`] if its outline is not reviewed; [`Error::GenerationInProgress`] if it is not
/// written yet.
async fn find(
    db: &impl ConnectionTrait,
    me: &CurrentUser,
    id: Uuid,
    lock: fn(Select<job::Entity>) -> Select<job::Entity>,
) -> Result<(job::Model, job::Outline)> {
    me.post(id).one(db).await?.ok_or(Error::NotFound)?;
    let job = lock(job::Entity::of_post(id).limit(1)).one(db).await?;
    let job = job
        .filter(|job| job.review.is_some())
        .ok_or(Error::NotFound)?;
    match job.read_outline() {
        Some(outline) => Ok((job, outline)),
        None if job.status.is_finished() => Err(Error::JobFinished),
        None => Err(Error::GenerationInProgress),
    }
}

fn response(job: &job::Model, outline: job::Outline) -> Response {
    let version = job.outline_version;
    let section = |PlannedSection { heading, about }| OutlineItem { heading, about };
    let outline = Outline {
        title: outline.title,
        sections: outline.sections.into_iter().map(section).collect(),
        version,
    };
    let tag = version_etag(version, Format::Json);
    with_etag(&HeaderMap::new(), &tag, Json(outline))
}

/// Get the outline of a post
///
/// Of a post whose latest job was asked for with `outline: "review"`, as soon as the outline is
/// written.
#[utoipa::path(
    get, path = "/blogs/{id}/outline", tag = "blogs", operation_id = "get_blog_outline",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, body = Outline),
        (status = 404, description = "Not found, or the outline is not to be reviewed."),
        (status = 409, description = "The outline is not written yet, or never was."),
    ),
)]
pub(crate) async fn get_outline(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
) -> Result<Response> {
    let (job, outline) = find(state.db.read(), &me, id, |jobs| jobs).await?;
    Ok(response(&job, outline))
}

/// Change the outline of a post
///
/// While its job awaits your review.
#[utoipa::path(
    put, path = "/blogs/{id}/outline", tag = "blogs", operation_id = "update_blog_outline",
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, nullable = false)),
    request_body = UpdateOutlineRequest,
    responses(
        (status = 200, body = Outline),
        (status = 404, description = "Not found, or the outline is not to be reviewed."),
        (status = 409, description = "The outline is not written yet, or is no longer reviewed."),
        (status = 412, description = "The outline has changed since."),
    ),
)]
pub(crate) async fn update_outline(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    headers: HeaderMap,
    ValidatedJson(new): ValidatedJson<UpdateOutlineRequest>,
) -> Result<Response> {
    let new = job::Outline::from(new);
    let job = state
        .db
        .transaction({
            let new = new.clone();
            async move |tx| {
                let (job, _) = find(tx, &me, id, Select::lock_exclusive).await?;
                check_review(&job, &headers)?;
                let changed = queue::set_outline(tx, job.id, &new).await?;
                changed.ok_or(Error::JobFinished)
            }
        })
        .await?;
    Ok(response(&job, new))
}

/// Approve the outline of a post
///
/// Its job goes on, and writes what the outline says.
#[utoipa::path(
    post, path = "/blogs/{id}/outline/approve", tag = "blogs",
    operation_id = "approve_blog_outline",
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, nullable = false)),
    responses(
        (status = 202, description = "Accepted.", body = Post),
        (status = 404, description = "Not found, or the outline is not to be reviewed."),
        (status = 409, description = "The outline is not written yet, or is no longer reviewed."),
        (status = 412, description = "The outline has changed since."),
    ),
)]
pub(crate) async fn approve_outline(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Response> {
    let origin = current_origin();
    let owner = me.clone();
    let config = state.config.clone();
    state
        .db
        .transaction(async move |tx| {
            let quota = queue::quota(tx, owner.user.id, config.user_max_active_jobs).await?;
            let (job, _) = find(tx, &owner, id, Select::lock_exclusive).await?;
            check_review(&job, &headers)?;
            let storage = StorageQuota::new(&config);
            storage.allows_text(tx, owner.user.id).await?;
            let attempts = config.job_max_attempts;
            queue::approve(tx, &job, quota, attempts, origin).await?;
            Ok::<_, Error>(())
        })
        .await?;
    let db = state.db.read();
    let post = me.post(id).one(db).await?.ok_or(Error::NotFound)?;
    Ok(accepted(Post::load(db, post, &me).await?))
}

fn check_review(job: &job::Model, headers: &HeaderMap) -> Result<()> {
    if job.status != Status::AwaitingReview {
        return Err(Error::JobFinished);
    }
    if !if_match_allows(headers, job.outline_version) {
        return Err(Error::VersionConflict);
    }
    Ok(())
}
