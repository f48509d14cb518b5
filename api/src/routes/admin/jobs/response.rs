//! Jobs as admins see them.

use std::collections::HashMap;

use entity::{job, post, user};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QuerySelect};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::routes::jobs::Job;

/// A job with its owner and worker.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdminJob {
    #[serde(flatten)]
    job: Job,
    /// The owner.
    user: Owner,
    /// The post's topic.
    topic: String,
    /// The worker that runs it; null unless it is running.
    worker: Option<String>,
    /// The id of the request that enqueued it, as in the log.
    request_id: Option<String>,
}

/// A job's owner.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = JobOwner)]
pub(crate) struct Owner {
    id: Uuid,
    username: String,
}

impl AdminJob {
    /// Loads jobs with all that belongs to them, in the given order.
    pub(super) async fn load(
        db: &impl ConnectionTrait,
        jobs: Vec<job::Model>,
    ) -> Result<Vec<AdminJob>> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let users = user::Entity::find()
            .select_only()
            .columns([user::Column::Id, user::Column::Username])
            .filter(user::Column::Id.is_in(jobs.iter().map(|job| job.user_id)))
            .into_tuple()
            .all(db)
            .await?;
        let topics = post::Entity::find()
            .select_only()
            .columns([post::Column::Id, post::Column::Topic])
            .filter(post::Column::Id.is_in(jobs.iter().map(|job| job.post_id)))
            .into_tuple()
            .all(db)
            .await?;
        let users: HashMap<Uuid, String> = users.into_iter().collect();
        let topics: HashMap<Uuid, String> = topics.into_iter().collect();
        let name = |id: &Uuid| users.get(id).cloned().unwrap_or_default();
        let topic = |id: &Uuid| topics.get(id).cloned().unwrap_or_default();
        let more: Vec<_> = jobs
            .iter()
            .map(|job| {
                let owner = Owner {
                    id: job.user_id,
                    username: name(&job.user_id),
                };
                (owner, topic(&job.post_id), job.request_id.clone())
            })
            .collect();
        let jobs = Job::load(db, jobs).await?.into_iter().zip(more);
        let jobs = jobs.map(|(job, (user, topic, request_id))| AdminJob {
            worker: job.holder().map(str::to_owned),
            job,
            user,
            topic,
            request_id,
        });
        Ok(jobs.collect())
    }

    pub(super) async fn load_one(db: &impl ConnectionTrait, job: job::Model) -> Result<AdminJob> {
        let loaded = AdminJob::load(db, vec![job]).await?.pop();
        loaded.ok_or_else(|| Error::Internal("a loaded job is missing".to_owned()))
    }
}
