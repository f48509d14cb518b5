//! Which posts a list has, and in which order.

use chrono::{DateTime, Utc};
use entity::post;
use sea_orm::sea_query::{Expr, SimpleExpr};
use sea_orm::{Condition, DbBackend, ExprTrait, Order, QueryOrder, Select};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::substring_search;

/// Which posts to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListPostsQuery {
    /// What the topic, title or content must contain, whatever its case.
    #[param(max_length = 200, pattern = "^[^\\x00]*$")]
    pub(super) q: Option<String>,
    pub(super) status: Option<post::Status>,
    /// By default the newest first.
    #[param(inline)]
    pub(super) sort: Option<Sort>,
    /// How many a page may have, by default 20.
    #[param(minimum = 1, maximum = 100)]
    pub(super) limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(max_length = 500, pattern = "^[A-Za-z0-9_-]+$")]
    pub(super) cursor: Option<String>,
}

/// An order of posts; `-` puts the latest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
pub(crate) enum Sort {
    /// The newest first.
    #[default]
    #[serde(rename = "-created_at")]
    NewestFirst,
    /// The oldest first.
    #[serde(rename = "created_at")]
    OldestFirst,
    /// The last changed first.
    #[serde(rename = "-updated_at")]
    LastChangedFirst,
    /// The last changed last.
    #[serde(rename = "updated_at")]
    LastChangedLast,
}

/// Where a page of posts ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct PostCursor {
    pub(super) id: Uuid,
    pub(super) updated_at: DateTime<Utc>,
}

impl Sort {
    pub(super) fn name(self) -> &'static str {
        match self {
            Sort::NewestFirst => "posts,-created_at",
            Sort::OldestFirst => "posts,created_at",
            Sort::LastChangedFirst => "posts,-updated_at",
            Sort::LastChangedLast => "posts,updated_at",
        }
    }

    fn order(self) -> Order {
        match self {
            Sort::NewestFirst | Sort::LastChangedFirst => Order::Desc,
            Sort::OldestFirst | Sort::LastChangedLast => Order::Asc,
        }
    }

    /// Ids sort by age, so only the time of change needs a column of its own.
    fn by_change(self) -> bool {
        matches!(self, Sort::LastChangedFirst | Sort::LastChangedLast)
    }

    pub(super) fn apply(self, posts: Select<post::Entity>) -> Select<post::Entity> {
        let posts = match self.by_change() {
            true => posts.order_by(post::Column::UpdatedAt, self.order()),
            false => posts,
        };
        posts.order_by(post::Column::Id, self.order())
    }

    pub(super) fn after(self, position: PostCursor) -> SimpleExpr {
        use post::Column::{Id, UpdatedAt};
        let (mut key, mut last) = (vec![Expr::col(Id)], vec![Expr::value(position.id)]);
        if self.by_change() {
            key.insert(0, Expr::col(UpdatedAt));
            last.insert(0, Expr::value(position.updated_at));
        }
        // Compared as rows, for then the index leads right to the place.
        let (key, last) = (Expr::tuple(key), Expr::tuple(last));
        match self.order() {
            Order::Asc => key.gt(last),
            _ => key.lt(last),
        }
    }
}

/// Posts that contain `q`, whatever its case.
pub(super) fn contains(backend: DbBackend, q: &str) -> Condition {
    let columns = [
        post::Column::Topic,
        post::Column::Title,
        post::Column::Content,
    ];
    let found = columns.map(|column| substring_search::contains(backend, Expr::col(column), q));
    found.into_iter().fold(Condition::any(), Condition::add)
}
