//! Making a database old: 100,000 posts of one user, with 1,000,000 jobs that are
//! over, a tenth of them failed. Only the amount matters, so it is done in SQL.

use anyhow::Result;
use sea_orm::{ConnectionTrait, DbBackend};
use shared::database::Database;

/// Fills the database of a single user. Ids are in the order of time, as ours are.
pub(crate) async fn fill(db: &Database) -> Result<()> {
    let backend = db.backend();
    let now = match backend {
        DbBackend::Postgres => "now()",
        _ => "strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')",
    };
    let id = |number: &str| match backend {
        DbBackend::Postgres => {
            format!("(lpad(to_hex({number}), 12, '0') || '70008000000000000000')::uuid")
        }
        _ => format!("unhex(printf('%012x70008000000000000000', {number}))"),
    };
    let numbers = |name: &str, most: u32| {
        format!(
            "(WITH RECURSIVE n({name}) AS (SELECT 1 UNION ALL SELECT {name} + 1 FROM n \
             WHERE {name} < {most}) SELECT {name} FROM n) {name}s"
        )
    };
    let (post, job) = (id("post"), id("post * 10 + job"));
    let (posts, jobs) = (numbers("post", 100_000), numbers("job", 10));
    let text = "'Some words of a post, which goes on and on for a while. '";
    let content = format!("{text} || {text} || {text} || {text} || {text} || {text}");
    let insert_posts = format!(
        "INSERT INTO blog_posts (id, user_id, topic, title, content, excerpt, word_count, \
         status, version, created_at, updated_at) \
         SELECT {post}, users.id, 'A topic', 'A title', {content}, {text}, 72, 'ready', 2, {now}, \
         {now} FROM users, {posts}"
    );
    let insert_jobs = format!(
        "INSERT INTO generation_jobs (id, post_id, user_id, status, percent, words, options, \
         model, attempt, max_attempts, input_tokens, output_tokens, error_code, created_at, \
         started_at, finished_at) \
         SELECT {job}, {post}, users.id, CASE job WHEN 1 THEN 'failed' ELSE 'succeeded' END, 100, \
         72, '{{}}', 'instant', 1, 5, 9, 9, CASE job WHEN 1 THEN 'agent_timeout' END, {now}, \
         {now}, {now} FROM users, {posts}, {jobs}"
    );
    db.raw_connection()
        .execute_unprepared(&insert_posts)
        .await?;
    db.raw_connection().execute_unprepared(&insert_jobs).await?;
    let tidy = match backend {
        DbBackend::Postgres => "VACUUM ANALYZE",
        _ => "ANALYZE",
    };
    db.raw_connection().execute_unprepared(tidy).await?;
    Ok(())
}
