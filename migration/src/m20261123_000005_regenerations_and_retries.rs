use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{json, timestamp_with_time_zone_null};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// So that the column is never there without what belongs into it.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        keep_options_with_posts(manager).await?;
        tell_retries(manager).await?;
        execute(
            manager,
            "CREATE INDEX blog_posts_by_user_status_and_change \
             ON blog_posts (user_id, status, updated_at, id)",
        )
        .await
    }
}

/// Jobs are forgotten, and their posts are not.
async fn keep_options_with_posts(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let alter = Table::alter()
        .table("blog_posts")
        .add_column(json("options").default("{}"))
        .to_owned();
    manager.alter_table(alter).await?;
    execute(
        manager,
        "UPDATE blog_posts SET options = (SELECT options FROM generation_jobs \
         WHERE post_id = blog_posts.id ORDER BY id DESC LIMIT 1) \
         WHERE id IN (SELECT post_id FROM generation_jobs)",
    )
    .await
}

/// From when on a job's times are measured, if it was tried again by hand.
async fn tell_retries(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let alter = Table::alter()
        .table("generation_jobs")
        .add_column(timestamp_with_time_zone_null("retried_at"))
        .to_owned();
    manager.alter_table(alter).await
}

async fn execute(manager: &SchemaManager<'_>, sql: &'static str) -> Result<(), DbErr> {
    manager.get_connection().execute_unprepared(sql).await?;
    Ok(())
}
