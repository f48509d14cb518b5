//! Making a database old: 100,000 posts of one user, with 1,000,000 jobs that are
//! over, a tenth of them failed. Only the amount matters, so it is done in SQL.

use anyhow::Result;
use sea_orm::{ConnectionTrait, DbBackend};
use shared::database::Database;

/// Fills the database of a single user.
pub(crate) async fn fill(db: &Database) -> Result<()> {
    let (id, number, now) = match db.backend() {
        DbBackend::Postgres => (
            "gen_random_uuid()",
            "(SELECT * FROM generate_series(1, 100000) i)",
            "now()",
        ),
        _ => (
            "randomblob(16)",
            "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) \
             SELECT i FROM n)",
            "strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')",
        ),
    };
    let text = "'Some words of a post, which goes on and on for a while. '";
    let content = format!("{text} || {text} || {text} || {text} || {text} || {text}");
    let posts = format!(
        "INSERT INTO blog_posts (id, user_id, topic, title, content, excerpt, word_count, \
         status, version, created_at, updated_at) \
         SELECT {id}, users.id, 'A topic', 'A title', {content}, {text}, 72, 'ready', 2, {now}, \
         {now} FROM users, {number} numbers"
    );
    let jobs = format!(
        "INSERT INTO generation_jobs (id, post_id, user_id, status, percent, words, options, \
         model, attempt, max_attempts, input_tokens, output_tokens, error_code, created_at, \
         started_at, finished_at) \
         SELECT {id}, blog_posts.id, user_id, \
         CASE ten.n WHEN 1 THEN 'failed' ELSE 'succeeded' END, 100, 72, '{{}}', 'instant', 1, 5, \
         9, 9, CASE ten.n WHEN 1 THEN 'agent_timeout' END, {now}, {now}, {now} FROM blog_posts, \
         (SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 \
         UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9 UNION ALL \
         SELECT 10) ten WHERE blog_posts.topic = 'A topic'"
    );
    db.write().execute_unprepared(&posts).await?;
    db.write().execute_unprepared(&jobs).await?;
    db.write().execute_unprepared("ANALYZE").await?;
    Ok(())
}
