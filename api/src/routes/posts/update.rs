//! Changing a post's text.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use entity::post;
use sea_orm::QuerySelect;
use utoipa::ToSchema;

use super::response::Post;
use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};
use crate::extract::field_reader::{FieldReader, FromFields};
use crate::extract::json::ValidatedJson;
use crate::extract::path::PathId;
use crate::extract::text_rules::{length, trimmed_length};
use crate::http_headers::{Format, if_match_allows, version_etag, with_etag};
use crate::state::AppState;
use crate::storage_quota::StorageQuota;

/// The new text.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdatePostRequest {
    /// Markdown.
    #[schema(min_length = 1, pattern = "^[^\\x00]*$")]
    content: String,
    /// By default the current one.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\x00]*[^\\s\\x00][^\\x00]*$"
    )]
    title: Option<String>,
}

const MAX_TITLE_LEN: usize = 200;

impl FromFields for UpdatePostRequest {
    fn from_fields(fields: &mut FieldReader) -> Option<Self> {
        // The limit of bodies bounds it.
        let content = fields.required("content", length(1, usize::MAX));
        let title = fields.optional("title", trimmed_length(1, MAX_TITLE_LEN));
        Some(UpdatePostRequest {
            content: content?,
            title: title?,
        })
    }
}

/// Change a post's text
///
/// With `If-Match`, only if it has not changed since.
#[utoipa::path(
    put, path = "/blogs/{id}", tag = "blogs", operation_id = "update_blog",
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, nullable = false)),
    request_body = UpdatePostRequest,
    responses(
        (status = 200, body = Post),
        (status = 409, description = "The post is being generated."),
        (status = 412, description = "The post has changed since."),
    ),
)]
pub(crate) async fn update_post(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    headers: HeaderMap,
    ValidatedJson(edit): ValidatedJson<UpdatePostRequest>,
) -> Result<Response> {
    let owner = me.clone();
    let quota = StorageQuota::new(&state.config);
    let size = edit.content.len() as i64;
    let mut text = post::PostContent::new(edit.title, edit.content);
    let post = state
        .db
        .transaction(async move |tx| {
            quota.lock_user(tx, owner.user.id).await?;
            let post = owner.post(id).lock_exclusive();
            let post = post.one(tx).await?.ok_or(Error::NotFound)?;
            if !if_match_allows(&headers, post.version) {
                return Err(Error::VersionConflict);
            }
            if post.status == post::Status::Generating {
                return Err(Error::GenerationInProgress);
            }
            let before = post.content.as_ref().map_or(0, String::len);
            let growth = size - before as i64;
            quota.allows_growth(tx, owner.user.id, growth).await?;
            // A post whose generation failed may have no title to keep.
            if text.title.is_none() && post.title.is_none() {
                text.title = Some(post.topic.chars().take(MAX_TITLE_LEN).collect());
            }
            let written = post::Entity::set_content(tx, id, &text, Some(post.version)).await?;
            written.ok_or(Error::VersionConflict)
        })
        .await?;
    let tag = version_etag(post.version, Format::Json);
    let post = Post::load(state.db.read(), post, &me).await?;
    Ok(with_etag(&HeaderMap::new(), &tag, Json(post)))
}
