//! Revisions: earlier texts of posts, and such as came too late to become the present one.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Alias, Query};
use sea_orm::{DatabaseTransaction, QueryOrder, QuerySelect, QueryTrait, Set};
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::{Timestamp, now};
use crate::post::{self, AgentText};

/// A row of `post_revisions`. The present text of a post is no row: it stands in the post's.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "post_revisions")]
pub struct Model {
    /// The post.
    #[sea_orm(primary_key, auto_increment = false)]
    pub post_id: Uuid,
    /// The version of the post that brought the text.
    #[sea_orm(primary_key, auto_increment = false)]
    pub version: i32,
    /// The post's owner.
    pub user_id: Uuid,
    /// The title.
    pub title: Option<String>,
    /// Markdown.
    pub content: String,
    /// The number of words in the content.
    pub word_count: i32,
    /// The bytes of the content, in UTF-8.
    pub bytes: i32,
    /// Who wrote it.
    pub author: Author,
    /// The model that did, if an agent did.
    pub model: Option<String>,
    /// The options that it had.
    pub options: Option<Json>,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// Who wrote a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, ToSchema)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::None)",
    rename_all = "snake_case"
)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuthorKind)]
pub enum Author {
    /// The owner of the post.
    User,
    /// An agent.
    Agent,
}

impl ActiveModelBehavior for ActiveModel {}

/// A revision without its content.
#[derive(Clone, Debug, PartialEq, Eq, DerivePartialModel)]
#[sea_orm(entity = "Entity")]
#[allow(missing_docs, reason = "as in `Model`")]
pub struct Summary {
    pub version: i32,
    pub title: Option<String>,
    pub word_count: i32,
    pub author: Author,
    pub model: Option<String>,
    pub options: Option<Json>,
    pub created_at: Timestamp,
}

/// So many texts of a post are kept, with the present one.
pub const MAX_KEPT: u64 = 100;

impl Entity {
    /// A post's revisions, the newest first.
    pub fn of_post(post: Uuid) -> Select<Entity> {
        Entity::find()
            .filter(Column::PostId.eq(post))
            .order_by_desc(Column::Version)
    }

    /// Keeps the present texts of posts, which are about to be replaced.
    pub(crate) async fn keep_texts(tx: &DatabaseTransaction, posts: &[Uuid]) -> Result<(), DbErr> {
        if posts.is_empty() {
            return Ok(());
        }
        use post::Column as Post;
        // What a release before revisions has stored has no version of its own. It is taken for an
        // agent's text.
        let texts = post::Entity::find()
            .select_only()
            .columns([Post::Id, Post::UserId])
            .expr(Expr::cust("COALESCE(text_version, version)"))
            .columns([Post::Title, Post::Content, Post::WordCount])
            .expr(Expr::cust("octet_length(content)"))
            .expr(Expr::cust("COALESCE(text_author, 'agent')"))
            .column(Post::TextModel)
            .expr(Expr::cust(
                "CASE WHEN text_author IS NULL THEN options ELSE text_options END",
            ))
            .expr(Expr::cust("COALESCE(text_at, updated_at)"))
            .filter(Post::Id.is_in(posts.iter().copied()))
            .filter(Post::Content.is_not_null())
            .into_query();
        let mut insert = Query::insert();
        insert.into_table(Alias::new("post_revisions")).columns([
            Column::PostId,
            Column::UserId,
            Column::Version,
            Column::Title,
            Column::Content,
            Column::WordCount,
            Column::Bytes,
            Column::Author,
            Column::Model,
            Column::Options,
            Column::CreatedAt,
        ]);
        let insert = insert.select_from(texts);
        let insert = insert.map_err(|error| DbErr::Custom(error.to_string()))?;
        tx.execute(&*insert).await?;
        for post in posts {
            prune(tx, *post).await?;
        }
        Ok(())
    }

    /// Inserts a text that came too late to become the present one of `post`, as its latest
    /// version.
    pub(crate) async fn insert_late(
        tx: &DatabaseTransaction,
        post: &post::Model,
        text: &AgentText<'_>,
    ) -> Result<(), DbErr> {
        let content = text.content;
        let row = ActiveModel {
            post_id: Set(post.id),
            version: Set(post.version),
            user_id: Set(post.user_id),
            title: Set(content.title.clone().or_else(|| post.title.clone())),
            content: Set(content.content.clone()),
            word_count: Set(content.word_count),
            bytes: Set(i32::try_from(content.content.len()).unwrap_or(i32::MAX)),
            author: Set(Author::Agent),
            model: Set(Some(text.model.to_owned())),
            options: Set(Some(text.options.clone())),
            created_at: Set(now()),
        };
        Entity::insert(row).exec_without_returning(tx).await?;
        prune(tx, post.id).await
    }

    /// Deletes the oldest revisions of a user's posts until those that are left have at most
    /// `max_bytes`.
    pub async fn trim(tx: &DatabaseTransaction, user: Uuid, max_bytes: i64) -> Result<(), DbErr> {
        let mut excess = stored_bytes(tx, user).await? - max_bytes;
        while excess > 0 {
            let oldest: Vec<(Timestamp, i32)> = Entity::find()
                .select_only()
                .columns([Column::CreatedAt, Column::Bytes])
                .filter(Column::UserId.eq(user))
                .order_by_asc(Column::CreatedAt)
                .limit(MAX_KEPT)
                .into_tuple()
                .all(tx)
                .await?;
            let mut last = None;
            for (created_at, bytes) in oldest {
                if excess <= 0 {
                    break;
                }
                excess -= i64::from(bytes);
                last = Some(created_at);
            }
            let Some(last) = last else { break };
            Entity::delete_many()
                .filter(Column::UserId.eq(user))
                .filter(Column::CreatedAt.lte(last))
                .exec(tx)
                .await?;
        }
        Ok(())
    }
}

/// The bytes of the revisions of a user's posts.
async fn stored_bytes(db: &impl ConnectionTrait, user: Uuid) -> Result<i64, DbErr> {
    let sum = Entity::find()
        .select_only()
        .expr(Expr::cust("CAST(SUM(bytes) AS bigint)"))
        .filter(Column::UserId.eq(user));
    let sum: Option<Option<i64>> = sum.into_tuple().one(db).await?;
    Ok(sum.flatten().unwrap_or_default())
}

/// Deletes what is beyond [`MAX_KEPT`].
async fn prune(tx: &DatabaseTransaction, post: Uuid) -> Result<(), DbErr> {
    let oldest = Entity::of_post(post)
        .select_only()
        .column(Column::Version)
        // One is the present text.
        .offset(MAX_KEPT - 1)
        .limit(1)
        .into_tuple::<i32>();
    match oldest.one(tx).await? {
        Some(version) => delete_up_to(tx, post, version).await,
        None => Ok(()),
    }
}

async fn delete_up_to(tx: &DatabaseTransaction, post: Uuid, version: i32) -> Result<(), DbErr> {
    Entity::delete_many()
        .filter(Column::PostId.eq(post))
        .filter(Column::Version.lte(version))
        .exec(tx)
        .await?;
    Ok(())
}
