use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{integer, string, text, uuid};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// What happened to each job, for those who watch it. The first event, that it is queued,
    /// has no row.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let alter = Table::alter()
            .table("generation_jobs")
            .add_column(integer("last_event").default(1))
            .to_owned();
        manager.alter_table(alter).await?;
        let mut job = ForeignKey::create();
        job.from("job_events", "job_id")
            .to("generation_jobs", "id")
            .on_delete(ForeignKeyAction::Cascade);
        let events = Table::create()
            .table("job_events")
            .col(uuid("job_id"))
            .col(integer("seq"))
            .col(string("kind"))
            .col(text("data"))
            .primary_key(Index::create().col("job_id").col("seq"))
            .foreign_key(&mut job)
            .to_owned();
        manager.create_table(events).await?;
        // The finished jobs whose events are to be compacted.
        let index = "CREATE INDEX job_events_ends ON job_events (job_id) WHERE kind = 'end'";
        manager.get_connection().execute_unprepared(index).await?;
        Ok(())
    }
}
