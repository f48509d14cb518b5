//! The revisions of a post: its present text, earlier ones, and such as came too late.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, Utc};
use entity::post::{self, PostContent};
use entity::post_revision::{self, Author};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QuerySelect};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::response::Post;
use super::update::PostChange;
use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};
use crate::extract::path::{PathId, PathParts};
use crate::extract::query::ValidatedQuery;
use crate::generation_options::GenerationOptions;
use crate::pagination::{CursorCodec, Page, PageRequest, PageResponse};
use crate::routes::timestamp;
use crate::state::AppState;

/// A revision of a post, without its content.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevisionSummary {
    /// The version of the post that brought it. Not every version brings a text.
    version: i32,
    author: RevisionAuthor,
    /// The options that an agent had; null for a user's text.
    #[schema(value_type = Option<GenerationOptions>)]
    options: Option<serde_json::Value>,
    title: Option<String>,
    word_count: i32,
    #[serde(serialize_with = "timestamp")]
    created_at: DateTime<Utc>,
    /// Whether it is the present text of the post.
    current: bool,
}

/// Who wrote a revision.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevisionAuthor {
    kind: Author,
    /// Null for an agent.
    username: Option<String>,
    /// The model of an agent, if it is known; null for a user.
    model: Option<String>,
}

/// A revision of a post.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Revision {
    #[serde(flatten)]
    summary: RevisionSummary,
    /// Markdown.
    content: String,
}

impl RevisionSummary {
    fn new(row: post_revision::Summary, current: bool, me: &CurrentUser) -> Self {
        let username = match row.author {
            Author::User => Some(me.user.username.clone()),
            Author::Agent => None,
        };
        RevisionSummary {
            version: row.version,
            author: RevisionAuthor {
                kind: row.author,
                username,
                model: row.model,
            },
            options: row.options,
            title: row.title,
            word_count: row.word_count,
            created_at: row.created_at,
            current,
        }
    }
}

/// Which revisions to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListRevisionsQuery {
    /// Entries per page, by default 20.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
    /// `next_cursor` of the previous page.
    #[param(max_length = 500, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

type RevisionSummaryPage = Page<RevisionSummary>;

/// List a post's revisions
///
/// Every change of its title or content is one, the newest first. The newest 100 are kept. If your
/// storage is full, the oldest revisions of all your posts give way to texts.
#[utoipa::path(
    get, path = "/blogs/{id}/revisions", tag = "blogs", operation_id = "list_blog_revisions",
    params(("id" = Uuid, Path), ListRevisionsQuery),
    responses((status = 200, body = RevisionSummaryPage)),
)]
pub(crate) async fn list_revisions(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    OriginalUri(uri): OriginalUri,
    ValidatedQuery(query): ValidatedQuery<ListRevisionsQuery>,
) -> Result<PageResponse<RevisionSummary>> {
    let list = format!("revisions/{id}");
    let list = CursorCodec::new(&state.keys, me.user.id, &list);
    let page = PageRequest::new(list, query.limit, query.cursor.as_deref())?;
    let before: i32 = page.after()?.unwrap_or(i32::MAX);
    let db = state.db.read();
    let post = post::without_content(me.post(id)).one(db).await?;
    let current = current(&post.ok_or(Error::NotFound)?);
    let rows = post_revision::Entity::of_post(id)
        .filter(post_revision::Column::Version.lt(before))
        .limit(page.rows_to_fetch())
        .into_partial_model::<post_revision::Summary>()
        .all(db)
        .await?;
    let is_current = |version| matches!(&current, Some(current) if current.version == version);
    // It may have been replaced since it was read.
    let rows = rows.into_iter().filter(|row| !is_current(row.version));
    let shown = current.clone().filter(|current| current.version < before);
    let mut rows: Vec<_> = rows.chain(shown).collect();
    rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.version));
    let next = page.split(&mut rows, |row| row.version)?;
    let item = |row: post_revision::Summary| {
        let current = is_current(row.version);
        RevisionSummary::new(row, current, &me)
    };
    let items = rows.into_iter().map(item).collect();
    Ok(Page::response(&uri, items, next))
}

/// The present text of a post, if it has one.
fn current(post: &post::Model) -> Option<post_revision::Summary> {
    // Which every text has, and which is read with lists.
    post.excerpt.as_ref()?;
    Some(match post.text_author {
        Some(author) => post_revision::Summary {
            version: post.text_version.unwrap_or(post.version),
            title: post.title.clone(),
            word_count: post.word_count,
            author,
            model: post.text_model.clone(),
            options: post.text_options.clone(),
            created_at: post.text_at.unwrap_or(post.updated_at),
        },
        // A release before revisions has stored it.
        None => post_revision::Summary {
            version: post.version,
            title: post.title.clone(),
            word_count: post.word_count,
            author: Author::Agent,
            model: None,
            options: Some(post.options.clone()),
            created_at: post.updated_at,
        },
    })
}

/// Get a revision of a post
#[utoipa::path(
    get, path = "/blogs/{id}/revisions/{version}", tag = "blogs",
    operation_id = "get_blog_revision",
    params(("id" = Uuid, Path), ("version" = i32, Path, minimum = 1, maximum = 2147483647)),
    responses((status = 200, body = Revision)),
)]
pub(crate) async fn get_revision(
    State(state): State<AppState>,
    me: CurrentUser,
    PathParts((id, version)): PathParts<(Uuid, i32)>,
) -> Result<Json<Revision>> {
    let revision = find_revision(state.db.read(), &me, id, version).await?;
    Ok(Json(revision))
}

/// A revision of the user's own post.
///
/// # Errors
/// [`Error::NotFound`] if there is no such post, or no such revision of it any more.
async fn find_revision(
    db: &impl ConnectionTrait,
    me: &CurrentUser,
    id: Uuid,
    version: i32,
) -> Result<Revision> {
    let post = me.post(id).one(db).await?.ok_or(Error::NotFound)?;
    if let Some(summary) = current(&post).filter(|current| current.version == version)
        && let Some(content) = post.content
    {
        let summary = RevisionSummary::new(summary, true, me);
        return Ok(Revision { summary, content });
    }
    let row = post_revision::Entity::find_by_id((id, version));
    let row = row.one(db).await?.ok_or(Error::NotFound)?;
    let summary = post_revision::Summary {
        version: row.version,
        title: row.title,
        word_count: row.word_count,
        author: row.author,
        model: row.model,
        options: row.options,
        created_at: row.created_at,
    };
    Ok(Revision {
        summary: RevisionSummary::new(summary, false, me),
        content: row.content,
    })
}

/// Restore a revision of a post
///
/// Its title and content become the present ones, as a new revision.
#[utoipa::path(
    post, path = "/blogs/{id}/revisions/{version}/restore", tag = "blogs",
    operation_id = "restore_blog_revision",
    params(
        ("id" = Uuid, Path),
        ("version" = i32, Path, minimum = 1, maximum = 2147483647),
        ("If-Match" = Option<String>, Header, nullable = false),
    ),
    responses(
        (status = 200, body = Post),
        (status = 412, description = "The post has changed since."),
    ),
)]
pub(crate) async fn restore_revision(
    State(state): State<AppState>,
    me: CurrentUser,
    PathParts((id, version)): PathParts<(Uuid, i32)>,
    headers: HeaderMap,
) -> Result<Response> {
    // It never changes, so it need not be read in the transaction.
    let Revision { summary, content } = find_revision(state.db.read(), &me, id, version).await?;
    let change = PostChange {
        text: Some(PostContent::new(summary.title, content)),
        ..PostChange::default()
    };
    change.store(&state, me, id, headers).await
}

/// The title and content of two revisions.
pub(super) async fn find_two(
    db: &impl ConnectionTrait,
    me: &CurrentUser,
    id: Uuid,
    versions: (i32, i32),
) -> Result<[(Option<String>, String); 2]> {
    let old = find_revision(db, me, id, versions.0).await?;
    let new = find_revision(db, me, id, versions.1).await?;
    Ok([old, new].map(|revision| (revision.summary.title, revision.content)))
}
