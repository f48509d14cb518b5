use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    integer, json_null, pk_uuid, string, string_null, timestamp_with_time_zone,
    timestamp_with_time_zone_null, uuid_null,
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        index_admins_and_the_disabled(manager).await?;
        create_audit_events(manager).await?;
        create_login_delays(manager).await?;
        create_workers(manager).await?;
        create_queue_state(manager).await?;
        index_what_admins_look_for(manager).await
    }
}

/// Both are few among all users.
async fn index_admins_and_the_disabled(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    for sql in [
        "CREATE INDEX users_admins ON users (id) WHERE role = 'admin'",
        "CREATE INDEX users_disabled ON users (id) WHERE disabled_at IS NOT NULL",
    ] {
        execute(manager, sql).await?;
    }
    Ok(())
}

/// Without foreign keys: what was done is remembered of those who are gone.
async fn create_audit_events(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("audit_events")
                .col(pk_uuid("id"))
                .col(timestamp_with_time_zone("at"))
                .col(string("action"))
                .col(uuid_null("actor_id"))
                .col(string_null("actor"))
                .col(uuid_null("subject_id"))
                .col(string_null("subject"))
                .col(string_null("address"))
                .col(string_null("request_id"))
                .col(json_null("details"))
                .to_owned(),
        )
        .await?;
    execute(
        manager,
        "CREATE INDEX audit_events_by_age ON audit_events (at)",
    )
    .await
}

/// How long the next sign-in to an account, or from an address, has to wait, and
/// when that is of no more use.
async fn create_login_delays(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("login_delays")
                .col(string("key").primary_key())
                .col(integer("failures"))
                .col(timestamp_with_time_zone_null("open_at"))
                .col(timestamp_with_time_zone("forget_at"))
                .to_owned(),
        )
        .await?;
    execute(
        manager,
        "CREATE INDEX login_delays_by_age ON login_delays (forget_at)",
    )
    .await
}

/// The queue has a table of workers of its own.
async fn create_workers(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("job_workers")
                .col(string("name").primary_key())
                .col(string("host"))
                .col(string("version"))
                .col(string("agent"))
                .col(string("model"))
                .col(integer("concurrency"))
                .col(timestamp_with_time_zone("started_at"))
                .col(timestamp_with_time_zone("seen_at"))
                .to_owned(),
        )
        .await?;
    execute(
        manager,
        "CREATE INDEX job_workers_by_age ON job_workers (seen_at)",
    )
    .await
}

/// One row, which says whether workers are to take jobs.
async fn create_queue_state(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("queue_state")
                .col(integer("id").primary_key())
                .col(timestamp_with_time_zone_null("paused_at"))
                .to_owned(),
        )
        .await?;
    execute(manager, "INSERT INTO queue_state (id) VALUES (1)").await
}

/// Every user's jobs, the newest first. The id has the time in it.
async fn index_what_admins_look_for(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    for sql in [
        // Two, so that no query of the queue takes them for its own.
        "CREATE INDEX generation_jobs_not_succeeded ON generation_jobs (status, id) \
         WHERE status <> 'succeeded'",
        "CREATE INDEX generation_jobs_succeeded ON generation_jobs (status, id) \
         WHERE status = 'succeeded'",
        // In the order in which several are locked.
        "DROP INDEX generation_jobs_unfinished_by_user",
        "CREATE INDEX generation_jobs_unfinished_by_user ON generation_jobs (user_id, id) \
         WHERE status IN ('queued', 'running', 'canceling')",
        "CREATE INDEX generation_jobs_by_error ON generation_jobs (error_code, id) \
         WHERE error_code IS NOT NULL",
        "CREATE INDEX generation_jobs_by_model ON generation_jobs (model, id)",
    ] {
        execute(manager, sql).await?;
    }
    Ok(())
}

/// Both databases read these the same, and the builder has no partial indexes
/// that both do.
async fn execute(manager: &SchemaManager<'_>, sql: &'static str) -> Result<(), DbErr> {
    manager.get_connection().execute_unprepared(sql).await?;
    Ok(())
}
