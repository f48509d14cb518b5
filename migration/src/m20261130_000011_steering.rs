use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{boolean, integer, json_null, string_null, text_null};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// Jobs whose outline is reviewed before they write, that write one section alone, and whose
    /// text is kept when they are canceled. One that awaits its review is unfinished, too.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in [
            string_null("review"),
            text_null("outline"),
            integer("outline_version").default(0).take(),
            json_null("section"),
            boolean("keep_text").default(false).take(),
        ] {
            let alter = Table::alter()
                .table("generation_jobs")
                .add_column(column)
                .to_owned();
            manager.alter_table(alter).await?;
        }
        for sql in [
            "DROP INDEX generation_jobs_unfinished_of_post",
            "CREATE UNIQUE INDEX generation_jobs_unfinished_of_post ON generation_jobs (post_id) \
             WHERE status IN ('queued', 'running', 'canceling', 'awaiting_review')",
            "DROP INDEX generation_jobs_unfinished_by_user",
            "CREATE INDEX generation_jobs_unfinished_by_user ON generation_jobs (user_id, id) \
             WHERE status IN ('queued', 'running', 'canceling', 'awaiting_review')",
        ] {
            manager.get_connection().execute_unprepared(sql).await?;
        }
        Ok(())
    }
}
