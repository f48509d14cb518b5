//! How the queue has done lately.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Func, SimpleExpr};
use sea_orm::{ActiveEnum, FromQueryResult, Iterable, QueryOrder, QuerySelect, Statement};

use super::{Column, Entity, Status};
use crate::clock::Timestamp;

/// How many jobs there are of each status. Counting ends at a limit.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
#[allow(missing_docs, reason = "each is a status")]
pub struct Counts {
    pub queued: i64,
    pub running: i64,
    pub canceling: i64,
    pub succeeded: i64,
    pub failed: i64,
    pub canceled: i64,
}

/// The times of a job that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Times {
    /// When it was asked for, or last asked to be tried again.
    pub asked_at: Timestamp,
    /// When its first attempt since then began, if it came to that.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub finished_at: Timestamp,
}

/// Written out, as the partial indexes have it.
fn literally(status: Status) -> String {
    let name = status.to_value();
    match status {
        Status::Succeeded => format!("status = '{name}'"),
        _ => format!("status <> 'succeeded' AND status = '{name}'"),
    }
}

impl Entity {
    /// A status as a condition that an index leads to, in the order of ids.
    pub fn all_that_are(status: Status) -> SimpleExpr {
        Expr::cust(literally(status))
    }

    /// How many jobs there are of each status; `most` means that many or more.
    pub async fn counts(db: &impl ConnectionTrait, most: u32) -> Result<Counts, DbErr> {
        let of = |status: Status| {
            let (name, which) = (status.to_value(), literally(status));
            format!(
                "(SELECT COUNT(*) FROM (SELECT 1 FROM generation_jobs \
                 WHERE {which} ORDER BY id LIMIT $1) AS some_{name}) AS {name}"
            )
        };
        let statuses = Status::iter().map(of);
        let sql = format!("SELECT {}", statuses.collect::<Vec<_>>().join(", "));
        let backend = db.get_database_backend();
        let values = [i64::from(most).into()];
        let counts =
            Counts::find_by_statement(Statement::from_sql_and_values(backend, sql, values));
        let none = || DbErr::RecordNotFound("a count".to_owned());
        counts.one(db).await?.ok_or_else(none)
    }

    /// When the job was asked for that has been in the queue for longest.
    pub async fn oldest_queued(db: &impl ConnectionTrait) -> Result<Option<Timestamp>, DbErr> {
        Entity::find()
            .select_only()
            .column(Column::CreatedAt)
            .filter(Entity::all_that_are(Status::Queued))
            .order_by_asc(Column::Id)
            .limit(1)
            .into_tuple()
            .one(db)
            .await
    }

    /// The times of up to `most` jobs that were over since `since`, the latest
    /// first.
    pub async fn over_since(
        db: &impl ConnectionTrait,
        since: Timestamp,
        most: u64,
    ) -> Result<Vec<Times>, DbErr> {
        let asked_at = Func::coalesce([Column::RetriedAt, Column::CreatedAt].map(Expr::col));
        Entity::find()
            .select_only()
            .expr_as(asked_at, "asked_at")
            .columns([Column::StartedAt, Column::FinishedAt])
            .filter(Column::FinishedAt.gte(since))
            .order_by_desc(Column::FinishedAt)
            .limit(most)
            .into_model()
            .all(db)
            .await
    }
}
