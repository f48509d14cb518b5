//! The sections of a post, and writing one of them again.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use entity::grounding::is_list_of_sources;
use entity::job::SectionTask;
use entity::sections::sections;
use entity::text::word_count;
use entity::{post, source};
use sea_orm::DatabaseTransaction;
use serde::Serialize;
use shared::queue::{self, NewJob};
use utoipa::ToSchema;
use uuid::Uuid;

use super::regenerate::next_options;
use super::response::{Post, accepted};
use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};
use crate::extract::field_reader::FieldReader;
use crate::extract::idempotency::{IdempotencyKey, IdempotentResponse};
use crate::extract::json::JsonBody;
use crate::extract::path::{PathId, PathParts};
use crate::extract::text_rules::trimmed_length;
use crate::generation_options::{
    Capabilities, GenerationOptions, check_writes_parts, resolve_model, uses_sources,
};
use crate::http_headers::if_match_allows;
use crate::middleware::request_context::current_origin;
use crate::routes::jobs::Job;
use crate::state::AppState;
use crate::storage_quota::StorageQuota;

/// The sections of a post's text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PostSections {
    /// In order. What stands under the highest headings is a section, and what stands before them.
    items: Vec<PostSection>,
}

/// A section of a post.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PostSection {
    /// Counted from 0.
    number: u32,
    /// Null for an introduction.
    heading: Option<String>,
    words: i32,
}

/// List the sections of a post
#[utoipa::path(
    get, path = "/blogs/{id}/sections", tag = "blogs", operation_id = "list_blog_sections",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = PostSections)),
)]
pub(crate) async fn list_sections(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
) -> Result<Response> {
    let post = me.post(id).one(state.db.read()).await?;
    let content = post.ok_or(Error::NotFound)?.content.unwrap_or_default();
    let list = move || {
        let sections = sections(&content);
        let items = sections
            .iter()
            .zip(0..)
            .map(|(section, number)| PostSection {
                number,
                heading: section.heading.clone(),
                words: word_count(section.text(&content)),
            });
        let items = items.collect();
        Json(PostSections { items }).into_response()
    };
    state.renders.run_blocking(list).await
}

/// How to write a section this time.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegenerateSectionRequest {
    /// What you want of it now.
    #[schema(
        min_length = 1,
        max_length = 2000,
        pattern = "^[^\\x00]*[^\\s\\x00][^\\x00]*$"
    )]
    instructions: Option<String>,
    /// By default those of the post.
    #[schema(nullable)]
    options: Option<GenerationOptions>,
}

impl RegenerateSectionRequest {
    fn from_fields(fields: &mut FieldReader, can: &Capabilities) -> Option<Self> {
        let instructions = fields.optional("instructions", trimmed_length(1, 2000));
        let options = fields.nested("options", |fields| {
            GenerationOptions::from_fields(fields, can)
        });
        Some(RegenerateSectionRequest {
            instructions: instructions?,
            options: options?,
        })
    }
}

/// Regenerate a section of a post
///
/// A job writes this section again; all others stay as they are. The number is of the present text,
/// which `If-Match` makes sure of.
#[utoipa::path(
    post, path = "/blogs/{id}/sections/{number}/regenerate", tag = "blogs",
    operation_id = "regenerate_blog_section",
    params(
        ("id" = Uuid, Path),
        ("number" = i32, Path, minimum = 0, maximum = 2147483647),
        ("If-Match" = Option<String>, Header, nullable = false),
        IdempotencyKey,
    ),
    request_body(content = Option<RegenerateSectionRequest>),
    responses(
        (status = 202, description = "Accepted.", body = Post),
        (status = 409, description = "The post is being generated or has no content, or the first \
            request with this Idempotency-Key is in progress."),
        (status = 412, description = "The post has changed since."),
    ),
)]
pub(crate) async fn regenerate_section(
    State(state): State<AppState>,
    me: CurrentUser,
    PathParts((id, number)): PathParts<(Uuid, u32)>,
    headers: HeaderMap,
    key: IdempotencyKey,
    body: JsonBody,
) -> Result<IdempotentResponse> {
    check_writes_parts(&state.capabilities.models)
        .map_err(|(code, message)| Error::invalid("number", code, message))?;
    let again =
        body.read(|fields| RegenerateSectionRequest::from_fields(fields, &state.capabilities))?;
    let once = key.for_request(&me, &(number, &again))?;
    let origin = current_origin();
    let db = state.db.clone();
    db.transaction(async move |tx| {
        let work = async {
            let post = me.post(id).one(tx).await?.ok_or(Error::NotFound)?;
            check_section(&post, number)?;
            let options = next_options(tx, &post, again.options, None, &state.capabilities).await?;
            let options = without_search(tx, id, options).await?;
            let job = NewJob {
                post: id,
                user: me.user.id,
                review: false,
                section: Some(SectionTask {
                    number,
                    instructions: again.instructions,
                }),
                model: resolve_model(&options, &state.capabilities.models)?,
                options,
                max_attempts: state.config.job_max_attempts,
                origin,
            };
            let before = (post.version, post.text_version);
            let job = queue::enqueue(tx, job, state.config.user_max_active_jobs).await?;
            // Only now it stays as it is.
            let post = me.post(id).one(tx).await?.ok_or(Error::NotFound)?;
            if !if_match_allows(&headers, post.version) {
                return Err(Error::VersionConflict);
            }
            if before != (post.version, post.text_version) {
                check_section(&post, number)?;
            }
            let quota = StorageQuota::new(&state.config);
            quota.allows_text(tx, me.user.id).await?;
            let generating = post::Status::Generating;
            post::Entity::set_statuses(tx, [id].into_iter(), generating).await?;
            let post = me.post(id).one(tx).await?.ok_or(Error::NotFound)?;
            let job = Job::load_one(tx, job).await?;
            let post = Post::load_with_job(tx, post, Some(job), &me).await?;
            Ok((accepted(post), id))
        };
        once.execute_once(tx, work).await
    })
    .await
}

/// The options for a section: it is written from the sources that the post has, and nothing is searched
/// for it.
async fn without_search(
    tx: &DatabaseTransaction,
    post: Uuid,
    mut options: serde_json::Value,
) -> Result<serde_json::Value> {
    let is_sourced = source::Entity::of_post(post).one(tx).await?.is_some();
    if let Some(fields) = options.as_object_mut().filter(|_| !is_sourced)
        && fields.get("research").is_some_and(|it| it == "web")
    {
        fields.remove("research");
    }
    Ok(options)
}

/// # Errors
/// [`Error::NotFound`] if the post has no such section; that it has no text at all yet says why.
fn check_section(post: &post::Model, number: u32) -> Result<()> {
    let Some(content) = &post.content else {
        return Err(match post.status {
            post::Status::Generating => Error::GenerationInProgress,
            _ => Error::NoContent,
        });
    };
    let sections = sections(content);
    let section = sections.get(number as usize).ok_or(Error::NotFound)?;
    if uses_sources(&post.options) && is_list_of_sources(section.text(content)) {
        let message = "is the list of sources, which the service makes";
        return Err(Error::invalid("number", "unsupported", message));
    }
    Ok(())
}
