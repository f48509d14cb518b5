//! Deletes of a bounded number of rows: neither database has `DELETE .. LIMIT`.

use sea_orm::entity::prelude::*;
use sea_orm::{DeleteMany, QuerySelect, QueryTrait};

/// Deletes the rows that `rows` selects, by their primary key `id`.
pub(crate) fn delete_selected<E: EntityTrait>(rows: Select<E>, id: E::Column) -> DeleteMany<E> {
    let ids = rows.select_only().column(id).into_query();
    E::delete_many().filter(id.in_subquery(ids))
}
