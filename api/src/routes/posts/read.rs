//! Reading a post, and its latest job.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use entity::{job, post};

use super::response::Post;
use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};
use crate::extract::path::PathId;
use crate::http_headers::{Format, accepted_format, is_not_modified, version_etag, with_etag};
use crate::markdown;
use crate::routes::jobs::{Job, job_response};
use crate::state::AppState;

/// Get a post
///
/// As JSON, or its content as Markdown or HTML, as `Accept` prefers. As JSON a post that is being
/// generated is always sent in full: its job progresses while the post's version, and so its
/// `ETag`, stays the same.
#[utoipa::path(
    get, path = "/blogs/{id}", tag = "blogs", operation_id = "get_blog",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, content((Post = "application/json"), (String = "text/markdown"), (String = "text/html"))),
        (status = 304),
        (status = 409, description = "There is no content for Markdown or HTML: the post is being generated \
            for the first time, or its job failed or was canceled."),
    ),
)]
pub(crate) async fn get_post(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Response> {
    let db = state.db.read();
    let post = me.post(id).one(db).await?.ok_or(Error::NotFound)?;
    let format = accepted_format(&headers);
    let tag = version_etag(post.version, format);
    let mut response = match format {
        Format::Json => {
            // The job progresses without a new version, which only its end brings. Until then the
            // tag says nothing about the job, so 304 would be wrong.
            let asked = match post.status {
                post::Status::Generating => &HeaderMap::new(),
                _ => &headers,
            };
            let post = Post::load(db, post, &me).await?;
            with_etag(asked, &tag, Json(post))
        }
        Format::Markdown => {
            let media_type = (header::CONTENT_TYPE, "text/markdown; charset=utf-8");
            with_etag(&headers, &tag, ([media_type], content(post)?))
        }
        Format::Html => html_page(&state, &headers, &tag, content(post)?).await?,
    };
    let accept = HeaderValue::from_static("Accept");
    response.headers_mut().insert(header::VARY, accept);
    Ok(response)
}

/// A post's content as HTML, which is not rendered if the client has it.
async fn html_page(
    state: &AppState,
    headers: &HeaderMap,
    tag: &str,
    content: String,
) -> Result<Response> {
    let media_type = (header::CONTENT_TYPE, "text/html; charset=utf-8");
    // Should anything get past the sanitiser, it still can't run.
    let policy = (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; img-src https:",
    );
    let page = if is_not_modified(headers, tag) {
        String::new()
    } else {
        let render = move || markdown::render_html(&content);
        state.renders.run_blocking(render).await?
    };
    Ok(with_etag(headers, tag, ([media_type, policy], page)))
}

fn content(post: post::Model) -> Result<String> {
    match post.content {
        Some(content) => Ok(content),
        None if post.status == post::Status::Generating => Err(Error::GenerationInProgress),
        None => Err(Error::NoContent),
    }
}

/// Get a post's latest job
///
/// Jobs are deleted some time after they have finished; their posts are not.
#[utoipa::path(
    get, path = "/blogs/{id}/status", tag = "blogs", operation_id = "get_blog_status",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, body = Job),
        (status = 304),
        (status = 404, description = "Not found, or the job is no longer kept."),
    ),
)]
pub(crate) async fn get_post_status(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Response> {
    let db = state.db.read();
    let post = me.post(id).one(db).await?.ok_or(Error::NotFound)?;
    let job = job::Entity::of_post(post.id).one(db).await?;
    let job = job.ok_or(Error::JobPruned)?;
    job_response(&headers, &Job::load_one(db, job).await?)
}
