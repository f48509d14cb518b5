//! The orders that posts can be listed in.

use chrono::{DateTime, Utc};
use entity::post;
use sea_orm::sea_query::{Expr, SimpleExpr};
use sea_orm::{ExprTrait, Order, QueryOrder, Select};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The order of posts; `-` is descending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
pub(crate) enum Sort {
    #[default]
    #[serde(rename = "-created_at")]
    NewestFirst,
    #[serde(rename = "created_at")]
    OldestFirst,
    #[serde(rename = "-updated_at")]
    LastChangedFirst,
    #[serde(rename = "updated_at")]
    LastChangedLast,
}

/// Where a page of posts ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct PostCursor {
    id: Uuid,
    updated_at: DateTime<Utc>,
}

impl PostCursor {
    pub(super) fn new(post: &post::Summary) -> Self {
        PostCursor {
            id: post.id,
            updated_at: post.updated_at,
        }
    }
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

    /// Ids are in the order of creation, so only the time of change is a further column.
    fn by_change(self) -> bool {
        matches!(self, Sort::LastChangedFirst | Sort::LastChangedLast)
    }

    pub(super) fn apply(self, posts: Select<post::Entity>) -> Select<post::Entity> {
        let posts = if self.by_change() {
            posts.order_by(post::Column::UpdatedAt, self.order())
        } else {
            posts
        };
        posts.order_by(post::Column::Id, self.order())
    }

    pub(super) fn after(self, position: PostCursor) -> SimpleExpr {
        use post::Column::{Id, UpdatedAt};
        let mut key = vec![Expr::col(Id)];
        let mut last = vec![Expr::value(position.id)];
        if self.by_change() {
            key.insert(0, Expr::col(UpdatedAt));
            last.insert(0, Expr::value(position.updated_at));
        }
        // Compared as rows, so that the index leads right there.
        let key = Expr::tuple(key);
        let last = Expr::tuple(last);
        match self.order() {
            Order::Asc => key.gt(last),
            _ => key.lt(last),
        }
    }
}
