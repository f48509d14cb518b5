//! Lists in pages. A cursor is where the last page ended, signed so that it is valid only for the
//! same list of the same user.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sea_orm::sea_query::{Order, Query};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, Iterable,
    ModelTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{Array, Object, Ref, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use crate::auth::tokens::SigningKeys;
use crate::error::{Error, Result};

const DEFAULT_LIMIT: u64 = 20;
const MAX_LIMIT: u64 = 100;
const TAG_LEN: usize = 16;

/// A page, with the `Link` header to the next one.
pub(crate) type PageResponse<T> = (HeaderMap, Json<Page<T>>);

#[derive(Debug, Serialize)]
pub(crate) struct Page<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A page of the list at `uri`.
    pub(crate) fn response(
        uri: &Uri,
        items: Vec<T>,
        next_cursor: Option<String>,
    ) -> PageResponse<T> {
        let headers = next_link_header(uri, next_cursor.as_deref());
        (headers, Json(Page { items, next_cursor }))
    }
}

/// Not derived: that would repeat the schema of `T` in each page's, and join the names with an
/// underscore.
impl<T: ToSchema> PartialSchema for Page<T> {
    fn schema() -> RefOr<Schema> {
        let items = Array::builder()
            .items(Ref::from_schema_name(T::name()))
            .max_items(Some(100));
        let next_cursor = Object::builder()
            .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
            .description(Some("Leads to the next page; null on the last one."));
        Object::builder()
            .description(Some("A page of a list."))
            .property("items", items)
            .property("next_cursor", next_cursor)
            .required("items")
            .into()
    }
}

impl<T: ToSchema> ToSchema for Page<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Page", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

/// Which page of a list a client asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageRequest<'a> {
    list: CursorCodec<'a>,
    limit: u64,
    cursor: Option<&'a str>,
}

impl<'a> PageRequest<'a> {
    /// # Errors
    /// [`Error::Validation`] unless the limit is 1 to 100.
    pub(crate) fn new(
        list: CursorCodec<'a>,
        limit: Option<u64>,
        cursor: Option<&'a str>,
    ) -> Result<Self> {
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            let message = format!("must be 1 to {MAX_LIMIT}");
            return Err(Error::invalid("limit", "out_of_range", message));
        }
        Ok(PageRequest {
            list,
            limit,
            cursor,
        })
    }

    /// One more than fit, which tells whether there is a next page.
    pub(crate) fn rows_to_fetch(&self) -> u64 {
        self.limit + 1
    }

    /// Where the page before ended; None for the first page.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`] if the cursor is not of this list.
    pub(crate) fn after<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        self.cursor
            .map(|cursor| self.list.decode(cursor))
            .transpose()
    }

    /// Cuts fetched rows to those that fit. Returns the cursor of the next page, if there is one.
    pub(crate) fn split<T, C: Serialize>(
        &self,
        rows: &mut Vec<T>,
        position: impl Fn(&T) -> C,
    ) -> Result<Option<String>> {
        let last = split_page(rows, self.limit).map(position);
        last.map(|last| self.list.encode(&last)).transpose()
    }
}

/// A page of [`scan_page`], in the order of a column of UUIDs, and the cursor of the next one.
pub(crate) async fn paginate<E: EntityTrait>(
    db: &impl ConnectionTrait,
    request: PageRequest<'_>,
    mut rows: Select<E>,
    wanted: Option<Condition>,
    id: E::Column,
) -> Result<(Vec<E::Model>, Option<String>)> {
    let id_of = |row: &E::Model| row.get(id).unwrap();
    if let Some(IdCursor { id: after }) = request.after()? {
        rows = rows.filter(id.lt(after));
    }
    let (page, next) = scan_page(db, rows, wanted, id, id_of, request.limit).await?;
    let next = next.map(|next| request.list.encode(&next)).transpose()?;
    Ok((page, next))
}

/// Signs and verifies the cursors of one list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CursorCodec<'a> {
    keys: &'a SigningKeys,
    user: Uuid,
    name: &'a str,
}

impl<'a> CursorCodec<'a> {
    /// `name` is the list of `user`, with its order.
    pub(crate) fn new(keys: &'a SigningKeys, user: Uuid, name: &'a str) -> Self {
        CursorCodec { keys, user, name }
    }

    fn encode(&self, position: &impl Serialize) -> Result<String> {
        let mut cursor = serde_json::to_vec(position).map_err(Error::internal)?;
        cursor.extend(self.tag(&cursor));
        Ok(BASE64_URL_SAFE_NO_PAD.encode(cursor))
    }

    /// # Errors
    /// [`Error::InvalidCursor`] if it is not of this list.
    fn decode<T: DeserializeOwned>(&self, cursor: &str) -> Result<T> {
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(cursor)
            .map_err(|_| Error::InvalidCursor)?;
        let length = bytes
            .len()
            .checked_sub(TAG_LEN)
            .ok_or(Error::InvalidCursor)?;
        let (position, tag) = bytes.split_at(length);
        if self.tag(position) != tag {
            return Err(Error::InvalidCursor);
        }
        serde_json::from_slice(position).map_err(|_| Error::InvalidCursor)
    }

    fn tag(&self, position: &[u8]) -> [u8; TAG_LEN] {
        let list = format!("{}/{}/", self.user, self.name);
        self.keys.cursor_tag(&[list.as_bytes(), position].concat())
    }
}

fn next_link_header(uri: &Uri, next: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(next) = next else { return headers };
    let kept = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let query: Vec<&str> = kept.collect();
    let separator = if query.is_empty() { "" } else { "&" };
    let target = format!("{}?{}{separator}cursor={next}", uri.path(), query.join("&"));
    if let Ok(value) = HeaderValue::from_str(&format!("<{target}>; rel=\"next\"")) {
        headers.insert(header::LINK, value);
    }
    headers
}

/// Cuts entries to those that fit. Returns the last one, if more follow.
fn split_page<T>(entries: &mut Vec<T>, limit: u64) -> Option<&T> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if entries.len() <= limit {
        return None;
    }
    entries.truncate(limit);
    entries.last()
}

/// How many rows a page scans at most.
const MAX_ROWS_SCANNED: u64 = 2_500;

/// A limit that no table reaches.
const NO_LIMIT: u64 = i64::MAX as u64;

/// A page of the `rows` that match `wanted`, the newest first, and where it ended if more may
/// follow. An index must have `rows` in the order of `id`.
///
/// Matches may be rare, and no index leads to them. So a page ends after a number of scanned rows,
/// with what it has found until then, and the next one continues from there: each page is quick,
/// however many rows there are.
pub async fn scan_page<E: EntityTrait>(
    db: &impl ConnectionTrait,
    rows: Select<E>,
    wanted: Option<Condition>,
    id: E::Column,
    id_of: impl Fn(&E::Model) -> Uuid,
    limit: u64,
) -> std::result::Result<(Vec<E::Model>, Option<IdCursor>), DbErr> {
    let mut rows = rows.order_by_desc(id);
    let Some(wanted) = wanted else {
        let mut page = rows.limit(limit + 1).all(db).await?;
        let last = split_page(&mut page, limit).map(|last| IdCursor { id: id_of(last) });
        return Ok((page, last));
    };
    // The end of the scan is determined first, as a row and not as a number of rows: rows that come
    // or go between the two statements must not move it, or the next page would skip some.
    let end = rows
        .clone()
        .select_only()
        .column(id)
        .offset(MAX_ROWS_SCANNED - 1);
    let end = end.limit(1).into_tuple::<Uuid>().one(db).await?;
    if let Some(end) = end {
        rows = rows.filter(id.gte(end));
    }
    // A subquery with a limit is executed as it stands. In one query the database might choose
    // another index, for the condition, and read half of the table.
    let stretch = rows.limit(NO_LIMIT).into_query();
    let page = Query::select()
        .columns(E::Column::iter())
        .from_subquery(stretch, E::default())
        .cond_where(wanted)
        .order_by(id, Order::Desc)
        .limit(limit + 1)
        .take();
    let mut page = E::Model::find_by_statement(db.get_database_backend().build(&page))
        .all(db)
        .await?;
    let last = split_page(&mut page, limit).map(id_of);
    Ok((page, last.or(end).map(|id| IdCursor { id })))
}

/// Where a page in the order of ids ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct IdCursor {
    /// The last entry's id.
    pub id: Uuid,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list<'a>(keys: &'a SigningKeys, name: &'a str) -> CursorCodec<'a> {
        CursorCodec::new(keys, Uuid::nil(), name)
    }

    #[test]
    fn a_cursor_is_good_for_its_own_list_only() {
        let keys = SigningKeys::new(&"0123456789abcdef0123456789abcdef".into());
        let id = Uuid::now_v7();
        let cursor = list(&keys, "posts").encode(&IdCursor { id }).unwrap();
        let back: IdCursor = list(&keys, "posts").decode(&cursor).unwrap();
        assert_eq!(back.id, id);
        let elsewhere = list(&keys, "jobs").decode::<IdCursor>(&cursor);
        assert!(matches!(elsewhere, Err(Error::InvalidCursor)));
    }

    #[test]
    fn a_changed_cursor_is_refused() {
        let keys = SigningKeys::new(&"0123456789abcdef0123456789abcdef".into());
        let cursor = list(&keys, "posts")
            .encode(&IdCursor { id: Uuid::now_v7() })
            .unwrap();
        for bad in [
            "",
            "x",
            "AAAA",
            &cursor[1..],
            &format!("{cursor}A"),
            &cursor.to_lowercase(),
        ] {
            let read = list(&keys, "posts").decode::<IdCursor>(bad);
            assert!(matches!(read, Err(Error::InvalidCursor)), "{bad}");
        }
    }

    #[test]
    fn a_link_keeps_the_query() {
        let uri: Uri = "/api/v1/blogs?limit=2&cursor=old&status=ready"
            .parse()
            .unwrap();
        let headers = next_link_header(&uri, Some("new"));
        assert_eq!(
            headers[header::LINK],
            "</api/v1/blogs?limit=2&status=ready&cursor=new>; rel=\"next\""
        );
    }

    #[test]
    fn the_last_page_has_no_next() {
        let mut entries = vec![1, 2];
        assert_eq!(split_page(&mut entries, 2), None);
        assert_eq!(split_page(&mut entries, 1), Some(&1));
        assert_eq!(entries, [1]);
    }
}
