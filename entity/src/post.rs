//! Blog posts.

use std::collections::HashMap;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Func, Query};
use sea_orm::{
    DatabaseTransaction, DbBackend, ExprTrait, FromQueryResult, Iterable, QuerySelect, QueryTrait,
    Statement,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::bulk_update::{from_values, value_column};
use crate::clock::{Timestamp, now};
use crate::text;

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

/// A title and content, with what is derived from the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostContent {
    /// Without one the post keeps the one that it has.
    pub title: Option<String>,
    content: String,
    excerpt: String,
    /// The number of words in the content.
    pub word_count: i32,
}

impl PostContent {
    /// `content` is Markdown. Words are counted and the excerpt is made here: for large texts
    /// not in a transaction.
    pub fn new(title: Option<String>, content: String) -> Self {
        PostContent {
            title,
            excerpt: text::excerpt(&content),
            word_count: text::word_count(&content),
            content,
        }
    }
}

/// How much a user has stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Usage {
    /// The number of posts, of any status.
    pub posts: i64,
    /// The bytes of their contents, in UTF-8.
    pub bytes: i64,
}

impl Entity {
    /// How much a user has stored.
    pub async fn usage(db: &impl ConnectionTrait, user: Uuid) -> Result<Usage, DbErr> {
        // On SQLite the index has this very expression. Neither database reads the contents.
        let sql = match db.get_database_backend() {
            DbBackend::Postgres => {
                "SELECT COUNT(*) AS posts, COALESCE(SUM(octet_length(content)), 0)::bigint AS bytes \
                 FROM blog_posts WHERE user_id = $1"
            }
            _ => {
                "SELECT COUNT(*) AS posts, COALESCE(SUM(length(CAST(content AS BLOB))), 0) AS bytes \
                 FROM blog_posts WHERE user_id = $1"
            }
        };
        let backend = db.get_database_backend();
        let statement = Statement::from_sql_and_values(backend, sql, [user.into()]);
        let usage = Usage::find_by_statement(statement).one(db).await?;
        usage.ok_or_else(|| DbErr::RecordNotFound("a count".to_owned()))
    }

    /// The posts that `user` may see and change: their own.
    pub fn owned_by(user: Uuid) -> Select<Entity> {
        Entity::find().filter(Column::UserId.eq(user))
    }

    /// Sets a post's content and makes it ready. None if the post is gone, or `version` is given
    /// and is not the current one.
    pub async fn set_content(
        db: &impl ConnectionTrait,
        id: Uuid,
        new: &PostContent,
        version: Option<i32>,
    ) -> Result<Option<Model>, DbErr> {
        let mut update = update_with_version()
            .col_expr(Column::Content, Expr::value(new.content.clone()))
            .col_expr(Column::Excerpt, Expr::value(new.excerpt.clone()))
            .col_expr(Column::WordCount, Expr::value(new.word_count))
            .col_expr(Column::Status, Expr::value(Status::Ready))
            .filter(Column::Id.eq(id));
        if let Some(title) = &new.title {
            update = update.col_expr(Column::Title, Expr::value(title.clone()));
        }
        if let Some(version) = version {
            update = update.filter(Column::Version.eq(version));
        }
        Ok(update.exec_with_returning(db).await?.pop())
    }

    /// Sets the contents of posts, makes them ready, and returns their new versions.
    pub async fn set_contents(
        tx: &DatabaseTransaction,
        contents: impl Iterator<Item = (Uuid, &PostContent)>,
    ) -> Result<HashMap<Uuid, i32>, DbErr> {
        let list = contents.map(|(id, new)| {
            vec![
                id.into(),
                new.content.clone().into(),
                new.excerpt.clone().into(),
                new.word_count.into(),
                new.title.clone().into(),
            ]
        });
        let title = Func::coalesce([value_column(5), Expr::col(Column::Title)]);
        let mut set = from_values(update_with_version(), list)
            .col_expr(Column::Content, value_column(2))
            .col_expr(Column::Excerpt, value_column(3))
            .col_expr(Column::WordCount, value_column(4))
            .col_expr(Column::Title, title.into())
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

/// An update that increments the version, as every one must.
fn update_with_version() -> sea_orm::UpdateMany<Entity> {
    Entity::update_many()
        .col_expr(Column::Version, Expr::col(Column::Version).add(1))
        .col_expr(Column::UpdatedAt, Expr::value(now()))
}

/// Selects null instead of the content, which is large, where it is not needed.
pub fn without_content(posts: Select<Entity>) -> Select<Entity> {
    let others = Column::iter().filter(|column| !matches!(column, Column::Content));
    let posts = posts.select_only().columns(others);
    posts.expr_as(Expr::cust("CAST(NULL AS TEXT)"), "content")
}
