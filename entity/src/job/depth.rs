//! How long the queue is.

use sea_orm::entity::prelude::*;
use sea_orm::{FromQueryResult, Statement};

use super::Entity;
use crate::clock::Timestamp;

/// How much there is to do, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Depth {
    /// Jobs that wait.
    pub queued: i64,
    /// Jobs that a worker holds.
    pub running: i64,
    /// The delivery that is to be taken next, if jobs wait.
    pub next: Option<String>,
    /// Since when no job is taken, if the queue is paused.
    pub paused_at: Option<Timestamp>,
}

impl Entity {
    /// How long the queue is. Counting takes longer the longer it is, so it ends
    /// at `most`.
    pub async fn depth(db: &impl ConnectionTrait, most: u32) -> Result<Depth, DbErr> {
        // In the order of the partial indexes, or SQLite would rather count along
        // one that has every job there ever was.
        let sql = "SELECT \
             (SELECT COUNT(*) FROM (SELECT 1 FROM generation_jobs \
             WHERE status = 'queued' \
             ORDER BY delivery_id LIMIT $1) AS waiting) AS queued, \
             (SELECT COUNT(*) FROM (SELECT 1 FROM generation_jobs \
             WHERE status IN ('running', 'canceling') \
             ORDER BY lease_until LIMIT $1) AS held) AS running, \
             (SELECT MIN(delivery_id) FROM generation_jobs \
             WHERE status = 'queued') AS next, \
             (SELECT paused_at FROM queue_state WHERE id = 1) AS paused_at";
        let backend = db.get_database_backend();
        let values = [i64::from(most).into()];
        let depth = Depth::find_by_statement(Statement::from_sql_and_values(backend, sql, values));
        let none = || DbErr::RecordNotFound("a count".to_owned());
        depth.one(db).await?.ok_or_else(none)
    }
}
