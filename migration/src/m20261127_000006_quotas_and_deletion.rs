use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{integer, timestamp_with_time_zone_null, uuid_null};
use sea_orm_migration::sea_orm::DbBackend;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        index_sizes(manager).await?;
        tell_whose_answers_are(manager).await?;
        create_cleanup_clock(manager).await?;
        index_unfinished_jobs(manager).await
    }
}

/// How much text a user has. Postgres has no need of it: there the length of a
/// text is found without reading it.
async fn index_sizes(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    if manager.get_database_backend() == DbBackend::Postgres {
        return Ok(());
    }
    for index in [
        "CREATE INDEX blog_posts_size_by_user \
         ON blog_posts (user_id, length(CAST(content AS BLOB)))",
        "CREATE INDEX idempotency_keys_size_by_user \
         ON idempotency_keys (user_id, length(CAST(answer AS BLOB)))",
    ] {
        execute(manager, index).await?;
    }
    Ok(())
}

/// An answer that is kept for a replay has a copy of its post, which has to go with
/// that. Without a foreign key: the key stays, so that nothing is done twice.
async fn tell_whose_answers_are(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let alter = Table::alter()
        .table("idempotency_keys")
        .add_column(uuid_null("post_id"))
        .to_owned();
    manager.alter_table(alter).await?;
    // The body of an answer is a post, or a job with the id of its post.
    let present = match manager.get_database_backend() {
        DbBackend::Postgres => {
            "UPDATE idempotency_keys SET post_id = COALESCE( \
             (answer ->> 'body')::json ->> 'blog_id', (answer ->> 'body')::json ->> 'id')::uuid \
             WHERE answer IS NOT NULL"
        }
        _ => {
            "UPDATE idempotency_keys SET post_id = unhex(replace(COALESCE( \
             json_extract(json_extract(answer, '$.body'), '$.blog_id'), \
             json_extract(json_extract(answer, '$.body'), '$.id')), '-', '')) \
             WHERE answer IS NOT NULL"
        }
    };
    execute(manager, present).await?;
    execute(
        manager,
        // In the order in which several are locked.
        "CREATE INDEX idempotency_keys_by_post ON idempotency_keys (post_id, user_id, key)",
    )
    .await
}

/// One row: the latest time at which the clock was believed when something old was
/// removed, and how often since then it was not.
async fn create_cleanup_clock(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("cleanup_clock")
                .col(integer("id").primary_key())
                .col(timestamp_with_time_zone_null("trusted_at"))
                .col(integer("doubts"))
                .col(timestamp_with_time_zone_null("doubted_at"))
                .to_owned(),
        )
        .await?;
    execute(
        manager,
        "INSERT INTO cleanup_clock (id, doubts) VALUES (1, 0)",
    )
    .await
}

/// Made anew: some databases have had it without the id since migration 3.
async fn index_unfinished_jobs(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    for sql in [
        "DROP INDEX IF EXISTS generation_jobs_unfinished_by_user",
        "CREATE INDEX generation_jobs_unfinished_by_user ON generation_jobs (user_id, id) \
         WHERE status IN ('queued', 'running', 'canceling')",
    ] {
        execute(manager, sql).await?;
    }
    Ok(())
}

async fn execute(manager: &SchemaManager<'_>, sql: &'static str) -> Result<(), DbErr> {
    manager.get_connection().execute_unprepared(sql).await?;
    Ok(())
}
