//! Blog posts.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Func;
use sea_orm::{
    DatabaseTransaction, DbBackend, ExprTrait, FromQueryResult, Iterable, QuerySelect, Statement,
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
    /// Whose it is.
    pub user_id: Uuid,
    /// What it is about, as its owner gave it.
    pub topic: String,
    /// How it was to be written last, as the HTTP contract names it.
    pub options: Json,
    /// Null until it was ready once.
    pub title: Option<String>,
    /// Markdown; null until it was ready once.
    pub content: Option<String>,
    /// The content's beginning, plain text.
    pub excerpt: Option<String>,
    /// Words in the content.
    pub word_count: i32,
    /// Where it stands.
    pub status: Status,
    /// Raised by every change; the `ETag`.
    pub version: i32,
    /// When it was asked for.
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

/// A title and its text, with what is derived from the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostContent {
    title: Option<String>,
    content: String,
    excerpt: String,
    /// How many words the text has.
    pub word_count: i32,
}

impl PostContent {
    /// `content` is Markdown. Without a `title`, the post keeps the one it has.
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
    /// Posts, of whatever status.
    pub posts: i64,
    /// Bytes of content in them, in UTF-8.
    pub bytes: i64,
}

impl Entity {
    /// How much a user has stored.
    pub async fn usage(db: &impl ConnectionTrait, user: Uuid) -> Result<Usage, DbErr> {
        // On SQLite as the index has it. Neither database reads the contents.
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
        let values = [user.into()];
        let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
        let usage = Usage::find_by_statement(statement).one(db).await?;
        usage.ok_or_else(|| DbErr::RecordNotFound("a count".to_owned()))
    }

    /// The posts that `user` may see and change: the owner's own.
    pub fn owned_by(user: Uuid) -> Select<Entity> {
        Entity::find().filter(Column::UserId.eq(user))
    }

    /// An update of a post that raises its version, as each must.
    pub fn update_by_id(id: Uuid) -> sea_orm::UpdateMany<Entity> {
        update_raising_version().filter(Column::Id.eq(id))
    }

    /// Gives a post its text and makes it ready. `version`, if given, must be
    /// the present one; None if it is not, or the post is gone.
    pub async fn set_content(
        db: &impl ConnectionTrait,
        id: Uuid,
        text: &PostContent,
        version: Option<i32>,
    ) -> Result<Option<Model>, DbErr> {
        let mut change = Entity::update_by_id(id)
            .col_expr(Column::Content, Expr::value(text.content.clone()))
            .col_expr(Column::Excerpt, Expr::value(text.excerpt.clone()))
            .col_expr(Column::WordCount, Expr::value(text.word_count))
            .col_expr(Column::Status, Expr::value(Status::Ready));
        if let Some(title) = &text.title {
            change = change.col_expr(Column::Title, Expr::value(title.clone()));
        }
        if let Some(version) = version {
            change = change.filter(Column::Version.eq(version));
        }
        Ok(change.exec_with_returning(db).await?.pop())
    }

    /// Gives posts their texts and makes them ready.
    pub async fn set_contents(
        tx: &DatabaseTransaction,
        texts: impl Iterator<Item = (Uuid, &PostContent)>,
    ) -> Result<(), DbErr> {
        let list = texts.map(|(id, text)| {
            vec![
                id.into(),
                text.content.clone().into(),
                text.excerpt.clone().into(),
                text.word_count.into(),
                text.title.clone().into(),
            ]
        });
        let title = Func::coalesce([value_column(5), Expr::col(Column::Title)]);
        from_values(update_raising_version(), list)
            .col_expr(Column::Content, value_column(2))
            .col_expr(Column::Excerpt, value_column(3))
            .col_expr(Column::WordCount, value_column(4))
            .col_expr(Column::Title, title.into())
            .col_expr(Column::Status, Expr::value(Status::Ready))
            .filter(Expr::col(Column::Id).eq(value_column(1)))
            .exec(tx)
            .await?;
        Ok(())
    }

    /// Has a post be written anew, as `options` say.
    pub async fn regenerate(
        db: &impl ConnectionTrait,
        id: Uuid,
        options: Json,
    ) -> Result<(), DbErr> {
        let change = Entity::update_by_id(id)
            .col_expr(Column::Options, Expr::value(options))
            .col_expr(Column::Status, Expr::value(Status::Generating));
        change.exec(db).await?;
        Ok(())
    }

    /// Moves posts to another status.
    pub async fn set_statuses(
        db: &impl ConnectionTrait,
        ids: impl Iterator<Item = Uuid>,
        status: Status,
    ) -> Result<(), DbErr> {
        update_raising_version()
            .col_expr(Column::Status, Expr::value(status))
            .filter(Column::Id.is_in(ids))
            .exec(db)
            .await?;
        Ok(())
    }
}

fn update_raising_version() -> sea_orm::UpdateMany<Entity> {
    Entity::update_many()
        .col_expr(Column::Version, Expr::col(Column::Version).add(1))
        .col_expr(Column::UpdatedAt, Expr::value(now()))
}

/// Leaving out what is large and not asked for.
pub trait WithoutContent {
    /// The same posts, with null for their content.
    fn without_content(self) -> Self;
}

impl WithoutContent for Select<Entity> {
    fn without_content(self) -> Self {
        let others = Column::iter().filter(|column| !matches!(column, Column::Content));
        self.select_only()
            .columns(others)
            .expr_as(Expr::cust("CAST(NULL AS TEXT)"), "content")
    }
}
