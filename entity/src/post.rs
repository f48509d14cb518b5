//! Blog posts.

use std::collections::HashMap;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Func, Query};
use sea_orm::{
    DatabaseTransaction, DbBackend, ExprTrait, FromQueryResult, Iterable, QueryOrder, QuerySelect,
    QueryTrait, UpdateMany,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::bulk_update::{from_values, value_column};
use crate::clock::{Timestamp, now};
use crate::grounding::Grounding;
use crate::post_revision::{self, Author};
use crate::{text, user};

/// A row of `blog_posts`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "blog_posts")]
pub struct Model {
    /// UUIDv7, so that ids sort by age.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The owner.
    pub user_id: Uuid,
    /// The topic, as the owner wrote it.
    pub topic: String,
    /// The options of the latest generation, in the API's format.
    pub options: Json,
    /// Null until the post was ready once.
    pub title: Option<String>,
    /// Markdown; null until the post was ready once.
    pub content: Option<String>,
    /// The beginning of the content, as plain text.
    pub excerpt: Option<String>,
    /// The number of words in the content.
    pub word_count: i32,
    /// The version that brought the present title and content; null until there was one, or if a
    /// release before revisions has brought it that still runs.
    pub text_version: Option<i32>,
    /// Who wrote them; null if a release before revisions has stored them.
    pub text_author: Option<Author>,
    /// The model that did.
    pub text_model: Option<String>,
    /// The options that it had.
    pub text_options: Option<Json>,
    /// When they were stored.
    pub text_at: Option<Timestamp>,
    /// How the citations of the agent's latest text hold: [`Grounding`] as JSON. What the owner has
    /// edited since is not in it.
    pub text_grounding: Option<Json>,
    /// The status.
    pub status: Status,
    /// Incremented by every change; the `ETag`.
    pub version: i32,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A post's status.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, Deserialize, ToSchema,
)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::None)",
    rename_all = "snake_case"
)]
#[serde(rename_all = "snake_case")]
#[schema(as = PostStatus)]
pub enum Status {
    /// A job is at work on it.
    Generating,
    /// It has its content.
    Ready,
    /// Its latest job failed.
    Failed,
    /// Its latest job was canceled.
    Canceled,
}

impl ActiveModelBehavior for ActiveModel {}

/// What lists have of a post.
#[derive(Clone, Debug, PartialEq, Eq, DerivePartialModel)]
#[sea_orm(entity = "Entity")]
#[allow(missing_docs, reason = "as in `Model`")]
pub struct Summary {
    pub id: Uuid,
    pub topic: String,
    pub title: Option<String>,
    pub excerpt: Option<String>,
    pub word_count: i32,
    pub status: Status,
    pub version: i32,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl From<Model> for Summary {
    fn from(post: Model) -> Self {
        Summary {
            id: post.id,
            topic: post.topic,
            title: post.title,
            excerpt: post.excerpt,
            word_count: post.word_count,
            status: post.status,
            version: post.version,
            created_at: post.created_at,
            updated_at: post.updated_at,
        }
    }
}

/// A title and content, with what is derived from the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostContent {
    /// Without one the post keeps the one that it has.
    pub title: Option<String>,
    /// Markdown.
    pub content: String,
    excerpt: String,
    /// The number of words in the content.
    pub word_count: i32,
    /// How its citations hold: [`Grounding`] as JSON.
    grounding: Option<Json>,
}

impl PostContent {
    /// `content` is Markdown. Words are counted and the excerpt is made here: for large texts
    /// not in a transaction.
    pub fn new(title: Option<String>, content: String) -> Self {
        PostContent {
            title,
            excerpt: text::excerpt(&content),
            word_count: text::word_count(&content),
            grounding: None,
            content,
        }
    }

    /// The same text, whose citations hold so.
    pub fn with_grounding(mut self, grounding: &Grounding) -> Self {
        // Its fields are strings and numbers: this can't fail.
        self.grounding = serde_json::to_value(grounding).ok();
        self
    }

    /// A post's content under another title; None if it has none.
    pub fn with_title(post: &Model, title: String) -> Option<Self> {
        Some(PostContent {
            title: Some(title),
            content: post.content.clone()?,
            excerpt: post.excerpt.clone().unwrap_or_default(),
            word_count: post.word_count,
            grounding: None,
        })
    }
}

/// A text that an agent has written for a post.
#[derive(Clone, Copy, Debug)]
pub struct AgentText<'a> {
    /// The post.
    pub post: Uuid,
    /// The job's [`base_version`](crate::job::Model).
    pub base_version: Option<i32>,
    /// The text.
    pub content: &'a PostContent,
    /// The model that has written it.
    pub model: &'a str,
    /// The options that it had.
    pub options: &'a Json,
}

/// What became of an agent's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredText {
    /// Its version.
    pub version: i32,
    /// Whether it is a revision beside a text that was stored meanwhile.
    pub superseded: bool,
}

/// How much a user has stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Usage {
    /// The user.
    pub user: Uuid,
    /// The number of posts, of any status.
    pub posts: i64,
    /// The bytes of their contents and sources, in UTF-8.
    pub bytes: i64,
}

impl Entity {
    /// How much each of `users` has stored, in any order.
    pub async fn usage(
        db: &impl ConnectionTrait,
        users: impl IntoIterator<Item = Uuid>,
    ) -> Result<Vec<Usage>, DbErr> {
        // On SQLite the index has this very expression. Neither database reads the contents.
        let content_bytes = match db.get_database_backend() {
            DbBackend::Postgres => "COALESCE(SUM(octet_length(content)), 0)::bigint",
            _ => "COALESCE(SUM(length(CAST(content AS BLOB))), 0)",
        };
        let posts = "(SELECT COUNT(*) FROM blog_posts WHERE user_id = users.id)";
        let bytes = format!(
            "(SELECT {content_bytes} FROM blog_posts WHERE user_id = users.id) + \
             (SELECT COALESCE(SUM(bytes), 0) FROM post_sources WHERE user_id = users.id)"
        );
        user::Entity::find()
            .select_only()
            .column_as(user::Column::Id, "user")
            .expr_as(Expr::cust(posts), "posts")
            .expr_as(Expr::cust(bytes), "bytes")
            .filter(user::Column::Id.is_in(users))
            .into_model()
            .all(db)
            .await
    }

    /// The title and content from which a job with this `base_version` starts. None if they are not
    /// kept any more.
    pub async fn find_text(
        db: &impl ConnectionTrait,
        id: Uuid,
        base_version: i32,
    ) -> Result<Option<(Option<String>, String)>, DbErr> {
        let Some(post) = Entity::find_by_id(id).one(db).await? else {
            return Ok(None);
        };
        if post.text_version.unwrap_or_default() == base_version {
            return Ok(post.content.map(|content| (post.title, content)));
        }
        let revision = post_revision::Entity::find_by_id((id, base_version));
        let revision = revision.one(db).await?;
        Ok(revision.map(|revision| (revision.title, revision.content)))
    }

    /// The posts that `user` may see and change: their own.
    pub fn owned_by(user: Uuid) -> Select<Entity> {
        Entity::find().filter(Column::UserId.eq(user))
    }

    /// Stores a title and content that the owner has written, and keeps those before as a revision.
    /// A post that is not being generated is then ready. The caller has locked its row.
    pub async fn set_text(
        tx: &DatabaseTransaction,
        post: &Model,
        new: &PostContent,
    ) -> Result<Model, DbErr> {
        post_revision::Entity::keep_texts(tx, &[post.id]).await?;
        let status = "CASE status WHEN 'generating' THEN status ELSE 'ready' END";
        let mut update = update_with_text(Author::User)
            .col_expr(Column::Content, Expr::value(new.content.clone()))
            .col_expr(Column::Excerpt, Expr::value(new.excerpt.clone()))
            .col_expr(Column::WordCount, Expr::value(new.word_count))
            .col_expr(Column::TextModel, Expr::cust("NULL"))
            .col_expr(Column::TextOptions, Expr::cust("NULL"))
            .col_expr(Column::Status, Expr::cust(status))
            .filter(Column::Id.eq(post.id));
        if let Some(title) = &new.title {
            update = update.col_expr(Column::Title, Expr::value(title.clone()));
        }
        let updated = update.exec_with_returning(tx).await?.pop();
        updated.ok_or_else(|| DbErr::RecordNotFound("a locked post".to_owned()))
    }

    /// Sets a post's topic. The caller has locked its row.
    pub async fn set_topic(
        tx: &DatabaseTransaction,
        post: &Model,
        topic: String,
    ) -> Result<Model, DbErr> {
        let update = update_with_version()
            .col_expr(Column::Topic, Expr::value(topic))
            .filter(Column::Id.eq(post.id));
        let updated = update.exec_with_returning(tx).await?.pop();
        updated.ok_or_else(|| DbErr::RecordNotFound("a locked post".to_owned()))
    }

    /// Stores texts that agents have written, and makes their posts ready. A text takes the place of
    /// the one from which it started, which is kept as a revision; if that was replaced meanwhile,
    /// it becomes a revision itself. Returns what became of the texts, by their posts.
    pub async fn store_agent_texts(
        tx: &DatabaseTransaction,
        texts: Vec<AgentText<'_>>,
    ) -> Result<HashMap<Uuid, StoredText>, DbErr> {
        let posts = Entity::find()
            .select_only()
            .columns([Column::Id, Column::TextVersion])
            .expr(Expr::col(Column::Content).is_not_null())
            .filter(Column::Id.is_in(texts.iter().map(|text| text.post)))
            .order_by_asc(Column::Id)
            .lock_exclusive();
        let posts: Vec<(Uuid, Option<i32>, bool)> = posts.into_tuple().all(tx).await?;
        let versions: HashMap<Uuid, Option<i32>> = posts
            .iter()
            .map(|(id, version, _)| (*id, *version))
            .collect();
        let (timely, late): (Vec<_>, Vec<_>) = texts
            .into_iter()
            .filter(|text| versions.contains_key(&text.post))
            .partition(|text| {
                let present = versions[&text.post].unwrap_or_default();
                text.base_version.is_none_or(|base| base == present)
            });
        let replaced = posts
            .iter()
            .filter(|(id, _, has_text)| *has_text && timely.iter().any(|text| text.post == *id));
        let replaced: Vec<Uuid> = replaced.map(|(id, ..)| *id).collect();
        post_revision::Entity::keep_texts(tx, &replaced).await?;
        let mut stored = HashMap::new();
        for (post, version) in set_agent_texts(tx, &timely).await? {
            let superseded = false;
            stored.insert(
                post,
                StoredText {
                    version,
                    superseded,
                },
            );
        }
        for text in late {
            let update = update_with_version()
                .col_expr(Column::Status, Expr::value(Status::Ready))
                .filter(Column::Id.eq(text.post));
            if let Some(post) = update.exec_with_returning(tx).await?.pop() {
                post_revision::Entity::insert_late(tx, &post, &text).await?;
                let (version, superseded) = (post.version, true);
                stored.insert(
                    post.id,
                    StoredText {
                        version,
                        superseded,
                    },
                );
            }
        }
        Ok(stored)
    }

    /// Sets a post's options and status for a new generation.
    pub async fn regenerate(
        db: &impl ConnectionTrait,
        id: Uuid,
        options: Json,
    ) -> Result<(), DbErr> {
        let update = update_with_version()
            .col_expr(Column::Options, Expr::value(options))
            .col_expr(Column::Status, Expr::value(Status::Generating));
        update.filter(Column::Id.eq(id)).exec(db).await?;
        Ok(())
    }

    /// Forgets how the citations of a post hold, when its sources are replaced.
    pub async fn forget_grounding(db: &impl ConnectionTrait, id: Uuid) -> Result<(), DbErr> {
        let update = Entity::update_many()
            .col_expr(Column::TextGrounding, Expr::cust("NULL"))
            .filter(Column::Id.eq(id));
        update.exec(db).await?;
        Ok(())
    }

    /// How the citations of a post's present text hold; nothing if that is not known.
    pub async fn find_grounding(db: &impl ConnectionTrait, id: Uuid) -> Result<Grounding, DbErr> {
        let found: Option<Option<Json>> = Entity::find_by_id(id)
            .select_only()
            .column(Column::TextGrounding)
            .into_tuple()
            .one(db)
            .await?;
        let found = found.flatten();
        let found = found.and_then(|json| serde_json::from_value(json).ok());
        Ok(found.unwrap_or_default())
    }

    /// Sets the status of posts.
    pub async fn set_statuses(
        db: &impl ConnectionTrait,
        ids: impl Iterator<Item = Uuid>,
        status: Status,
    ) -> Result<(), DbErr> {
        update_with_version()
            .col_expr(Column::Status, Expr::value(status))
            .filter(Column::Id.is_in(ids))
            .exec(db)
            .await?;
        Ok(())
    }
}

/// Replaces the texts of posts, and returns their new versions.
async fn set_agent_texts(
    tx: &DatabaseTransaction,
    texts: &[AgentText<'_>],
) -> Result<Vec<(Uuid, i32)>, DbErr> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let list = texts.iter().map(|text| {
        let new = text.content;
        vec![
            text.post.into(),
            new.content.clone().into(),
            new.excerpt.clone().into(),
            new.word_count.into(),
            new.title.clone().into(),
            text.model.into(),
            text.options.clone().into(),
            new.grounding.clone().into(),
        ]
    });
    let title = Func::coalesce([value_column(5), Expr::col(Column::Title)]);
    let mut set = from_values(update_with_text(Author::Agent), list)
        .col_expr(Column::Content, value_column(2))
        .col_expr(Column::Excerpt, value_column(3))
        .col_expr(Column::WordCount, value_column(4))
        .col_expr(Column::Title, title.into())
        .col_expr(Column::TextModel, value_column(6))
        .col_expr(Column::TextOptions, value_column(7))
        .col_expr(Column::TextGrounding, value_column(8))
        .col_expr(Column::Status, Expr::value(Status::Ready))
        .filter(Expr::col(Column::Id).eq(value_column(1)));
    // Not the contents, which are large.
    let versions = Query::returning().columns([Column::Id, Column::Version]);
    let update = QueryTrait::query(&mut set).returning(versions);
    let rows = tx.query_all(&*update).await?;
    let versions = rows.iter().map(|row| {
        let id = row.try_get_by_index(0)?;
        Ok((id, row.try_get_by_index(1)?))
    });
    versions.collect()
}

/// An update that brings a new title or content.
fn update_with_text(author: Author) -> UpdateMany<Entity> {
    update_with_version()
        .col_expr(Column::TextVersion, Expr::col(Column::Version).add(1))
        .col_expr(Column::TextAuthor, Expr::value(author))
        .col_expr(Column::TextAt, Expr::value(now()))
}

/// An update that increments the version, as every one must.
fn update_with_version() -> UpdateMany<Entity> {
    Entity::update_many()
        .col_expr(Column::Version, Expr::col(Column::Version).add(1))
        .col_expr(Column::UpdatedAt, Expr::value(now()))
}

/// Selects null instead of the content, which is large, where it is not needed.
pub fn without_content(posts: Select<Entity>) -> Select<Entity> {
    let is_large = |column: &Column| matches!(column, Column::Content | Column::TextGrounding);
    let others = Column::iter().filter(|column| !is_large(column));
    let posts = posts.select_only().columns(others);
    let posts = posts.expr_as(Expr::cust("CAST(NULL AS TEXT)"), "content");
    posts.expr_as(Expr::cust("NULL"), "text_grounding")
}
