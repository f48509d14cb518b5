//! Retrying a job.

use axum::extract::State;
use sea_orm::QuerySelect;
use shared::queue::{self, RetriedBy};

use super::response::{Job, accepted};
use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};
use crate::extract::idempotency::{IdempotencyKey, IdempotentResponse};
use crate::extract::path::PathId;
use crate::middleware::request_context::current_origin;
use crate::state::AppState;
use crate::storage_quota::StorageQuota;

/// Retry a failed or canceled job
///
/// It continues from its finished steps. Only a post's latest job can be retried; otherwise
/// regenerate the post.
#[utoipa::path(
    post, path = "/jobs/{id}/retry", tag = "jobs", operation_id = "retry_job",
    params(("id" = Uuid, Path), IdempotencyKey),
    responses(
        (status = 202, body = Job),
        (status = 409, description = "The job has succeeded or is not the latest, the post is being generated, \
            or the first request with this Idempotency-Key is in progress."),
    ),
)]
pub(crate) async fn retry_job(
    State(state): State<AppState>,
    me: CurrentUser,
    PathId(id): PathId,
    key: IdempotencyKey,
) -> Result<IdempotentResponse> {
    let once = key.for_request(&me, &())?;
    let origin = current_origin();
    let db = state.db.clone();
    db.transaction(async move |tx| {
        let work = async {
            let config = &state.config;
            let room = queue::quota(tx, me.user.id, config.user_max_active_jobs).await?;
            let job = me.job(id).lock_exclusive();
            let job = job.one(tx).await?.ok_or(Error::NotFound)?;
            let job = queue::retry(
                tx,
                &job,
                RetriedBy::Owner,
                room,
                config.job_max_attempts,
                origin,
            )
            .await?;
            StorageQuota::new(config)
                .allows_text(tx, me.user.id)
                .await?;
            let post = job.post_id;
            Ok((accepted(&Job::load_one(tx, job).await?)?, post))
        };
        once.execute_once(tx, work).await
    })
    .await
}
