use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    boolean, integer, integer_null, json_null, string, string_null, text, text_null,
    timestamp_with_time_zone, timestamp_with_time_zone_null, uuid,
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// Earlier texts of posts. The present one stays with its post, which now says who wrote it; null
    /// where that is not known.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in [
            integer_null("text_version"),
            string_null("text_author"),
            string_null("text_model"),
            json_null("text_options"),
            timestamp_with_time_zone_null("text_at"),
        ] {
            add_column(manager, "blog_posts", column).await?;
        }
        let present = "UPDATE blog_posts SET text_version = version WHERE content IS NOT NULL";
        manager.get_connection().execute_unprepared(present).await?;
        for column in [
            integer_null("base_version"),
            boolean("superseded").default(false).take(),
        ] {
            add_column(manager, "generation_jobs", column).await?;
        }
        let mut post = ForeignKey::create();
        post.from("post_revisions", "post_id")
            .to("blog_posts", "id")
            .on_delete(ForeignKeyAction::Cascade);
        let revisions = Table::create()
            .table("post_revisions")
            .col(uuid("post_id"))
            .col(integer("version"))
            .col(uuid("user_id"))
            .col(text_null("title"))
            .col(text("content"))
            .col(integer("word_count"))
            .col(integer("bytes"))
            .col(string("author"))
            .col(string_null("model"))
            .col(json_null("options"))
            .col(timestamp_with_time_zone("created_at"))
            .primary_key(Index::create().col("post_id").col("version"))
            .foreign_key(&mut post)
            .to_owned();
        manager.create_table(revisions).await?;
        // How much text a user has, and which is the oldest.
        let index =
            "CREATE INDEX post_revisions_by_user ON post_revisions (user_id, created_at, bytes)";
        manager.get_connection().execute_unprepared(index).await?;
        Ok(())
    }
}

/// SQLite adds one column in a statement.
async fn add_column(
    manager: &SchemaManager<'_>,
    table: &'static str,
    column: ColumnDef,
) -> Result<(), DbErr> {
    let alter = Table::alter().table(table).add_column(column).to_owned();
    manager.alter_table(alter).await
}
