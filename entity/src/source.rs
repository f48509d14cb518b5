//! Sources of posts: what a post is to be written from, and what was found in it.

use sea_orm::entity::prelude::*;
use sea_orm::{DatabaseTransaction, Iterable, QueryOrder, QuerySelect, Set};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::{Timestamp, now};

/// A row of `post_sources`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "post_sources")]
pub struct Model {
    /// The post.
    #[sea_orm(primary_key, auto_increment = false)]
    pub post_id: Uuid,
    /// From 1 on, as citations name it.
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i32,
    /// The post's owner.
    pub user_id: Uuid,
    /// Where it is to be read; null if its text was given.
    pub url: Option<String>,
    /// The query by which a search has found it; null if its owner has given it.
    pub found_by: Option<String>,
    /// Its title, given or read.
    pub title: Option<String>,
    /// The name of the site.
    pub site: Option<String>,
    /// Who wrote it.
    pub author: Option<String>,
    /// When it was published, as it says itself.
    pub published_at: Option<String>,
    /// When it was read.
    pub fetched_at: Option<Timestamp>,
    /// What became of reading it; null until then.
    pub status: Option<Status>,
    /// Its text; null until it is read.
    pub text: Option<String>,
    /// The bytes of the text, in UTF-8.
    pub bytes: i32,
}

/// How many sources a post has at most: citations name them by numbers up to this.
pub const MAX_SOURCES: usize = 20;

/// What became of reading a source.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, Deserialize, ToSchema,
)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::None)",
    rename_all = "snake_case"
)]
#[serde(rename_all = "snake_case")]
#[schema(as = SourceStatus)]
pub enum Status {
    /// It has a text.
    Read,
    /// There is no text in it.
    Empty,
    /// Its site can't be reached, or answers with an error.
    Unreachable,
    /// Its address leads to where this service does not go, such as a private network.
    Refused,
    /// It is larger than allowed.
    TooLarge,
    /// It is of a type that can't be read.
    Unsupported,
    /// Its site does not want it to be read by programs.
    Disallowed,
}

impl ActiveModelBehavior for ActiveModel {}

/// A source that a client gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewSource {
    /// A page to be read.
    Address(String),
    /// A text.
    Text {
        /// Its title.
        title: String,
        /// Markdown, plain text or HTML.
        text: String,
    },
}

impl NewSource {
    /// How much of its owner's quota it takes.
    pub fn bytes(&self) -> i32 {
        match self {
            NewSource::Address(_) => 0,
            NewSource::Text { text, .. } => bytes(text),
        }
    }
}

/// A page that a search has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundPage {
    /// Its address.
    pub url: String,
    /// Its title, as the search names it.
    pub title: Option<String>,
    /// The query by which it was found.
    pub query: String,
}

/// A source that was read, or could not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadSource {
    /// What became of it.
    pub status: Status,
    /// The title that it has itself.
    pub title: Option<String>,
    /// The name of the site.
    pub site: Option<String>,
    /// Who wrote it.
    pub author: Option<String>,
    /// When it was published, as it says itself.
    pub published_at: Option<String>,
    /// Its text, if it was read.
    pub text: Option<String>,
}

impl Entity {
    /// A post's sources.
    pub fn of_post(post: Uuid) -> Select<Entity> {
        Entity::find()
            .filter(Column::PostId.eq(post))
            .order_by_asc(Column::Number)
    }

    /// Makes these the sources of a post, in place of those that it had.
    pub async fn replace(
        tx: &DatabaseTransaction,
        post: Uuid,
        user: Uuid,
        sources: Vec<NewSource>,
    ) -> Result<(), DbErr> {
        let before = Entity::delete_many().filter(Column::PostId.eq(post));
        before.exec(tx).await?;
        Entity::insert_for(tx, post, user, sources).await
    }

    /// Inserts the sources of a post that has none.
    pub async fn insert_for(
        tx: &DatabaseTransaction,
        post: Uuid,
        user: Uuid,
        sources: Vec<NewSource>,
    ) -> Result<(), DbErr> {
        let rows = sources.into_iter().zip(1..).map(|(source, number)| {
            let bytes = source.bytes();
            let (url, title, text) = match source {
                NewSource::Address(url) => (Some(url), None, None),
                NewSource::Text { title, text } => (None, Some(title), Some(text)),
            };
            ActiveModel {
                url: Set(url),
                title: Set(title),
                bytes: Set(bytes),
                text: Set(text),
                ..row(post, user, number)
            }
        });
        insert(tx, rows.collect()).await
    }

    /// Makes these the pages that a search has found for a post, in place of those that it has found
    /// before, so that the post has at most `max` sources. Whether there were such is the result.
    pub async fn replace_found(
        tx: &DatabaseTransaction,
        post: Uuid,
        user: Uuid,
        pages: Vec<FoundPage>,
        max: usize,
    ) -> Result<bool, DbErr> {
        let before = Entity::delete_many()
            .filter(Column::PostId.eq(post))
            .filter(Column::FoundBy.is_not_null());
        let before = before.exec(tx).await?.rows_affected;
        let given: Vec<i32> = Entity::of_post(post)
            .select_only()
            .column(Column::Number)
            .into_tuple()
            .all(tx)
            .await?;
        let first = given.last().map_or(1, |last| last + 1);
        let room = max.saturating_sub(given.len());
        let rows = pages.into_iter().take(room).zip(first..);
        let rows = rows.map(|(page, number)| ActiveModel {
            url: Set(Some(page.url)),
            title: Set(page.title),
            found_by: Set(Some(page.query)),
            bytes: Set(0),
            ..row(post, user, number)
        });
        insert(tx, rows.collect()).await?;
        Ok(before > 0)
    }

    /// Has the sources read again that could not be.
    pub async fn forget_failures(tx: &DatabaseTransaction, post: Uuid) -> Result<(), DbErr> {
        let update = Entity::update_many()
            .col_expr(Column::Status, Expr::cust("NULL"))
            .filter(Column::PostId.eq(post))
            .filter(Column::Status.ne(Status::Read));
        update.exec(tx).await?;
        Ok(())
    }

    /// Stores what was found in a source, unless it has been read or replaced meanwhile.
    pub async fn set_read(
        tx: &DatabaseTransaction,
        source: &Model,
        found: ReadSource,
    ) -> Result<(), DbErr> {
        let mut update = Entity::update_many()
            .col_expr(Column::Status, Expr::value(found.status))
            .col_expr(Column::FetchedAt, Expr::value(now()))
            .col_expr(Column::Site, Expr::value(found.site))
            .col_expr(Column::Author, Expr::value(found.author))
            .col_expr(Column::PublishedAt, Expr::value(found.published_at))
            .filter(Column::PostId.eq(source.post_id))
            .filter(Column::Number.eq(source.number))
            .filter(Column::Status.is_null());
        update = match (&source.url, &source.text) {
            (Some(url), _) => update.filter(Column::Url.eq(url.clone())),
            (None, text) => update
                .filter(Column::Url.is_null())
                .filter(Column::Text.eq(text.clone())),
        };
        // One that its owner has given stays.
        let is_given = source.title.is_some() && source.found_by.is_none();
        if let Some(title) = found.title.filter(|_| !is_given) {
            update = update.col_expr(Column::Title, Expr::value(title));
        }
        if let Some(text) = found.text {
            update = update
                .col_expr(Column::Bytes, Expr::value(bytes(&text)))
                .col_expr(Column::Text, Expr::value(text));
        }
        update.exec(tx).await?;
        Ok(())
    }
}

/// A row without what is null until the source is read.
fn row(post: Uuid, user: Uuid, number: i32) -> ActiveModel {
    ActiveModel {
        post_id: Set(post),
        number: Set(number),
        user_id: Set(user),
        ..Default::default()
    }
}

async fn insert(tx: &DatabaseTransaction, rows: Vec<ActiveModel>) -> Result<(), DbErr> {
    if !rows.is_empty() {
        Entity::insert_many(rows).exec_without_returning(tx).await?;
    }
    Ok(())
}

fn bytes(text: &str) -> i32 {
    i32::try_from(text.len()).unwrap_or(i32::MAX)
}

/// Selects null instead of the texts, which are large, where they are not needed.
pub fn without_text(sources: Select<Entity>) -> Select<Entity> {
    let others = Column::iter().filter(|column| !matches!(column, Column::Text));
    let sources = sources.select_only().columns(others);
    sources.expr_as(Expr::cust("CAST(NULL AS TEXT)"), "text")
}
