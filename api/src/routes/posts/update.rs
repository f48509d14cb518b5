//! Changing a post: its text, or its topic.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use entity::post::{self, PostContent};
use sea_orm::QuerySelect;
use utoipa::ToSchema;
use uuid::Uuid;

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

/// What is to change.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatchPostRequest {
    /// Markdown.
    #[schema(min_length = 1, pattern = "^[^\\x00]*$")]
    content: Option<String>,
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\x00]*[^\\s\\x00][^\\x00]*$"
    )]
    title: Option<String>,
    /// What the post is about when it is generated again.
    #[schema(
        min_length = 3,
        max_length = 500,
        pattern = "^[^\\x00]*[^\\s\\x00][^\\x00]+[^\\s\\x00][^\\x00]*$"
    )]
    topic: Option<String>,
}

pub(super) const MAX_TITLE_LEN: usize = 200;

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

impl FromFields for PatchPostRequest {
    fn from_fields(fields: &mut FieldReader) -> Option<Self> {
        let content = fields.optional("content", length(1, usize::MAX));
        let title = fields.optional("title", trimmed_length(1, MAX_TITLE_LEN));
        let topic = fields.optional("topic", trimmed_length(3, 500));
        Some(PatchPostRequest {
            content: content?,
            title: title?,
            topic: topic?,
        })
    }
}

/// Replace a post's text
///
/// With `If-Match`, only if it has not changed since. The text before is kept as a revision. While
/// a post is generated again it can be edited: the generated text then becomes a revision beside
/// yours.
#[utoipa::path(
    put, path = "/blogs/{id}", tag = "blogs", operation_id = "update_blog",
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, nullable = false)),
    request_body = UpdatePostRequest,
    responses(
        (status = 200, body = Post),
        (status = 409, description = "The post is being generated for the first time."),
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
    let change = PostChange {
        text: Some(PostContent::new(edit.title, edit.content)),
        ..PostChange::default()
    };
    change.store(&state, me, id, headers).await
}

/// Change single fields of a post
///
/// As `PUT` otherwise. The topic of a post that is being generated can't be changed.
#[utoipa::path(
    patch, path = "/blogs/{id}", tag = "blogs", operation_id = "patch_blog",
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, nullable = false)),
    request_body(content = Option<PatchPostRequest>),
    responses(
        (status = 200, body = Post),
        (status = 409, description = "The post is being generated, or has no content for a title."),
        (status = 412, description = "The post has changed since."),
    ),
)]
pub(crate) async fn patch_post(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    headers: HeaderMap,
    ValidatedJson(edit): ValidatedJson<PatchPostRequest>,
) -> Result<Response> {
    let PatchPostRequest {
        content,
        mut title,
        topic,
    } = edit;
    let text = content.map(|content| PostContent::new(title.take(), content));
    let change = PostChange { text, title, topic };
    change.store(&state, me, id, headers).await
}

/// A change of a post by its owner.
#[derive(Debug, Default)]
pub(super) struct PostChange {
    /// A new content, perhaps with a title.
    pub(super) text: Option<PostContent>,
    /// A title alone.
    pub(super) title: Option<String>,
    pub(super) topic: Option<String>,
}

impl PostChange {
    /// Stores it, and answers with the post.
    pub(super) async fn store(
        mut self,
        state: &AppState,
        me: CurrentUser,
        id: Uuid,
        headers: HeaderMap,
    ) -> Result<Response> {
        let owner = me.clone();
        let quota = StorageQuota::new(&state.config);
        let post = state
            .db
            .transaction(async move |tx| {
                quota.lock_user(tx, owner.user.id).await?;
                let post = owner.post(id).lock_exclusive();
                let mut post = post.one(tx).await?.ok_or(Error::NotFound)?;
                if !if_match_allows(&headers, post.version) {
                    return Err(Error::VersionConflict);
                }
                let is_first = post.content.is_none() || self.topic.is_some();
                if post.status == post::Status::Generating && is_first {
                    return Err(Error::GenerationInProgress);
                }
                if let Some(topic) = self.topic.take() {
                    post = post::Entity::set_topic(tx, &post, topic).await?;
                }
                let Some(text) = self.new_text(&post)? else {
                    return Ok(post);
                };
                let before = post.content.as_ref().map_or(0, String::len);
                let growth = text.content.len() as i64 - before as i64;
                let post = post::Entity::set_text(tx, &post, &text).await?;
                quota.allows_edit(tx, owner.user.id, growth).await?;
                Ok(post)
            })
            .await?;
        let tag = version_etag(post.version, Format::Json);
        let post = Post::load(state.db.read(), post, &me).await?;
        Ok(with_etag(&HeaderMap::new(), &tag, Json(post)))
    }

    /// The title and content that the post is to have; None if they stay.
    ///
    /// # Errors
    /// [`Error::NoContent`] for a title alone of a post without a content.
    fn new_text(&mut self, post: &post::Model) -> Result<Option<PostContent>> {
        let Some(mut text) = self.text.take() else {
            let Some(title) = self.title.take() else {
                return Ok(None);
            };
            let text = PostContent::with_title(post, title);
            return text.map(Some).ok_or(Error::NoContent);
        };
        // A post whose generation failed may have no title to keep.
        if text.title.is_none() && post.title.is_none() {
            text.title = Some(post.topic.chars().take(MAX_TITLE_LEN).collect());
        }
        Ok(Some(text))
    }
}
