use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    boolean_null, integer, json, pk_uuid, string, string_null, text, text_null,
    timestamp_with_time_zone, timestamp_with_time_zone_null, uuid, uuid_null,
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create_posts(manager).await?;
        create_jobs(manager).await?;
        create_attempts(manager).await?;
        create_steps(manager).await
    }
}

async fn create_posts(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("blog_posts")
                .col(pk_uuid("id"))
                .col(uuid("user_id"))
                .col(text("topic"))
                .col(text_null("title"))
                .col(text_null("content"))
                .col(text_null("excerpt"))
                .col(integer("word_count"))
                .col(string("status"))
                .col(integer("version"))
                .col(timestamp_with_time_zone("created_at"))
                .col(timestamp_with_time_zone("updated_at"))
                .foreign_key(&mut belongs_to("blog_posts", "user_id", "users"))
                .to_owned(),
        )
        .await?;
    for index in [
        "CREATE INDEX blog_posts_by_user ON blog_posts (user_id, id)",
        "CREATE INDEX blog_posts_by_user_and_status ON blog_posts (user_id, status, id)",
        "CREATE INDEX blog_posts_by_user_and_change ON blog_posts (user_id, updated_at, id)",
    ] {
        execute(manager, index).await?;
    }
    Ok(())
}

async fn create_jobs(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("generation_jobs")
                .col(pk_uuid("id"))
                .col(uuid("post_id"))
                .col(uuid("user_id"))
                .col(string("status"))
                .col(string_null("phase"))
                .col(integer("percent"))
                .col(integer("words"))
                .col(json("options"))
                .col(string("model"))
                .col(integer("attempt"))
                .col(integer("max_attempts"))
                .col(uuid_null("attempt_id"))
                .col(timestamp_with_time_zone_null("lease_until"))
                .col(string_null("delivery_id"))
                .col(timestamp_with_time_zone_null("next_attempt_at"))
                .col(integer("input_tokens"))
                .col(integer("output_tokens"))
                .col(string_null("error_code"))
                .col(text_null("error_message"))
                .col(boolean_null("error_retryable"))
                .col(timestamp_with_time_zone("created_at"))
                .col(timestamp_with_time_zone_null("started_at"))
                .col(timestamp_with_time_zone_null("finished_at"))
                .foreign_key(&mut belongs_to("generation_jobs", "post_id", "blog_posts"))
                .foreign_key(&mut belongs_to("generation_jobs", "user_id", "users"))
                .to_owned(),
        )
        .await?;
    for index in [
        "CREATE INDEX generation_jobs_by_post ON generation_jobs (post_id, id)",
        "CREATE INDEX generation_jobs_by_user ON generation_jobs (user_id, id)",
        "CREATE INDEX generation_jobs_by_user_and_status ON generation_jobs (user_id, status, id)",
        // The queue in its order, for positions and for the sweep.
        "CREATE INDEX generation_jobs_queued ON generation_jobs (delivery_id) \
         WHERE status = 'queued'",
        // What the sweep looks for.
        "CREATE INDEX generation_jobs_leased ON generation_jobs (lease_until) \
         WHERE status IN ('running', 'canceling')",
        // A post is never written by two jobs at once.
        "CREATE UNIQUE INDEX generation_jobs_unfinished_of_post ON generation_jobs (post_id) \
         WHERE status IN ('queued', 'running', 'canceling')",
    ] {
        execute(manager, index).await?;
    }
    Ok(())
}

async fn create_attempts(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("job_attempts")
                .col(pk_uuid("id"))
                .col(uuid("job_id"))
                .col(integer("attempt"))
                .col(string("worker"))
                .col(timestamp_with_time_zone("started_at"))
                .col(timestamp_with_time_zone_null("finished_at"))
                .col(string_null("outcome"))
                .col(string_null("error_code"))
                .col(text_null("error_message"))
                .col(boolean_null("error_retryable"))
                .foreign_key(&mut belongs_to("job_attempts", "job_id", "generation_jobs"))
                .to_owned(),
        )
        .await?;
    execute(
        manager,
        "CREATE INDEX job_attempts_by_job ON job_attempts (job_id, id)",
    )
    .await
}

async fn create_steps(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("job_steps")
                .col(uuid("job_id"))
                .col(integer("position"))
                .col(text("content"))
                .col(timestamp_with_time_zone("created_at"))
                .primary_key(Index::create().col("job_id").col("position"))
                .foreign_key(&mut belongs_to("job_steps", "job_id", "generation_jobs"))
                .to_owned(),
        )
        .await
}

/// Both databases read these the same, and the builder has no partial indexes
/// that both do.
async fn execute(manager: &SchemaManager<'_>, sql: &'static str) -> Result<(), DbErr> {
    manager.get_connection().execute_unprepared(sql).await?;
    Ok(())
}

/// A foreign key on the other table's `id`; rows go with what they belong to.
fn belongs_to(
    table: &'static str,
    column: &'static str,
    other: &'static str,
) -> ForeignKeyCreateStatement {
    ForeignKey::create()
        .from(table, column)
        .to(other, "id")
        .on_delete(ForeignKeyAction::Cascade)
        .to_owned()
}
