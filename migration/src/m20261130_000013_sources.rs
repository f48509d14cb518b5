use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    integer, json_null, string_null, text_null, timestamp_with_time_zone_null, uuid,
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// What posts are to be written from, and how their citations hold against it.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sources = Table::create()
            .table("post_sources")
            .col(uuid("post_id"))
            .col(integer("number"))
            .col(uuid("user_id"))
            .col(text_null("url"))
            .col(text_null("found_by"))
            .col(text_null("title"))
            .col(text_null("site"))
            .col(text_null("author"))
            .col(string_null("published_at"))
            .col(timestamp_with_time_zone_null("fetched_at"))
            .col(string_null("status"))
            .col(text_null("text"))
            .col(integer("bytes"))
            .primary_key(Index::create().col("post_id").col("number"))
            .foreign_key(
                ForeignKey::create()
                    .from("post_sources", "post_id")
                    .to("blog_posts", "id")
                    .on_delete(ForeignKeyAction::Cascade),
            )
            .to_owned();
        manager.create_table(sources).await?;
        let grounding = Table::alter()
            .table("blog_posts")
            .add_column(json_null("text_grounding"))
            .to_owned();
        manager.alter_table(grounding).await?;
        let sql = "CREATE INDEX post_sources_by_user ON post_sources (user_id, bytes)";
        manager.get_connection().execute_unprepared(sql).await?;
        Ok(())
    }
}
