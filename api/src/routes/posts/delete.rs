//! Deleting a post.

use axum::Json;
use axum::extract::State;
use entity::{idempotency, post};
use sea_orm::EntityTrait;
use serde::Serialize;
use shared::queue;
use utoipa::ToSchema;

use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};
use crate::extract::path::PathId;
use crate::state::AppState;

/// The result.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeletePostResponse {
    message: &'static str,
}

/// Delete a post
///
/// A running job is stopped.
#[utoipa::path(
    delete, path = "/blogs/{id}", tag = "blogs", operation_id = "delete_blog",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = DeletePostResponse)),
)]
pub(crate) async fn delete_post(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
) -> Result<Json<DeletePostResponse>> {
    state
        .db
        .transaction(async move |tx| {
            me.post(id).one(tx).await?.ok_or(Error::NotFound)?;
            // Stored responses hold copies of it. Whoever stores one locks its key before anything
            // else.
            idempotency::Entity::erase_responses(tx, id).await?;
            queue::detach_post(tx, id).await?;
            post::Entity::delete_by_id(id).exec(tx).await?;
            // And those that were committed meanwhile.
            idempotency::Entity::erase_responses(tx, id).await?;
            Ok::<_, Error>(())
        })
        .await?;
    Ok(Json(DeletePostResponse {
        message: "The post was deleted.",
    }))
}
