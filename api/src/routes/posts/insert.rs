//! Inserting new posts with their jobs: those of requests that come together share a transaction.

use std::collections::BTreeSet;

use entity::clock::now;
use entity::post;
use entity::source::{self, NewSource};
use futures_util::FutureExt;
use sea_orm::{DatabaseTransaction, DbErr, EntityTrait, IntoActiveModel};
use shared::batcher::Batcher;
use shared::database::Database;
use shared::queue::{self, LockMode, NewJob};
use uuid::Uuid;

use super::response::Post;
use crate::auth::current_user::CurrentUser;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::routes::jobs::Job;
use crate::storage_quota::StorageQuota;

/// A post to insert with its first job.
#[derive(Clone, Debug)]
pub(crate) struct NewPost {
    pub(crate) id: Uuid,
    pub(crate) topic: String,
    pub(crate) sources: Vec<NewSource>,
    pub(crate) job: NewJob,
    pub(crate) owner: CurrentUser,
}

/// Inserts new posts. Clones share their transactions.
#[derive(Clone, Debug)]
pub(crate) struct PostInserter {
    limits: Limits,
    batches: Batcher<NewPost, Result<Post>>,
}

/// What a user may have.
#[derive(Clone, Copy, Debug)]
struct Limits {
    active_jobs: u32,
    storage: StorageQuota,
}

impl PostInserter {
    pub(crate) fn new(db: Database, config: &Config) -> Self {
        let limits = Limits {
            active_jobs: config.user_max_active_jobs,
            storage: StorageQuota::new(config),
        };
        PostInserter {
            limits,
            batches: Batcher::new(db, move |tx, new, lock_mode| {
                insert_batch(tx, new, limits, lock_mode).boxed()
            }),
        }
    }

    /// Inserts a post in a transaction that it may share, and returns once that is committed.
    ///
    /// # Errors
    /// When its owner may not have it. The others of the transaction are inserted all the same.
    pub(crate) async fn insert(&self, new: NewPost) -> Result<Post> {
        self.batches.submit(new).await?
    }

    /// Inserts a post in `tx`.
    pub(crate) async fn one(&self, tx: &DatabaseTransaction, new: NewPost) -> Result<Post> {
        let mut posts = insert_posts(tx, vec![new], self.limits, LockMode::Wait).await?;
        let post = posts.pop();
        post.unwrap_or_else(|| Err(Error::Internal("a new post is missing".to_owned())))
    }
}

/// Inserts a batch, or one post of a batch that has failed. It may be there: if the connection to
/// Postgres is lost during a commit, it is not known whether that was done.
async fn insert_batch(
    tx: &DatabaseTransaction,
    new: Vec<NewPost>,
    limits: Limits,
    lock_mode: LockMode,
) -> Result<Vec<Result<Post>>, DbErr> {
    if let [new] = &new[..]
        && lock_mode == LockMode::Wait
        && let Some(post) = new.owner.post(new.id).one(tx).await?
    {
        return Ok(vec![Ok(Post::load(tx, post, &new.owner).await?)]);
    }
    insert_posts(tx, new, limits, lock_mode).await
}

/// Inserts those of the posts that their owners may have.
async fn insert_posts(
    tx: &DatabaseTransaction,
    new: Vec<NewPost>,
    limits: Limits,
    lock_mode: LockMode,
) -> Result<Vec<Result<Post>>, DbErr> {
    let owners: BTreeSet<Uuid> = new.iter().map(|new| new.owner.user.id).collect();
    let mut quotas = queue::quotas(tx, owners.clone(), limits.active_jobs, lock_mode).await?;
    let mut usage = limits.storage.usage(tx, owners).await?;
    let mut check = |new: &NewPost| {
        let owner = new.owner.user.id;
        let quota = quotas.get_mut(&owner).ok_or(Error::Unauthenticated)?;
        let mut left = *quota;
        left.take()?;
        let sources = new.sources.iter().map(|source| i64::from(source.bytes()));
        limits.storage.take(usage.get_mut(&owner), sources.sum())?;
        // Not before: what is refused takes nothing from the owner's next one.
        *quota = left;
        Ok(())
    };
    let refusals: Vec<Option<Error>> = new.iter().map(|new| check(new).err()).collect();
    let refused = refusals.iter().map(Option::is_some);
    let accepted = new.into_iter().zip(refused);
    let accepted = accepted.filter_map(|(new, is_refused)| (!is_refused).then_some(new));
    let mut posts = insert_allowed(tx, accepted.collect()).await?.into_iter();
    let result = |refusal| match refusal {
        Some(error) => Some(Err(error)),
        None => posts.next().map(Ok),
    };
    Ok(refusals.into_iter().filter_map(result).collect())
}

async fn insert_allowed(tx: &DatabaseTransaction, new: Vec<NewPost>) -> Result<Vec<Post>, DbErr> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let posts: Vec<post::Model> = new.iter().map(row).collect();
    let rows = posts.iter().map(|post| post.clone().into_active_model());
    post::Entity::insert_many(rows)
        .exec_without_returning(tx)
        .await?;
    let jobs = new.iter().map(|new| new.job.clone()).collect();
    let jobs = Job::load(tx, queue::enqueue_first(tx, jobs).await?).await?;
    let mut inserted = Vec::with_capacity(posts.len());
    for ((new, post), job) in new.into_iter().zip(posts).zip(jobs) {
        if !new.sources.is_empty() {
            source::Entity::insert_for(tx, post.id, post.user_id, new.sources).await?;
        }
        inserted.push(Post::load_with_job(tx, post, Some(job), &new.owner).await?);
    }
    Ok(inserted)
}

fn row(new: &NewPost) -> post::Model {
    let now = now();
    post::Model {
        id: new.id,
        user_id: new.owner.user.id,
        topic: new.topic.clone(),
        options: new.job.options.clone(),
        title: None,
        content: None,
        excerpt: None,
        word_count: 0,
        text_version: None,
        text_author: None,
        text_model: None,
        text_options: None,
        text_at: None,
        text_grounding: None,
        status: post::Status::Generating,
        version: 1,
        created_at: now,
        updated_at: now,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use chrono::TimeDelta;
    use clap::Parser;
    use entity::{session, user};
    use sea_orm::PaginatorTrait;
    use shared::config::StorageSettings;
    use shared::queue::RequestOrigin;

    use super::*;
    use crate::auth::current_user::Credential;

    async fn database(folder: &Path) -> Database {
        let settings = StorageSettings::new(None, folder);
        let db = Database::open(&settings).await.unwrap();
        db.migrate().await.unwrap();
        db
    }

    async fn user(db: &Database, name: &str) -> CurrentUser {
        let user = user::Model {
            id: Uuid::now_v7(),
            username: name.to_owned(),
            username_key: name.to_owned(),
            password_hash: "none".to_owned(),
            role: user::Role::User,
            disabled_at: None,
            created_at: now(),
        };
        let row = user.clone().into_active_model();
        let insert = user::Entity::insert(row).exec(db.raw_connection());
        insert.await.unwrap();
        let session = session::Model {
            id: Uuid::now_v7(),
            user_id: user.id,
            created_at: now(),
            last_used_at: now(),
            expires_at: now() + TimeDelta::days(1),
            revoked_at: None,
            user_agent: None,
            ip: None,
        };
        CurrentUser {
            user,
            credential: Credential::Session(session),
        }
    }

    fn new_post(owner: &CurrentUser) -> NewPost {
        let id = Uuid::now_v7();
        NewPost {
            id,
            topic: "Growing tomatoes".to_owned(),
            sources: Vec::new(),
            job: NewJob {
                post: id,
                user: owner.user.id,
                review: false,
                section: None,
                options: serde_json::json!({}),
                model: "a-model".to_owned(),
                max_attempts: 3,
                origin: RequestOrigin::default(),
            },
            owner: owner.clone(),
        }
    }

    /// As after a commit that was done, but whose answer was lost: what is in doubt is done again.
    #[tokio::test]
    async fn a_post_that_is_inserted_again_is_the_one_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(folder.path()).await;
        let new = new_post(&user(&db, "ann").await);
        let posts = PostInserter::new(db.clone(), &Config::parse_from(["api"]));
        let first = posts.insert(new.clone()).await.unwrap();
        let again = posts.insert(new).await.unwrap();
        let json = |post: &Post| serde_json::to_value(post).unwrap();
        assert_eq!(json(&again), json(&first));
        let count = post::Entity::find().count(db.read()).await;
        assert_eq!(count.unwrap(), 1);
    }
    /// As after the user was looked up for the request.
    #[tokio::test]
    async fn a_post_of_a_user_who_is_gone_is_refused_as_of_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(folder.path()).await;
        let (stays, leaves) = (user(&db, "ann").await, user(&db, "bob").await);
        let delete = user::Entity::delete_by_id(leaves.user.id);
        delete.exec(db.raw_connection()).await.unwrap();
        let posts = PostInserter::new(db.clone(), &Config::parse_from(["api"]));
        let (inserted, refused) = tokio::join!(
            posts.insert(new_post(&stays)),
            posts.insert(new_post(&leaves))
        );
        inserted.unwrap();
        assert!(matches!(refused, Err(Error::Unauthenticated)));
    }
}
