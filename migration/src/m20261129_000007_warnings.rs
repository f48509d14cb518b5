use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::text_null;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// What was cut from the model's answers, as a JSON array.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let alter = Table::alter()
            .table("generation_jobs")
            .add_column(text_null("warnings"))
            .to_owned();
        manager.alter_table(alter).await
    }
}
