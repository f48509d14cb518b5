use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    json_null, string, string_null, timestamp_with_time_zone, timestamp_with_time_zone_null, uuid,
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        line_up_jobs(manager).await?;
        trace_jobs(manager).await?;
        create_idempotency_keys(manager).await?;
        index_live_sessions(manager).await?;
        index_what_is_pruned(manager).await
    }
}

/// Users take turns in the line of jobs.
async fn line_up_jobs(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    for sql in [
        "ALTER TABLE generation_jobs ADD COLUMN turn BIGINT NOT NULL DEFAULT 0",
        // The line in its order.
        "CREATE INDEX generation_jobs_in_line ON generation_jobs (turn, id) \
         WHERE status = 'queued' AND next_attempt_at IS NULL",
        // One user's part of it.
        "CREATE INDEX generation_jobs_in_line_by_user ON generation_jobs (user_id, turn) \
         WHERE status = 'queued' AND next_attempt_at IS NULL",
        // Who is about to join it.
        "CREATE INDEX generation_jobs_delayed ON generation_jobs (next_attempt_at) \
         WHERE status = 'queued' AND next_attempt_at IS NOT NULL",
        // What a user has under way.
        "CREATE INDEX generation_jobs_unfinished_by_user ON generation_jobs (user_id) \
         WHERE status IN ('queued', 'running', 'canceling')",
    ] {
        execute(manager, sql).await?;
    }
    Ok(())
}

/// The request that a job comes from.
async fn trace_jobs(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    for column in ["request_id", "traceparent"] {
        let column = string_null(column);
        let alter = Table::alter()
            .table("generation_jobs")
            .add_column(column)
            .to_owned();
        manager.alter_table(alter).await?;
    }
    Ok(())
}

async fn create_idempotency_keys(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("idempotency_keys")
                .col(uuid("user_id"))
                .col(string("key"))
                .col(string("fingerprint"))
                .col(json_null("answer"))
                .col(timestamp_with_time_zone("created_at"))
                .col(timestamp_with_time_zone_null("pending_until"))
                .primary_key(Index::create().col("user_id").col("key"))
                .foreign_key(&mut belongs_to("idempotency_keys", "user_id", "users"))
                .to_owned(),
        )
        .await?;
    execute(
        manager,
        "CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at)",
    )
    .await
}

/// A user's sessions, those that were used last first.
async fn index_live_sessions(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    execute(
        manager,
        "CREATE INDEX sessions_live_by_user ON sessions (user_id, last_used_at) \
         WHERE revoked_at IS NULL",
    )
    .await
}

async fn index_what_is_pruned(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    for sql in [
        "CREATE INDEX generation_jobs_finished ON generation_jobs (finished_at) \
         WHERE finished_at IS NOT NULL",
        "CREATE INDEX sessions_by_expiry ON sessions (expires_at)",
        "CREATE INDEX sessions_revoked ON sessions (revoked_at) WHERE revoked_at IS NOT NULL",
        "CREATE INDEX refresh_tokens_spent ON refresh_tokens (spent_at) \
         WHERE spent_at IS NOT NULL",
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
