//! Creating a post, and waiting until it is written.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use entity::clock::new_id;
use entity::source::NewSource;
use entity::{job, post};
use serde::{Deserialize, Serialize};
use shared::queue::NewJob;
use utoipa::ToSchema;
use uuid::Uuid;

use super::insert::NewPost;
use super::response::{Post, accepted};
use super::sources::SourceRequest;
use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};
use crate::extract::field_reader::FieldReader;
use crate::extract::idempotency::{IdempotencyKey, IdempotentResponse};
use crate::extract::json::JsonBody;
use crate::extract::text_rules::trimmed_length;
use crate::generation_options::{
    Capabilities, GenerationOptions, check_writes_parts, resolve_model,
};
use crate::http_headers::preferred_wait;
use crate::long_poll::LongPollPermit;
use crate::middleware::request_context::current_origin;
use crate::state::AppState;

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
    /// With `review` the job stops after its outline, until you approve it.
    #[schema(nullable)]
    #[serde(skip_serializing_if = "Option::is_none")]
    outline: Option<OutlineMode>,
    /// What the post is to be written from.
    #[schema(nullable, max_items = 20)]
    #[serde(skip_serializing_if = "Option::is_none")]
    sources: Option<Vec<SourceRequest>>,
}

/// What is to be done with the outline of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutlineMode {
    /// Its owner reads it, may change it, and approves it before the post is written.
    Review,
}

impl OutlineMode {
    /// Takes the field `outline`.
    pub(super) fn from_fields(
        fields: &mut FieldReader,
        can: &Capabilities,
    ) -> Option<Option<Self>> {
        fields.optional("outline", |mode| {
            check_writes_parts(&can.models).map(|()| mode)
        })
    }
}

impl CreatePostRequest {
    fn from_fields(fields: &mut FieldReader, can: &Capabilities) -> Option<Self> {
        let topic = fields.required("topic", trimmed_length(3, 500));
        let options = fields.nested("options", |fields| {
            GenerationOptions::from_fields(fields, can)
        });
        let outline = OutlineMode::from_fields(fields, can);
        let sources = SourceRequest::from_fields(fields);
        Some(CreatePostRequest {
            topic: topic?,
            options: options?,
            outline: outline?,
            sources: sources?,
        })
    }
}

/// Create a post
///
/// The post is stored with its job, and answered at once. With `Prefer: wait=N` the response comes
/// when the job has finished or awaits your review, or after N seconds, at most 60.
#[utoipa::path(
    post, path = "/blogs", tag = "blogs", operation_id = "create_blog",
    request_body = CreatePostRequest,
    params(IdempotencyKey, ("Prefer" = Option<String>, Header, nullable = false, example = "wait=30")),
    responses(
        (status = 202, description = "Accepted.", body = Post),
        (status = 201, description = "Written while the client waited.", body = Post),
    ),
)]
pub(crate) async fn create_post(
    State(state): State<AppState>,
    me: CurrentUser,
    headers: HeaderMap,
    key: IdempotencyKey,
    body: JsonBody,
) -> Result<IdempotentResponse> {
    let new = body.read(|fields| CreatePostRequest::from_fields(fields, &state.capabilities))?;
    let permit = preferred_wait(&headers)
        .and_then(|max_wait| state.long_polls.try_acquire(me.user.id, max_wait));
    let max_wait = permit.as_ref().map(|permit| permit.max_wait);
    let once = key.for_request(&me, &new)?.with_pending_until(max_wait);

    let sources: Vec<NewSource> = new.sources.into_iter().flatten().map(Into::into).collect();
    let options = new.options.unwrap_or_default();
    let options = options
        .with_sources(!sources.is_empty(), &state.capabilities)?
        .to_json()?;
    let id = new_id();
    let new = NewPost {
        id,
        topic: new.topic,
        sources,
        job: NewJob {
            post: id,
            user: me.user.id,
            review: new.outline.is_some(),
            section: None,
            model: resolve_model(&options, &state.capabilities.models)?,
            options,
            max_attempts: state.config.job_max_attempts,
            origin: current_origin(),
        },
        owner: me.clone(),
    };
    // Sources may be megabytes, for which others would have to wait.
    let response = if once.has_key() || !new.sources.is_empty() {
        let first = once.clone();
        let insert = state.new_posts.clone();
        let work = async move |tx: &_| {
            let work = async { insert.one(tx, new).await.map(|post| (accepted(post), id)) };
            first.execute_once(tx, work).await
        };
        state.db.transaction(work).await?
    } else {
        let post = state.new_posts.insert(new).await?;
        IdempotentResponse::Fresh(accepted(post))
    };
    match (response, permit) {
        (IdempotentResponse::Fresh(_), Some(permit)) => {
            let db = state.db.clone();
            once.replace_response(db, wait_until_finished(state, me, id, permit))
                .await
        }
        (response, _) => Ok(response),
    }
}

/// Waits until the job has finished, but no longer than the client wants to.
async fn wait_until_finished(
    state: AppState,
    me: CurrentUser,
    id: Uuid,
    permit: LongPollPermit,
) -> Result<Response> {
    let db = state.db.read();
    let job = job::Entity::of_post(id).one(db).await?;
    let job = job.ok_or(Error::NotFound)?;
    let applied = format!("wait={}", permit.max_wait.as_secs());
    permit
        .wait_for(job.id, |now| {
            now.status.is_finished() || now.status == job::Status::AwaitingReview
        })
        .await?;
    let post = me.post(id).one(db).await?.ok_or(Error::NotFound)?;
    let is_ready = post.status == post::Status::Ready;
    let mut response = accepted(Post::load(db, post, &me).await?);
    if is_ready {
        *response.status_mut() = StatusCode::CREATED;
    }
    if let Ok(applied) = HeaderValue::from_str(&applied) {
        response.headers_mut().insert("preference-applied", applied);
    }
    Ok(response)
}
