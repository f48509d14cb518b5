//! Blog posts.

use std::time::Duration;

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use entity::clock::{new_id, now};
use entity::post::WithoutContent;
use entity::{idempotency, job, post};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter, QuerySelect, Set,
};
use serde::Serialize;
use shared::queue::{self, NewJob, RequestOrigin};
use utoipa::ToSchema;
use uuid::Uuid;

use super::jobs::{self, Job};
use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result, merge_violations};
use crate::extract::idempotency::{IdempotencyKey, IdempotentResponse};
use crate::extract::json::{FieldReader, FromFields, ValidatedJson, length, trimmed_length};
use crate::extract::query::{PathId, ValidatedQuery, search_term};
use crate::generation_options::{GenerationOptions, resolve_model};
use crate::http_headers::{self, Format, if_match_allows, version_etag, with_etag};
use crate::long_poll::LongPollPermit;
use crate::middleware::request_context::current_origin;
use crate::pagination::{CursorCodec, next_link_header, page_limit, split_page};
use crate::quota::Quota;
use crate::{AppState, markdown};

mod filter;
mod response;

pub(crate) use filter::ListPostsQuery;
use filter::{PostCursor, contains};
use response::summaries;
pub(crate) use response::{Post, PostSummary};

/// What to write about.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreatePostRequest {
    #[schema(
        min_length = 3,
        max_length = 500,
        pattern = "^[^\\x00]*[^\\s\\x00][^\\x00]+[^\\s\\x00][^\\x00]*$"
    )]
    topic: String,
    #[schema(nullable)]
    options: Option<GenerationOptions>,
}

impl FromFields for CreatePostRequest {
    fn from_fields(fields: &mut FieldReader) -> Option<Self> {
        let topic = fields.required("topic", trimmed_length(3, 500));
        let options = fields.nested("options");
        Some(CreatePostRequest {
            topic: topic?,
            options: options?,
        })
    }
}

/// How to write it this time.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegeneratePostRequest {
    /// By default those of the last time, however long ago it was.
    #[schema(nullable)]
    options: Option<GenerationOptions>,
}

impl FromFields for RegeneratePostRequest {
    fn from_fields(fields: &mut FieldReader) -> Option<Self> {
        let options = fields.nested("options")?;
        Some(RegeneratePostRequest { options })
    }
}

/// The owner's own words.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdatePostRequest {
    /// Markdown.
    #[schema(min_length = 1, pattern = "^[^\\x00]*$")]
    content: String,
    /// By default the present one.
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
        // How long it may be is up to the limit for bodies.
        let content = fields.required("content", length(1, usize::MAX));
        let title = fields.optional("title", trimmed_length(1, MAX_TITLE_LEN));
        Some(UpdatePostRequest {
            content: content?,
            title: title?,
        })
    }
}

/// How long a search may take on Postgres, which ends it then. On SQLite the quota
/// on text bounds it.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(5);

/// A page of posts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PostPage {
    #[schema(max_items = 100)]
    items: Vec<PostSummary>,
    /// Leads to the next page; null on the last one.
    next_cursor: Option<String>,
}

/// Ask for a post
///
/// It is stored with its job, and answered at once. With `Prefer: wait=N` the
/// answer comes when the job has ended, or after N seconds, at most 60.
#[utoipa::path(
    post, path = "/blogs", tag = "blogs", operation_id = "create_blog",
    request_body = CreatePostRequest,
    params(IdempotencyKey, ("Prefer" = Option<String>, Header, nullable = false, example = "wait=30")),
    responses(
        (status = 202, description = "It will be written.", body = Post),
        (status = 201, description = "It was written while you waited.", body = Post),
    ),
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    me: CurrentUser,
    headers: HeaderMap,
    key: IdempotencyKey,
    ValidatedJson(new): ValidatedJson<CreatePostRequest>,
) -> Result<IdempotentResponse> {
    let id = new_id();
    let enter = |patience| state.waits.try_acquire(me.user.id, patience);
    let place = http_headers::preferred_wait(&headers).and_then(enter);
    let patience = place.as_ref().map(|place| place.max_wait);
    let once = key.for_request(&me, &new)?.with_pending_until(patience);
    let (first, ours, owner, origin) = (once.clone(), state.clone(), me.clone(), current_origin());
    let answer = state
        .db
        .transaction(async move |tx| {
            let work = create_tx(tx, ours, owner, id, new, origin);
            first.execute_once(tx, work).await
        })
        .await?;
    match (answer, place) {
        (IdempotentResponse::Fresh(_), Some(place)) => {
            let db = state.db.clone();
            once.replace_response(db, wait_until_finished(state, me, id, place))
                .await
        }
        (answer, _) => Ok(answer),
    }
}

/// Stores a post with its job: both or neither.
async fn create_tx(
    tx: &DatabaseTransaction,
    state: AppState,
    me: CurrentUser,
    id: Uuid,
    new: CreatePostRequest,
    origin: RequestOrigin,
) -> Result<(Response, Uuid)> {
    let options = new.options.unwrap_or_default().to_json()?;
    let model = resolve_model(&options, &state.models)?;
    let row = post::ActiveModel {
        id: Set(id),
        user_id: Set(me.user.id),
        topic: Set(new.topic),
        options: Set(options.clone()),
        title: Set(None),
        content: Set(None),
        excerpt: Set(None),
        word_count: Set(0),
        status: Set(post::Status::Generating),
        version: Set(1),
        created_at: Set(now()),
        updated_at: Set(now()),
    };
    let job = NewJob {
        post: id,
        user: me.user.id,
        is_first: true,
        options,
        model,
        max_attempts: state.config.job_max_attempts,
        origin,
    };
    let post = post::Entity::insert(row).exec_with_returning(tx).await?;
    let job = queue::enqueue(tx, job, state.config.user_max_active_jobs).await?;
    Quota::new(&state.config)
        .allows_post(tx, me.user.id)
        .await?;
    let job = Job::load_one(tx, job).await?;
    Ok((accepted(Post::new(post, Some(job), &me)), id))
}

/// Waits until a post is written, or its job has ended otherwise, but no longer
/// than the client's patience.
async fn wait_until_finished(
    state: AppState,
    me: CurrentUser,
    id: Uuid,
    place: LongPollPermit,
) -> Result<Response> {
    let job = job::Entity::of_post(id).one(state.db.read()).await?;
    let job = job.ok_or(Error::NotFound)?;
    let applied = format!("wait={}", place.max_wait.as_secs());
    place
        .wait_for(job.id, |now| now.status.is_finished())
        .await?;
    let post = find(state.db.read(), &me, id).await?;
    let is_ready = post.status == post::Status::Ready;
    let mut response = accepted(Post::load(state.db.read(), post, &me).await?);
    if is_ready {
        *response.status_mut() = StatusCode::CREATED;
    }
    if let Ok(applied) = HeaderValue::from_str(&applied) {
        response.headers_mut().insert("preference-applied", applied);
    }
    Ok(response)
}

/// List one's posts
#[utoipa::path(
    get, path = "/blogs", tag = "blogs", operation_id = "list_blogs",
    params(ListPostsQuery),
    responses((status = 200, body = PostPage)),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    me: CurrentUser,
    OriginalUri(uri): OriginalUri,
    ValidatedQuery(filter): ValidatedQuery<ListPostsQuery>,
) -> Result<(HeaderMap, Json<PostPage>)> {
    let (limit, q) = merge_violations(page_limit(filter.limit), search_term(filter.q.as_deref()))?;
    let sort = filter.sort.unwrap_or_default();
    let list = CursorCodec {
        keys: &state.keys,
        user: me.user.id,
        name: sort.name(),
    };
    let mut posts = sort
        .apply(post::Entity::owned_by(me.user.id).without_content())
        .limit(limit + 1);
    if let Some(status) = filter.status {
        posts = posts.filter(post::Column::Status.eq(status));
    }
    if let Some(q) = q {
        posts = posts.filter(contains(state.db.backend(), q));
    }
    if let Some(cursor) = &filter.cursor {
        posts = posts.filter(sort.after(list.decode(cursor)?));
    }
    let mut posts = match q {
        // A search reads whole posts, and reads on though its client has gone.
        Some(_) => {
            let db = state.db.clone();
            let search = async move { db.read().all_within(SEARCH_TIMEOUT, posts).await };
            state.searches.run(me.user.id, search).await??
        }
        None => posts.all(state.db.read()).await?,
    };
    let last = split_page(&mut posts, limit).map(|last| PostCursor {
        id: last.id,
        updated_at: last.updated_at,
    });
    let next_cursor = last.map(|position| list.encode(&position)).transpose()?;
    let items = summaries(state.db.read(), posts, &me).await?;
    let headers = next_link_header(&uri, next_cursor.as_deref());
    Ok((headers, Json(PostPage { items, next_cursor })))
}

/// Get a post
///
/// As JSON, or just its content as Markdown or HTML, whichever `Accept` likes
/// best. As JSON a post that is being generated is always sent whole: its job
/// goes on while the post's version, and so its `ETag`, stays the same.
#[utoipa::path(
    get, path = "/blogs/{id}", tag = "blogs", operation_id = "get_blog",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, content((Post = "application/json"), (String = "text/markdown"), (String = "text/html"))),
        (status = 304),
        (status = 409, description = "Markdown or HTML was asked for, and there is no content: the \
            post is being generated for the first time, or its job ended without any.", body = crate::error::Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Response> {
    let post = find(state.db.read(), &me, id).await?;
    let format = http_headers::accepted_format(&headers);
    let tag = version_etag(post.version, format);
    let mut response = match format {
        Format::Json => {
            // A job goes on without a new version, which only its end brings. Until
            // then the tag says nothing of the job, and the client has no such post.
            let asked = match post.status {
                post::Status::Generating => &HeaderMap::new(),
                _ => &headers,
            };
            let post = Post::load(state.db.read(), post, &me).await?;
            with_etag(asked, &tag, Json(post))
        }
        Format::Markdown => {
            let media_type = (header::CONTENT_TYPE, "text/markdown; charset=utf-8");
            with_etag(&headers, &tag, ([media_type], content(post)?))
        }
        Format::Html => page(&state, &headers, &tag, content(post)?).await?,
    };
    let accept = HeaderValue::from_static("Accept");
    response.headers_mut().insert(header::VARY, accept);
    Ok(response)
}

/// A post's content as a page, which is not rendered for whoever has it.
async fn page(
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
    let page = match http_headers::is_not_modified(headers, tag) {
        true => String::new(),
        false => {
            let render = move || markdown::render_html(&content);
            state.renders.run_blocking(render).await?
        }
    };
    Ok(with_etag(headers, tag, ([media_type, policy], page)))
}

/// Get a post's latest job
///
/// Jobs that were over long ago are forgotten, and their posts are not.
#[utoipa::path(
    get, path = "/blogs/{id}/status", tag = "blogs", operation_id = "get_blog_status",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, body = Job),
        (status = 304),
        (status = 404, description = "There is no such post, or its job is no longer kept.",
            body = crate::error::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn status(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Response> {
    let post = find(state.db.read(), &me, id).await?;
    let job = job::Entity::of_post(post.id).one(state.db.read()).await?;
    let job = job.ok_or(Error::JobPruned)?;
    jobs::job_response(&headers, &Job::load_one(state.db.read(), job).await?)
}

/// Change a post's text
///
/// With `If-Match`, only if nobody has changed it since.
#[utoipa::path(
    put, path = "/blogs/{id}", tag = "blogs", operation_id = "update_blog",
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, nullable = false)),
    request_body = UpdatePostRequest,
    responses(
        (status = 200, body = Post),
        (status = 409, description = "The post is being generated.", body = crate::error::Problem,
            content_type = "application/problem+json"),
        (status = 412, description = "The post has changed since.", body = crate::error::Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn update(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    headers: HeaderMap,
    ValidatedJson(edit): ValidatedJson<UpdatePostRequest>,
) -> Result<Response> {
    let (owner, quota) = (me.clone(), Quota::new(&state.config));
    let post = state
        .db
        .transaction(async move |tx| update_tx(tx, owner, id, headers, edit, quota).await)
        .await?;
    let tag = version_etag(post.version, Format::Json);
    let post = Post::load(state.db.read(), post, &me).await?;
    Ok(with_etag(&HeaderMap::new(), &tag, Json(post)))
}

async fn update_tx(
    tx: &DatabaseTransaction,
    me: CurrentUser,
    id: Uuid,
    headers: HeaderMap,
    edit: UpdatePostRequest,
    quota: Quota,
) -> Result<post::Model> {
    quota.lock_user(tx, me.user.id).await?;
    let post = lock_for_update(tx, &me, id).await?;
    if !if_match_allows(&headers, post.version) {
        return Err(Error::VersionConflict);
    }
    if post.status == post::Status::Generating {
        return Err(Error::GenerationInProgress);
    }
    let before = post.content.as_ref().map_or(0, String::len);
    let growth = edit.content.len() as i64 - before as i64;
    quota.allows_growth(tx, me.user.id, growth).await?;
    // A post whose generation failed may have no title to keep.
    let title = edit.title.or_else(|| match post.title {
        Some(_) => None,
        None => Some(post.topic.chars().take(MAX_TITLE_LEN).collect()),
    });
    let text = post::PostContent::new(title, edit.content);
    let written = post::Entity::set_content(tx, id, &text, Some(post.version)).await?;
    written.ok_or(Error::VersionConflict)
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeletePostResponse {
    message: &'static str,
}

/// Delete a post
///
/// A job at work on it is stopped.
#[utoipa::path(
    delete, path = "/blogs/{id}", tag = "blogs", operation_id = "delete_blog",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = DeletePostResponse)),
)]
pub(crate) async fn delete(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
) -> Result<Json<DeletePostResponse>> {
    state
        .db
        .transaction(async move |tx| delete_tx(tx, me, id).await)
        .await?;
    Ok(Json(DeletePostResponse {
        message: "The post was deleted.",
    }))
}

async fn delete_tx(tx: &DatabaseTransaction, me: CurrentUser, id: Uuid) -> Result<()> {
    let post = find(tx, &me, id).await?;
    // Those hold copies of it. Whoever makes one holds its key before all else.
    idempotency::Entity::erase_responses(tx, post.id).await?;
    queue::detach_post(tx, post.id).await?;
    post::Entity::delete_by_id(post.id).exec(tx).await?;
    // And those that were committed meanwhile.
    idempotency::Entity::erase_responses(tx, post.id).await?;
    Ok(())
}

/// Write a post anew
#[utoipa::path(
    post, path = "/blogs/{id}/regenerate", tag = "blogs", operation_id = "regenerate_blog",
    params(("id" = Uuid, Path), IdempotencyKey),
    request_body(content = Option<RegeneratePostRequest>),
    responses(
        (status = 202, body = Post),
        (status = 409, description = "The post is being generated, or the first request with this \
            Idempotency-Key is under way.",
            body = crate::error::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn regenerate(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    key: IdempotencyKey,
    ValidatedJson(again): ValidatedJson<RegeneratePostRequest>,
) -> Result<IdempotentResponse> {
    let (once, origin) = (key.for_request(&me, &again)?, current_origin());
    let db = state.db.clone();
    db.transaction(async move |tx| {
        once.execute_once(tx, regenerate_tx(tx, state, me, id, again, origin))
            .await
    })
    .await
}

/// Stores another job for a post.
async fn regenerate_tx(
    tx: &DatabaseTransaction,
    state: AppState,
    me: CurrentUser,
    id: Uuid,
    again: RegeneratePostRequest,
    origin: RequestOrigin,
) -> Result<(Response, Uuid)> {
    let post = find(tx, &me, id).await?;
    let options = match again.options {
        Some(options) => options.to_json()?,
        None => post.options,
    };
    let model = resolve_model(&options, &state.models)?;
    let new = NewJob {
        post: post.id,
        user: me.user.id,
        is_first: false,
        options: options.clone(),
        model,
        max_attempts: state.config.job_max_attempts,
        origin,
    };
    let job = queue::enqueue(tx, new, state.config.user_max_active_jobs).await?;
    Quota::new(&state.config)
        .allows_text(tx, me.user.id)
        .await?;
    post::Entity::regenerate(tx, id, options).await?;
    let post = find(tx, &me, id).await?;
    let job = Job::load_one(tx, job).await?;
    Ok((accepted(Post::new(post, Some(job), &me)), id))
}

/// A post of one's own.
async fn find(db: &impl ConnectionTrait, me: &CurrentUser, id: Uuid) -> Result<post::Model> {
    let post = post::Entity::owned_by(me.user.id)
        .filter(post::Column::Id.eq(id))
        .one(db)
        .await?;
    post.ok_or(Error::NotFound)
}

/// A post of one's own, which nobody else changes before `tx` ends.
async fn lock_for_update(
    tx: &DatabaseTransaction,
    me: &CurrentUser,
    id: Uuid,
) -> Result<post::Model> {
    let post = post::Entity::owned_by(me.user.id).filter(post::Column::Id.eq(id));
    post.lock_exclusive().one(tx).await?.ok_or(Error::NotFound)
}

fn content(post: post::Model) -> Result<String> {
    match post.content {
        Some(content) => Ok(content),
        None if post.status == post::Status::Generating => Err(Error::GenerationInProgress),
        None => Err(Error::NoContent),
    }
}

fn accepted(post: Post) -> Response {
    let mut headers = HeaderMap::new();
    let location = format!("/api/v1/blogs/{}", post.summary.id);
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    if let Some(job) = &post.summary.job {
        jobs::set_retry_after(&mut headers, job);
    }
    (StatusCode::ACCEPTED, headers, Json(post)).into_response()
}
