//! Bulk `UPDATE .. FROM (VALUES ..)`: many rows in one statement, each with values of its own.

use sea_orm::sea_query::{Alias, Expr, IntoIden, SimpleExpr, TableRef, ValueTuple};
use sea_orm::{EntityTrait, QueryTrait, UpdateMany, Value};

const VALUES_ALIAS: &str = "new_values";

/// Adds `FROM (VALUES ..)` to an update, whose columns and filter refer to it by [`value_column`].
pub fn from_values<E: EntityTrait>(
    mut update: UpdateMany<E>,
    rows: impl IntoIterator<Item = Vec<Value>>,
) -> UpdateMany<E> {
    let rows = rows.into_iter().map(ValueTuple::Many).collect();
    let list = TableRef::ValuesList(rows, VALUES_ALIAS.into_iden());
    QueryTrait::query(&mut update).from(list);
    update
}

/// The nth value of a row of the list, counted from 1.
pub fn value_column(n: usize) -> SimpleExpr {
    // The name that both databases give to the columns of a `VALUES` list.
    Expr::col((Alias::new(VALUES_ALIAS), Alias::new(format!("column{n}"))))
}
