//! Numbers of events that no client can have yet, for a database that was restored.

use entity::{job, job_event};
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Query;
use sea_orm::{DatabaseTransaction, ExprTrait};

/// More events than a job has.
const STEP: i32 = 1_000_000;

/// Raises the numbers of all events above `highest`, the highest one that is known to have been given.
/// A client has the numbers that were given between the backup and its restore. If they were given
/// again, it would be sent what follows on the new ones, and put that behind the text of the old ones.
/// What follows on a number that is not there any more is a snapshot.
pub(crate) async fn raise_numbers(tx: &DatabaseTransaction, highest: i32) -> Result<(), DbErr> {
    let step = (highest / STEP + 1) * STEP;
    let seq = Expr::col(job_event::Column::Seq).add(step);
    job_event::Entity::update_many()
        .col_expr(job_event::Column::Seq, seq)
        .exec(tx)
        .await?;
    let told = Query::select()
        .column(job_event::Column::JobId)
        .from(job_event::Entity)
        .take();
    // Finished ones without events were ended by a version that tells of none.
    let has_numbers = job::Column::FinishedAt.is_null();
    let has_numbers = has_numbers.or(job::Column::Id.in_subquery(told));
    let last = Expr::col(job::Column::LastEvent).add(step);
    job::Entity::update_many()
        .col_expr(job::Column::LastEvent, last)
        .filter(has_numbers)
        .exec(tx)
        .await?;
    Ok(())
}
