//! Statistics of the queue: its depth, counts by status, recent timings, and positions.

use entity::clock::Timestamp;
use entity::job::{Column, Entity, Status};
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Func;
use sea_orm::{ActiveEnum, FromQueryResult, Iterable, QueryOrder, QuerySelect, Statement};

/// The depth of the queue.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct QueueDepth {
    /// Jobs that are queued.
    pub queued: i64,
    /// Jobs that a worker holds.
    pub running: i64,
    /// The next delivery, if jobs are queued.
    pub next: Option<String>,
    /// When the queue was paused, if it is.
    pub paused_at: Option<Timestamp>,
}

/// The depth of the queue, counted up to `max`, for counting a long queue takes long.
pub async fn depth(db: &impl ConnectionTrait, max: u32) -> Result<QueueDepth, DbErr> {
    // Ordered as the partial indexes are, or SQLite would choose one that has every job there ever
    // was.
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
    count_up_to(db, sql, max).await
}

/// The row of a query whose parameter is the limit of its counts.
async fn count_up_to<T: FromQueryResult>(
    db: &impl ConnectionTrait,
    sql: &str,
    max: u32,
) -> Result<T, DbErr> {
    let max = [i64::from(max).into()];
    let query = Statement::from_sql_and_values(db.get_database_backend(), sql, max);
    let row = T::find_by_statement(query).one(db).await?;
    row.ok_or_else(|| DbErr::RecordNotFound("a count".to_owned()))
}

/// How many jobs there are of each status, up to a limit.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
#[allow(missing_docs, reason = "each is a status")]
pub struct StatusCounts {
    pub queued: i64,
    pub running: i64,
    pub awaiting_review: i64,
    pub canceling: i64,
    pub succeeded: i64,
    pub failed: i64,
    pub canceled: i64,
}

/// When a finished job was created, started and finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromQueryResult)]
pub struct JobTimings {
    /// When it was created or last retried.
    pub asked_at: Timestamp,
    /// When its first attempt since then started, if there was one.
    pub started_at: Option<Timestamp>,
    /// When it finished.
    pub finished_at: Timestamp,
}

/// Counts the jobs of each status; `max` means that many or more.
pub async fn status_counts(db: &impl ConnectionTrait, max: u32) -> Result<StatusCounts, DbErr> {
    let of = |status: Status| {
        let name = status.to_value();
        let predicate = status.index_predicate();
        format!(
            "(SELECT COUNT(*) FROM (SELECT 1 FROM generation_jobs \
             WHERE {predicate} ORDER BY id LIMIT $1) AS some_{name}) AS {name}"
        )
    };
    let statuses = Status::iter().map(of);
    let sql = format!("SELECT {}", statuses.collect::<Vec<_>>().join(", "));
    count_up_to(db, &sql, max).await
}

/// When the oldest queued job was created.
pub async fn oldest_queued(db: &impl ConnectionTrait) -> Result<Option<Timestamp>, DbErr> {
    Entity::find()
        .select_only()
        .column(Column::CreatedAt)
        .filter(Status::Queued.is_in_index())
        .order_by_asc(Column::Id)
        .limit(1)
        .into_tuple()
        .one(db)
        .await
}

/// The times of up to `limit` jobs that finished since `since`, the latest first.
pub async fn finished_since(
    db: &impl ConnectionTrait,
    since: Timestamp,
    limit: u64,
) -> Result<Vec<JobTimings>, DbErr> {
    let asked_at = Func::coalesce([Column::RetriedAt, Column::CreatedAt].map(Expr::col));
    Entity::find()
        .select_only()
        .expr_as(asked_at, "asked_at")
        .columns([Column::StartedAt, Column::FinishedAt])
        .filter(Column::FinishedAt.gte(since))
        .order_by_desc(Column::FinishedAt)
        .limit(limit)
        .into_model()
        .all(db)
        .await
}

/// How many jobs finished in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromQueryResult)]
pub struct FinishedCounts {
    /// Which of the periods it is, from 0 on.
    pub period: i32,
    /// In any way.
    pub finished: i64,
    /// By an error.
    pub failed: i64,
}

/// Counts the jobs that finished in each of the periods between `times`, which ascend; `max` of a
/// period means that many or more, the first of it.
pub async fn finished_between(
    db: &impl ConnectionTrait,
    times: &[Timestamp],
    max: u32,
) -> Result<Vec<FinishedCounts>, DbErr> {
    let period = |from: usize| {
        format!(
            "SELECT {from} AS period, COUNT(*) AS finished, \
             COUNT(CASE WHEN status = 'failed' THEN 1 END) AS failed \
             FROM (SELECT status FROM generation_jobs \
             WHERE finished_at >= ${} AND finished_at < ${} \
             ORDER BY finished_at LIMIT {max}) AS jobs",
            from + 1,
            from + 2
        )
    };
    let periods: Vec<String> = (0..times.len().saturating_sub(1)).map(period).collect();
    let sql = periods.join(" UNION ALL ");
    let times = times.iter().map(|time| Value::from(*time));
    let query = Statement::from_sql_and_values(db.get_database_backend(), sql, times);
    let mut counts = FinishedCounts::find_by_statement(query).all(db).await?;
    counts.sort_unstable_by_key(|count| count.period);
    Ok(counts)
}

/// A job's position in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromQueryResult)]
pub struct QueuePosition {
    /// The job.
    pub id: Uuid,
    /// 1 for the job that is claimed next.
    pub position: i64,
}

/// Positions beyond this say little, and are expensive to count.
const MAX_POSITION: i64 = 1000;

/// For more jobs than this the next thousand are numbered once; for fewer, those ahead of each job are
/// counted, which takes a sixth of the time for one.
const MAX_COUNTED: usize = 6;

/// The positions of those of `jobs` that are among the next thousand, in any order.
pub async fn positions(
    db: &impl ConnectionTrait,
    jobs: &[Uuid],
) -> Result<Vec<QueuePosition>, DbErr> {
    // Partial indexes match only literal conditions: of a parameter, the planner does not know
    // whether it will have the value that the index is for.
    let ready = "status = 'queued' AND next_attempt_at IS NULL";
    let positions = if jobs.len() <= MAX_COUNTED {
        format!(
            "SELECT id, (SELECT COUNT(*) FROM (SELECT 1 FROM generation_jobs AS ahead \
             WHERE ahead.status = 'queued' AND ahead.next_attempt_at IS NULL \
             AND (ahead.turn, ahead.id) <= (generation_jobs.turn, generation_jobs.id) \
             LIMIT {MAX_POSITION} + 1) AS counted) AS position \
             FROM generation_jobs WHERE {ready}"
        )
    } else {
        format!(
            "SELECT id, position FROM (SELECT id, ROW_NUMBER() OVER (ORDER BY turn, id) AS position \
             FROM (SELECT id, turn FROM generation_jobs WHERE {ready} \
             ORDER BY turn, id LIMIT {MAX_POSITION}) AS next) AS numbered WHERE TRUE"
        )
    };
    let placeholders: Vec<String> = (1..=jobs.len()).map(|n| format!("${n}")).collect();
    let sql = format!("{positions} AND id IN ({})", placeholders.join(", "));
    let jobs = jobs.iter().map(|job| Value::from(*job));
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, jobs);
    let mut positions = QueuePosition::find_by_statement(statement).all(db).await?;
    positions.retain(|job| job.position <= MAX_POSITION);
    Ok(positions)
}
