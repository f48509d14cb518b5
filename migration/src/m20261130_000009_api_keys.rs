use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    string, string_uniq, timestamp_with_time_zone, timestamp_with_time_zone_null, uuid,
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// Keys with which programs act for users.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut user = ForeignKey::create();
        user.from("api_keys", "user_id")
            .to("users", "id")
            .on_delete(ForeignKeyAction::Cascade);
        let keys = Table::create()
            .table("api_keys")
            .col(uuid("id").primary_key())
            .col(uuid("user_id"))
            .col(string("name"))
            .col(string("prefix"))
            .col(string_uniq("hash"))
            .col(string("scopes"))
            .col(timestamp_with_time_zone("created_at"))
            .col(timestamp_with_time_zone_null("last_used_at"))
            .col(timestamp_with_time_zone_null("expires_at"))
            .foreign_key(&mut user)
            .to_owned();
        manager.create_table(keys).await?;
        let index = "CREATE INDEX api_keys_by_user ON api_keys (user_id, id)";
        manager.get_connection().execute_unprepared(index).await?;
        Ok(())
    }
}
