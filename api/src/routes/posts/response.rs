//! Posts as clients see them.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use entity::grounding::{Citation, Grounding, Verdict};
use entity::{job, post, post_revision};
use sea_orm::{ConnectionTrait, DbErr};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::sources::SourceSummary;
use crate::auth::current_user::CurrentUser;
use crate::generation_options::uses_sources;
use crate::routes::jobs::{Job, JobSummary, set_retry_after};
use crate::routes::timestamp;

/// A blog post.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Post {
    #[serde(flatten)]
    fields: PostFields,
    /// The latest job; null if it is no longer kept.
    job: Option<Job>,
    /// Markdown; null until it is ready.
    content: Option<String>,
    /// What it is written from.
    sources: Vec<SourceSummary>,
    /// The sentences that name a source, or did before it was found not to bear them. Those that were
    /// edited since are left out.
    citations: Vec<Citation>,
    /// How much of the text its sources bear; null if it was written without any, or was edited since.
    grounding: Option<GroundingCounts>,
}

/// How much of a text its sources bear, when it was written.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Grounding)]
pub(crate) struct GroundingCounts {
    /// How many sentences it has.
    #[schema(minimum = 0, maximum = 2147483647)]
    sentences: u32,
    /// How many of them cite a source, or did before it was found not to bear them.
    #[schema(minimum = 0, maximum = 2147483647)]
    cited: u32,
    /// How many of them a source bears.
    #[schema(minimum = 0, maximum = 2147483647)]
    supported: u32,
}

/// A blog post without its content, and its latest job in short.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PostSummary {
    #[serde(flatten)]
    fields: PostFields,
    /// The latest job; null if it is no longer kept.
    job: Option<JobSummary>,
}

/// What a post has in lists, too.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PostFields {
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
    fn new(mut post: post::Model, job: Option<Job>, me: &CurrentUser) -> Self {
        // Counted in the agent's text, and not in what its owner has made of it.
        let is_agents = post.text_author != Some(post_revision::Author::User);
        let grounding = grounding(&post).filter(|_| is_agents);
        Post {
            citations: citations(&post),
            grounding: grounding.map(|it| GroundingCounts {
                sentences: it.sentences,
                cited: it.cited,
                supported: it.supported,
            }),
            sources: Vec::new(),
            job,
            content: post.content.take(),
            fields: PostFields::new(post.into(), me),
        }
    }

    pub(super) async fn load(
        db: &impl ConnectionTrait,
        post: post::Model,
        me: &CurrentUser,
    ) -> Result<Self, DbErr> {
        let job = job::Entity::of_post(post.id).one(db).await?;
        let job = Job::load(db, Vec::from_iter(job)).await?.pop();
        Post::load_with_job(db, post, job, me).await
    }

    /// Loads what belongs to a post beside its latest job.
    pub(super) async fn load_with_job(
        db: &impl ConnectionTrait,
        post: post::Model,
        job: Option<Job>,
        me: &CurrentUser,
    ) -> Result<Self, DbErr> {
        let sources = match uses_sources(&post.options) {
            true => SourceSummary::load(db, post.id, &cited_sources(&post)).await?,
            false => Vec::new(),
        };
        let post = Post::new(post, job, me);
        Ok(Post { sources, ..post })
    }
}

impl PostFields {
    fn new(post: post::Summary, me: &CurrentUser) -> Self {
        PostFields {
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
            created_at: post.created_at,
            updated_at: post.updated_at,
        }
    }
}

impl PostSummary {
    /// Loads the latest jobs of posts, in the given order.
    pub(super) async fn load(
        db: &impl ConnectionTrait,
        posts: Vec<post::Summary>,
        me: &CurrentUser,
    ) -> Result<Vec<PostSummary>, DbErr> {
        let ids = posts.iter().map(|post| post.id).collect();
        let mut jobs = JobSummary::latest_of_posts(db, ids).await?;
        let summary = |post: post::Summary| PostSummary {
            job: jobs.remove(&post.id),
            fields: PostFields::new(post, me),
        };
        Ok(posts.into_iter().map(summary).collect())
    }
}

fn grounding(post: &post::Model) -> Option<Grounding> {
    let stored = post.text_grounding.clone()?;
    serde_json::from_value(stored).ok()
}

/// The citations whose sentences stand in the text still.
fn citations(post: &post::Model) -> Vec<Citation> {
    let content = post.content.as_deref().unwrap_or_default();
    let all = grounding(post).map(|grounding| grounding.citations);
    let mut citations = all.unwrap_or_default();
    citations.retain(|citation| content.contains(&citation.sentence));
    citations
}

/// The numbers of the sources that a post cites.
pub(super) fn cited_sources(post: &post::Model) -> Vec<u32> {
    let citations = citations(post).into_iter();
    let bearing = citations.filter(|citation| citation.verdict != Verdict::Unsupported);
    bearing.map(|citation| citation.number).collect()
}

/// 202 with a post, `Location` and `Retry-After`.
pub(super) fn accepted(post: Post) -> Response {
    let mut headers = HeaderMap::new();
    let location = format!("/api/v1/blogs/{}", post.fields.id);
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    if let Some(job) = &post.job {
        set_retry_after(&mut headers, job);
    }
    (StatusCode::ACCEPTED, headers, Json(post)).into_response()
}
