//! The sources of a post: what it is to be written from, and what was found in it.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use entity::source::{self, MAX_SOURCES, NewSource};
use sea_orm::{ConnectionTrait, DbErr, EntityTrait};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::current_user::CurrentUser;
use crate::error::{Error, Result};
use crate::extract::field_reader::{FieldReader, Violation};
use crate::extract::path::PathParts;
use crate::extract::text_rules::{length, trimmed_length};
use crate::routes::optional_timestamp;
use crate::state::AppState;

/// How long the text of a source may be, in bytes.
const MAX_TEXT_BYTES: usize = 200_000;

const MAX_URL_LEN: usize = 2_000;

/// A source for a post.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum SourceRequest {
    Address(SourceAddress),
    Text(SourceText),
}

/// A page as a source: HTML, plain text or Markdown.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceAddress {
    /// Its address, `http` or `https`.
    #[schema(
        max_length = 2000,
        pattern = "^https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(/[!-~]*)?$"
    )]
    url: String,
}

/// A text as a source.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceText {
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\x00]*[^\\s\\x00][^\\x00]*$"
    )]
    title: String,
    /// Markdown, plain text or HTML, up to 200,000 bytes.
    #[schema(
        min_length = 1,
        max_length = 200000,
        pattern = "^[^\\x00]*[^\\s\\x00][^\\x00]*$"
    )]
    text: String,
}

impl SourceRequest {
    /// Takes the field `sources`.
    pub(super) fn from_fields(fields: &mut FieldReader) -> Option<Option<Vec<Self>>> {
        fields.optional_list("sources", 0..=MAX_SOURCES, |fields| {
            let url = fields.optional("url", address)?;
            if let Some(url) = url {
                return Some(SourceRequest::Address(SourceAddress { url }));
            }
            let title = fields.required("title", trimmed_length(1, 200));
            let text = fields.required("text", text);
            Some(SourceRequest::Text(SourceText {
                title: title?,
                text: text?,
            }))
        })
    }
}

impl From<SourceRequest> for NewSource {
    fn from(request: SourceRequest) -> Self {
        match request {
            SourceRequest::Address(SourceAddress { url }) => NewSource::Address(url),
            SourceRequest::Text(SourceText { title, text }) => NewSource::Text { title, text },
        }
    }
}

fn address(url: String) -> std::result::Result<String, Violation> {
    let url = length(1, MAX_URL_LEN)(url.trim().to_owned())?;
    let invalid = |message: &str| Err(("invalid", message.to_owned()));
    let Ok(parsed) = url::Url::parse(&url) else {
        return invalid("is no address");
    };
    match parsed.scheme() {
        "http" | "https" if !parsed.username().is_empty() || parsed.password().is_some() => {
            invalid("must not have a name or password in it")
        }
        "http" | "https" => Ok(parsed.into()),
        _ => invalid("must begin with http:// or https://"),
    }
}

fn text(text: String) -> std::result::Result<String, Violation> {
    if text.len() > MAX_TEXT_BYTES {
        let message = format!("must have at most {MAX_TEXT_BYTES} bytes");
        return Err(("too_long", message));
    }
    if text.trim().is_empty() {
        return Err(("too_short", "must not be empty".to_owned()));
    }
    length(1, MAX_TEXT_BYTES)(text)
}

/// A source of a post, without its text.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SourceSummary)]
pub(crate) struct SourceSummary {
    /// As citations name it: `[1]`.
    #[schema(minimum = 1, maximum = 20)]
    number: i32,
    /// Null if its text was given.
    url: Option<String>,
    /// The query by which a search has found it; null if you have given it.
    found_by: Option<String>,
    title: Option<String>,
    /// The name of its site, as it says itself.
    site: Option<String>,
    author: Option<String>,
    /// When it was published, as it says itself.
    published_at: Option<String>,
    /// When it was read.
    #[serde(serialize_with = "optional_timestamp")]
    fetched_at: Option<DateTime<Utc>>,
    /// Null until it has been read.
    status: Option<source::Status>,
    /// Whether the post cites it.
    used: bool,
}

/// A source of a post, with its text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Source {
    #[serde(flatten)]
    summary: SourceSummary,
    /// What was read in it; null if there is nothing. The positions of citations count in it.
    text: Option<String>,
}

impl SourceSummary {
    /// The sources of a post, which cites those with these numbers.
    pub(super) async fn load(
        db: &impl ConnectionTrait,
        post: Uuid,
        cited: &[u32],
    ) -> Result<Vec<Self>, DbErr> {
        let rows = source::without_text(source::Entity::of_post(post));
        let rows = rows.all(db).await?.into_iter();
        Ok(rows.map(|row| SourceSummary::new(row, cited)).collect())
    }

    fn new(row: source::Model, cited: &[u32]) -> Self {
        SourceSummary {
            used: u32::try_from(row.number).is_ok_and(|number| cited.contains(&number)),
            number: row.number,
            url: row.url,
            found_by: row.found_by,
            title: row.title,
            site: row.site,
            author: row.author,
            published_at: row.published_at,
            fetched_at: row.fetched_at,
            status: row.status,
        }
    }
}

/// Get a source of a post
///
/// With its text, as it was read. Positions of citations count in it.
#[utoipa::path(
    get, path = "/blogs/{id}/sources/{number}", tag = "blogs", operation_id = "get_blog_source",
    params(("id" = Uuid, Path), ("number" = i32, Path, minimum = 1, maximum = 20)),
    responses((status = 200, body = Source)),
)]
pub(crate) async fn get_source(
    State(state): State<AppState>,
    me: CurrentUser,
    PathParts((id, number)): PathParts<(Uuid, i32)>,
) -> Result<Json<Source>> {
    let db = state.db.read();
    let post = me.post(id).one(db).await?.ok_or(Error::NotFound)?;
    let row = source::Entity::find_by_id((id, number)).one(db).await?;
    let mut row = row.ok_or(Error::NotFound)?;
    let text = row.text.take();
    let cited = super::response::cited_sources(&post);
    Ok(Json(Source {
        summary: SourceSummary::new(row, &cited),
        text,
    }))
}
