//! Regenerating a post.

use axum::extract::State;
use entity::{post, source};
use sea_orm::DatabaseTransaction;
use serde::Serialize;
use shared::queue::{self, NewJob};
use utoipa::ToSchema;

use super::create::OutlineMode;
use super::response::{Post, accepted};
use super::sources::SourceRequest;
use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};
use crate::extract::field_reader::FieldReader;
use crate::extract::idempotency::{IdempotencyKey, IdempotentResponse};
use crate::extract::json::JsonBody;
use crate::extract::path::PathId;
use crate::generation_options::{Capabilities, GenerationOptions, resolve_model, with_sources};
use crate::middleware::request_context::current_origin;
use crate::routes::jobs::Job;
use crate::state::AppState;
use crate::storage_quota::StorageQuota;

/// How to write the post this time.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegeneratePostRequest {
    /// By default those of the last time.
    #[schema(nullable)]
    options: Option<GenerationOptions>,
    /// With `review` the job stops after its outline, until you approve it.
    #[schema(nullable)]
    #[serde(skip_serializing_if = "Option::is_none")]
    outline: Option<OutlineMode>,
    /// What the post is to be written from; by default what it was the last time.
    #[schema(nullable, max_items = 20)]
    #[serde(skip_serializing_if = "Option::is_none")]
    sources: Option<Vec<SourceRequest>>,
}

impl RegeneratePostRequest {
    fn from_fields(fields: &mut FieldReader, can: &Capabilities) -> Option<Self> {
        let options = fields.nested("options", |fields| {
            GenerationOptions::from_fields(fields, can)
        });
        let outline = OutlineMode::from_fields(fields, can);
        let sources = SourceRequest::from_fields(fields);
        Some(RegeneratePostRequest {
            options: options?,
            outline: outline?,
            sources: sources?,
        })
    }
}

/// Regenerate a post
#[utoipa::path(
    post, path = "/blogs/{id}/regenerate", tag = "blogs", operation_id = "regenerate_blog",
    params(("id" = Uuid, Path), IdempotencyKey),
    request_body(content = Option<RegeneratePostRequest>),
    responses(
        (status = 202, body = Post),
        (status = 409, description = "The post is being generated, or the first request with this \
            Idempotency-Key is in progress."),
    ),
)]
pub(crate) async fn regenerate_post(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    key: IdempotencyKey,
    body: JsonBody,
) -> Result<IdempotentResponse> {
    let again =
        body.read(|fields| RegeneratePostRequest::from_fields(fields, &state.capabilities))?;
    let once = key.for_request(&me, &again)?;
    let origin = current_origin();
    let db = state.db.clone();
    db.transaction(async move |tx| {
        let work = async {
            let post = me.post(id).one(tx).await?.ok_or(Error::NotFound)?;
            let sources = again.sources.as_deref();
            let can = &state.capabilities;
            let options = next_options(tx, &post, again.options, sources, can).await?;
            let job = NewJob {
                post: id,
                user: me.user.id,
                review: again.outline.is_some(),
                section: None,
                model: resolve_model(&options, &state.capabilities.models)?,
                options: options.clone(),
                max_attempts: state.config.job_max_attempts,
                origin,
            };
            let job = queue::enqueue(tx, job, state.config.user_max_active_jobs).await?;
            if let Some(sources) = again.sources {
                let sources = sources.into_iter().map(Into::into).collect();
                source::Entity::replace(tx, id, me.user.id, sources).await?;
                // The present text cites what is gone.
                post::Entity::forget_grounding(tx, id).await?;
            }
            let quota = StorageQuota::new(&state.config);
            quota.allows_text(tx, me.user.id).await?;
            post::Entity::regenerate(tx, id, options).await?;
            let post = me.post(id).one(tx).await?.ok_or(Error::NotFound)?;
            let job = Job::load_one(tx, job).await?;
            let post = Post::load_with_job(tx, post, Some(job), &me).await?;
            Ok((accepted(post), id))
        };
        once.execute_once(tx, work).await
    })
    .await
}

/// The options of the next generation: those that are `given`, or those of the last one.
pub(super) async fn next_options(
    tx: &DatabaseTransaction,
    post: &post::Model,
    given: Option<GenerationOptions>,
    sources: Option<&[SourceRequest]>,
    can: &Capabilities,
) -> Result<serde_json::Value> {
    let has_sources = match sources {
        Some(sources) => !sources.is_empty(),
        None => source::Entity::of_post(post.id).one(tx).await?.is_some(),
    };
    match given {
        Some(options) => options.with_sources(has_sources, can)?.to_json(),
        None => Ok(with_sources(
            post.options.clone(),
            has_sources,
            sources.is_some(),
        )),
    }
}
