//! Posts as clients see them.

use std::collections::HashMap;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use entity::{job, post};
use sea_orm::ConnectionTrait;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::current_user::CurrentUser;
use crate::error::Result;
use crate::routes::jobs::{Job, set_retry_after};
use crate::routes::timestamp;

/// A blog post.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Post {
    #[serde(flatten)]
    summary: PostSummary,
    /// Markdown; null until it is ready.
    content: Option<String>,
}

/// A blog post without its content.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PostSummary {
    id: Uuid,
    topic: String,
    /// Null until the post is ready.
    title: Option<String>,
    /// The beginning of the content, as plain text.
    excerpt: Option<String>,
    status: post::Status,
    word_count: i32,
    reading_minutes: i32,
    /// Raised by every change; the `ETag`.
    version: i32,
    author: Author,
    /// The latest job; null if it is no longer kept.
    job: Option<Job>,
    #[serde(serialize_with = "timestamp")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "timestamp")]
    updated_at: DateTime<Utc>,
}

/// A post's owner.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Author {
    id: Uuid,
    username: String,
}

const WORDS_PER_MINUTE: i32 = 200;

impl Post {
    pub(super) fn new(post: post::Model, job: Option<Job>, me: &CurrentUser) -> Self {
        Post {
            content: post.content,
            summary: PostSummary {
                id: post.id,
                topic: post.topic,
                title: post.title,
                excerpt: post.excerpt,
                status: post.status,
                word_count: post.word_count,
                reading_minutes: (post.word_count + WORDS_PER_MINUTE - 1) / WORDS_PER_MINUTE,
                version: post.version,
                author: Author {
                    id: me.user.id,
                    username: me.user.username.clone(),
                },
                job,
                created_at: post.created_at,
                updated_at: post.updated_at,
            },
        }
    }

    pub(super) async fn load(
        db: &impl ConnectionTrait,
        post: post::Model,
        me: &CurrentUser,
    ) -> Result<Self> {
        let job = job::Entity::of_post(post.id).one(db).await?;
        let job = Job::load(db, Vec::from_iter(job)).await?.pop();
        Ok(Post::new(post, job, me))
    }
}

impl PostSummary {
    /// Loads the latest jobs of posts, in the given order.
    pub(super) async fn load(
        db: &impl ConnectionTrait,
        posts: Vec<post::Model>,
        me: &CurrentUser,
    ) -> Result<Vec<PostSummary>> {
        let jobs = job::Entity::latest_of_posts(db, posts.iter().map(|post| post.id)).await?;
        let of: Vec<Uuid> = jobs.iter().map(|job| job.post_id).collect();
        let jobs = Job::load(db, jobs).await?;
        let mut jobs: HashMap<Uuid, Job> = of.into_iter().zip(jobs).collect();
        let summary = |post: post::Model| {
            let job = jobs.remove(&post.id);
            Post::new(post, job, me).summary
        };
        Ok(posts.into_iter().map(summary).collect())
    }
}

/// 202 with a post, `Location` and `Retry-After`.
pub(super) fn accepted(post: Post) -> Response {
    let mut headers = HeaderMap::new();
    let location = format!("/api/v1/blogs/{}", post.summary.id);
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    if let Some(job) = &post.summary.job {
        set_retry_after(&mut headers, job);
    }
    (StatusCode::ACCEPTED, headers, Json(post)).into_response()
}
