//! Attempts at a job: who tried, when, and how it ended.

use sea_orm::entity::prelude::*;
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::Timestamp;

/// A row of `job_attempts`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "job_attempts")]
pub struct Model {
    /// UUIDv7. It fences the attempt: see `shared::queue`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The job that was attempted.
    pub job_id: Uuid,
    /// Which attempt it was, from 1. One that was released does not count, so
    /// the next has the same number.
    pub attempt: i32,
    /// The worker's name.
    pub worker: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How it ended; null while it runs.
    pub outcome: Option<Outcome>,
    /// The contract's error code, where it went wrong.
    pub error_code: Option<String>,
    /// The error in words fit for a user.
    pub error_message: Option<String>,
    /// Whether another attempt could help.
    pub error_retryable: Option<bool>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, ToSchema)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::None)",
    rename_all = "snake_case"
)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The post was stored.
    Succeeded,
    /// An error; what follows is up to the job.
    Failed,
    /// The owner called it off.
    Canceled,
    /// The worker stopped and gave the job back.
    Released,
    /// The worker was not heard of any more.
    Lost,
}

impl ActiveModelBehavior for ActiveModel {}
