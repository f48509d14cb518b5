//! Listing and searching a user's posts.

use std::time::Duration;

use axum::extract::{OriginalUri, State};
use entity::post;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, Condition, DbBackend, QueryFilter, QuerySelect};
use serde::Deserialize;
use utoipa::IntoParams;

use super::response::PostSummary;
use super::sort::{PostCursor, Sort};
use crate::auth::current_user::CurrentUser;
use crate::error::{Result, merge_violations};
use crate::extract::query::{ValidatedQuery, search_term};
use crate::pagination::{CursorCodec, Page, PageRequest, PageResponse};
use crate::state::AppState;
use crate::substring_search;

/// The timeout of a search on Postgres. On SQLite the quota on text bounds it.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Which posts to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListPostsQuery {
    /// Text in the topic, title or content, case-insensitive.
    #[param(max_length = 200, pattern = "^[^\\x00]*$")]
    q: Option<String>,
    status: Option<post::Status>,
    /// By default `-created_at`.
    #[param(inline)]
    sort: Option<Sort>,
    /// Entries per page, by default 20.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
    /// `next_cursor` of the previous page.
    #[param(max_length = 500, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

type PostSummaryPage = Page<PostSummary>;

/// List your posts
#[utoipa::path(
    get, path = "/blogs", tag = "blogs", operation_id = "list_blogs",
    params(ListPostsQuery),
    responses((status = 200, body = PostSummaryPage)),
)]
pub(crate) async fn list_posts(
    State(state): State<AppState>,
    me: CurrentUser,
    OriginalUri(uri): OriginalUri,
    ValidatedQuery(query): ValidatedQuery<ListPostsQuery>,
) -> Result<PageResponse<PostSummary>> {
    let sort = query.sort.unwrap_or_default();
    let list = CursorCodec::new(&state.keys, me.user.id, sort.name());
    let page = PageRequest::new(list, query.limit, query.cursor.as_deref());
    let (page, q) = merge_violations(page, search_term(query.q.as_deref()))?;
    let mut posts = sort.apply(post::Entity::owned_by(me.user.id));
    posts = posts.limit(page.rows_to_fetch());
    if let Some(status) = query.status {
        posts = posts.filter(post::Column::Status.eq(status));
    }
    if let Some(q) = q {
        posts = posts.filter(contains(state.db.backend(), q));
    }
    if let Some(after) = page.after()? {
        posts = posts.filter(sort.after(after));
    }
    let posts = posts.into_partial_model::<post::Summary>();
    let mut posts = if q.is_some() {
        // A search reads whole posts, and continues when its client disconnects.
        let db = state.db.clone();
        let search = async move { db.read().all_within(SEARCH_TIMEOUT, posts).await };
        state.searches.run(me.user.id, search).await??
    } else {
        posts.all(state.db.read()).await?
    };
    let next = page.split(&mut posts, PostCursor::new)?;
    let items = PostSummary::load(state.db.read(), posts, &me).await?;
    Ok(Page::response(&uri, items, next))
}

fn contains(backend: DbBackend, q: &str) -> Condition {
    let columns = [
        post::Column::Topic,
        post::Column::Title,
        post::Column::Content,
    ];
    let found = columns.map(|column| substring_search::contains(backend, Expr::col(column), q));
    found.into_iter().fold(Condition::any(), Condition::add)
}
