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
use crate::auth::SignedIn;
use crate::body::{Body, Fields, Valid, text, trimmed};
use crate::error::{Error, Result, both};
use crate::idempotency::{Answer, Key};
use crate::negotiate::{self, Format, may_change, tagged, version_tag};
use crate::observe::origin;
use crate::options::{Options, model_of};
use crate::page::{List, cut, limit, link};
use crate::query::{Id, Params, searched};
use crate::quota::Quota;
use crate::wait::Place;
use crate::{AppState, render};

mod filter;
mod view;

pub use filter::{Filter, Sort};
use filter::{Position, contains};
use view::summaries;
pub use view::{Author, Post, Status, Summary};

/// What to write about.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPost {
    #[schema(
        min_length = 3,
        max_length = 500,
        pattern = "^[^\\x00]*[^\\s\\x00][^\\x00]+[^\\s\\x00][^\\x00]*$"
    )]
    topic: String,
    #[schema(nullable)]
    options: Option<Options>,
}

impl Body for NewPost {
    fn read(fields: &mut Fields) -> Option<Self> {
        let topic = fields.required("topic", trimmed(3, 500));
        let options = fields.nested("options");
        Some(NewPost {
            topic: topic?,
            options: options?,
        })
    }
}

/// How to write it this time.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Regeneration {
    /// By default those of the last time, however long ago it was.
    #[schema(nullable)]
    options: Option<Options>,
}

impl Body for Regeneration {
    fn read(fields: &mut Fields) -> Option<Self> {
        let options = fields.nested("options")?;
        Some(Regeneration { options })
    }
}

/// The owner's own words.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Edit {
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

const LONGEST_TITLE: usize = 200;

impl Body for Edit {
    fn read(fields: &mut Fields) -> Option<Self> {
        // How long it may be is up to the limit for bodies.
        let content = fields.required("content", text(1, usize::MAX));
        let title = fields.optional("title", trimmed(1, LONGEST_TITLE));
        Some(Edit {
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
pub struct PostPage {
    #[schema(max_items = 100)]
    items: Vec<Summary>,
    /// Leads to the next page; null on the last one.
    next_cursor: Option<String>,
}

/// Ask for a post
///
/// It is stored with its job, and answered at once. With `Prefer: wait=N` the
/// answer comes when the job has ended, or after N seconds, at most 60.
#[utoipa::path(
    post, path = "/blogs", tag = "blogs", operation_id = "create_blog",
    request_body = NewPost,
    params(Key, ("Prefer" = Option<String>, Header, nullable = false, example = "wait=30")),
    responses(
        (status = 202, description = "It will be written.", body = Post),
        (status = 201, description = "It was written while you waited.", body = Post),
    ),
)]
pub async fn create(
    State(state): State<AppState>,
    me: SignedIn,
    headers: HeaderMap,
    key: Key,
    Valid(new): Valid<NewPost>,
) -> Result<Answer> {
    let id = new_id();
    let enter = |patience| state.waits.enter(me.user.id, patience);
    let place = negotiate::preferred_wait(&headers).and_then(enter);
    let patience = place.as_ref().map(|place| place.patience);
    let once = key.of(&me, &new)?.waiting(patience);
    let (first, ours, owner, origin) = (once.clone(), state.clone(), me.clone(), origin());
    let answer = state
        .db
        .transaction(async move |tx| {
            let work = store(tx, ours, owner, id, new, origin);
            first.protect(tx, work).await
        })
        .await?;
    match (answer, place) {
        (Answer::First(_), Some(place)) => {
            let db = state.db.clone();
            once.settle(db, written(state, me, id, place)).await
        }
        (answer, _) => Ok(answer),
    }
}

/// Stores a post with its job: both or neither.
async fn store(
    tx: &DatabaseTransaction,
    state: AppState,
    me: SignedIn,
    id: Uuid,
    new: NewPost,
    origin: RequestOrigin,
) -> Result<(Response, Uuid)> {
    let options = new.options.unwrap_or_default().to_json()?;
    let model = model_of(&options, &state.models)?;
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
async fn written(state: AppState, me: SignedIn, id: Uuid, place: Place) -> Result<Response> {
    let job = job::Entity::of_post(id).one(state.db.read()).await?;
    let job = job.ok_or(Error::NotFound)?;
    let applied = format!("wait={}", place.patience.as_secs());
    place.wait_for(job.id, |now| now.status.is_over()).await?;
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
    params(Filter),
    responses((status = 200, body = PostPage)),
)]
pub async fn list(
    State(state): State<AppState>,
    me: SignedIn,
    OriginalUri(uri): OriginalUri,
    Params(filter): Params<Filter>,
) -> Result<(HeaderMap, Json<PostPage>)> {
    let (limit, q) = both(limit(filter.limit), searched(filter.q.as_deref()))?;
    let sort = filter.sort.unwrap_or_default();
    let list = List {
        keys: &state.keys,
        user: me.user.id,
        name: sort.name(),
    };
    let mut posts = sort
        .apply(post::Entity::owned_by(me.user.id).without_content())
        .limit(limit + 1);
    if let Some(status) = filter.status {
        posts = posts.filter(post::Column::Status.eq(post::Status::from(status)));
    }
    if let Some(q) = q {
        posts = posts.filter(contains(state.db.backend(), q));
    }
    if let Some(cursor) = &filter.cursor {
        posts = posts.filter(sort.after(list.position(cursor)?));
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
    let last = cut(&mut posts, limit).map(|last| Position {
        id: last.id,
        updated_at: last.updated_at,
    });
    let next_cursor = last.map(|position| list.cursor(&position)).transpose()?;
    let items = summaries(state.db.read(), posts, &me).await?;
    let headers = link(&uri, next_cursor.as_deref());
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
pub async fn get(
    State(state): State<AppState>,
    me: SignedIn,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response> {
    let post = find(state.db.read(), &me, id).await?;
    let format = negotiate::format(&headers);
    let tag = version_tag(post.version, format);
    let mut response = match format {
        Format::Json => {
            // A job goes on without a new version, which only its end brings. Until
            // then the tag says nothing of the job, and the client has no such post.
            let asked = match post.status {
                post::Status::Generating => &HeaderMap::new(),
                _ => &headers,
            };
            let post = Post::load(state.db.read(), post, &me).await?;
            tagged(asked, &tag, Json(post))
        }
        Format::Markdown => {
            let media_type = (header::CONTENT_TYPE, "text/markdown; charset=utf-8");
            tagged(&headers, &tag, ([media_type], content(post)?))
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
    let page = match negotiate::has(headers, tag) {
        true => String::new(),
        false => {
            let render = move || render::html(&content);
            state.renders.compute(render).await?
        }
    };
    Ok(tagged(headers, tag, ([media_type, policy], page)))
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
pub async fn status(
    State(state): State<AppState>,
    me: SignedIn,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response> {
    let post = find(state.db.read(), &me, id).await?;
    let job = job::Entity::of_post(post.id).one(state.db.read()).await?;
    let job = job.ok_or(Error::JobForgotten)?;
    jobs::answer(&headers, &Job::load_one(state.db.read(), job).await?)
}

/// Change a post's text
///
/// With `If-Match`, only if nobody has changed it since.
#[utoipa::path(
    put, path = "/blogs/{id}", tag = "blogs", operation_id = "update_blog",
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, nullable = false)),
    request_body = Edit,
    responses(
        (status = 200, body = Post),
        (status = 409, description = "The post is being generated.", body = crate::error::Problem,
            content_type = "application/problem+json"),
        (status = 412, description = "The post has changed since.", body = crate::error::Problem,
            content_type = "application/problem+json"),
    ),
)]
pub async fn update(
    State(state): State<AppState>,
    me: SignedIn,
    Id(id): Id,
    headers: HeaderMap,
    Valid(edit): Valid<Edit>,
) -> Result<Response> {
    let (owner, quota) = (me.clone(), Quota::new(&state.config));
    let post = state
        .db
        .transaction(async move |tx| edit_post(tx, owner, id, headers, edit, quota).await)
        .await?;
    let tag = version_tag(post.version, Format::Json);
    let post = Post::load(state.db.read(), post, &me).await?;
    Ok(tagged(&HeaderMap::new(), &tag, Json(post)))
}

async fn edit_post(
    tx: &DatabaseTransaction,
    me: SignedIn,
    id: Uuid,
    headers: HeaderMap,
    edit: Edit,
    quota: Quota,
) -> Result<post::Model> {
    quota.hold(tx, me.user.id).await?;
    let post = hold(tx, &me, id).await?;
    if !may_change(&headers, post.version) {
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
        None => Some(post.topic.chars().take(LONGEST_TITLE).collect()),
    });
    let text = post::Text::new(title, edit.content);
    let written = post::Entity::write(tx, id, &text, Some(post.version)).await?;
    written.ok_or(Error::VersionConflict)
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub struct Done {
    message: &'static str,
}

/// Delete a post
///
/// A job at work on it is stopped.
#[utoipa::path(
    delete, path = "/blogs/{id}", tag = "blogs", operation_id = "delete_blog",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Done)),
)]
pub async fn delete(State(state): State<AppState>, me: SignedIn, Id(id): Id) -> Result<Json<Done>> {
    state
        .db
        .transaction(async move |tx| delete_post(tx, me, id).await)
        .await?;
    Ok(Json(Done {
        message: "The post was deleted.",
    }))
}

async fn delete_post(tx: &DatabaseTransaction, me: SignedIn, id: Uuid) -> Result<()> {
    let post = find(tx, &me, id).await?;
    // Those hold copies of it. Whoever makes one holds its key before all else.
    idempotency::Entity::erase_answers(tx, post.id).await?;
    queue::detach_post(tx, post.id).await?;
    post::Entity::delete_by_id(post.id).exec(tx).await?;
    // And those that were committed meanwhile.
    idempotency::Entity::erase_answers(tx, post.id).await?;
    Ok(())
}

/// Write a post anew
#[utoipa::path(
    post, path = "/blogs/{id}/regenerate", tag = "blogs", operation_id = "regenerate_blog",
    params(("id" = Uuid, Path), Key),
    request_body(content = Option<Regeneration>),
    responses(
        (status = 202, body = Post),
        (status = 409, description = "The post is being generated, or the first request with this \
            Idempotency-Key is under way.",
            body = crate::error::Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn regenerate(
    State(state): State<AppState>,
    me: SignedIn,
    Id(id): Id,
    key: Key,
    Valid(again): Valid<Regeneration>,
) -> Result<Answer> {
    let (once, origin) = (key.of(&me, &again)?, origin());
    let db = state.db.clone();
    db.transaction(async move |tx| {
        once.protect(tx, store_again(tx, state, me, id, again, origin))
            .await
    })
    .await
}

/// Stores another job for a post.
async fn store_again(
    tx: &DatabaseTransaction,
    state: AppState,
    me: SignedIn,
    id: Uuid,
    again: Regeneration,
    origin: RequestOrigin,
) -> Result<(Response, Uuid)> {
    let post = find(tx, &me, id).await?;
    let options = match again.options {
        Some(options) => options.to_json()?,
        None => post.options,
    };
    let model = model_of(&options, &state.models)?;
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
async fn find(db: &impl ConnectionTrait, me: &SignedIn, id: Uuid) -> Result<post::Model> {
    let post = post::Entity::owned_by(me.user.id)
        .filter(post::Column::Id.eq(id))
        .one(db)
        .await?;
    post.ok_or(Error::NotFound)
}

/// A post of one's own, which nobody else changes before `tx` ends.
async fn hold(tx: &DatabaseTransaction, me: &SignedIn, id: Uuid) -> Result<post::Model> {
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
        jobs::hint(&mut headers, job);
    }
    (StatusCode::ACCEPTED, headers, Json(post)).into_response()
}
