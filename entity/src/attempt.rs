//! Attempts at a job: by which worker, when, and with which outcome.

use sea_orm::entity::prelude::*;
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::Timestamp;

/// A row of `job_attempts`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "job_attempts")]
pub struct Model {
    /// A UUIDv7, which fences the attempt: see `shared::queue`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The job that was attempted.
    pub job_id: Uuid,
    /// The number of the attempt, from 1. A released one does not count: the next has the same
    /// number.
    pub attempt: i32,
    /// The worker's name.
    pub worker: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How it ended; null while it runs.
    pub outcome: Option<Outcome>,
    /// The API's code of its error, if it had one.
    pub error_code: Option<String>,
    /// The error's message for the user.
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
    /// The post was stored, or the outline that its owner is to review.
    Succeeded,
    /// The attempt failed with an error.
    Failed,
    /// The job was canceled.
    Canceled,
    /// The worker was shutting down, and released the job.
    Released,
    /// The lease expired, and the job was rescued.
    Lost,
}

impl ActiveModelBehavior for ActiveModel {}
