//! Changing many rows at once, each in its own way: an UPDATE that takes its
//! values from a list.

use sea_orm::sea_query::{Alias, IntoIden, SimpleExpr, TableRef, ValueTuple};
use sea_orm::{EntityTrait, QueryTrait, UpdateMany, Value};

use sea_orm::entity::prelude::Expr;

const VALUES_ALIAS: &str = "new_values";

/// Gives an update a list, to which [`value_column`] and its filter refer.
pub fn from_values<E: EntityTrait>(
    mut update: UpdateMany<E>,
    rows: impl IntoIterator<Item = Vec<Value>>,
) -> UpdateMany<E> {
    let rows = rows.into_iter().map(ValueTuple::Many).collect();
    let list = TableRef::ValuesList(rows, VALUES_ALIAS.into_iden());
    QueryTrait::query(&mut update).from(list);
    update
}

/// The nth value of a row of the list, from 1.
pub fn value_column(n: usize) -> SimpleExpr {
    // Both databases name the columns of a list so.
    Expr::col((Alias::new(VALUES_ALIAS), Alias::new(format!("column{n}"))))
}
