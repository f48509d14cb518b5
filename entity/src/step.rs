//! Checkpoints: the finished steps of a job, so that a retry repeats no agent call.

use sea_orm::QueryOrder;
use sea_orm::entity::prelude::*;

use crate::clock::Timestamp;

/// A row of `job_steps`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "job_steps")]
pub struct Model {
    /// The job that the step is of.
    #[sea_orm(primary_key, auto_increment = false)]
    pub job_id: Uuid,
    /// The step's position, whose meaning depends on the writing pipeline.
    #[sea_orm(primary_key, auto_increment = false)]
    pub position: i32,
    /// The step's cleaned text.
    pub content: String,
    /// When the step was finished.
    pub created_at: Timestamp,
}

impl ActiveModelBehavior for ActiveModel {}

impl Entity {
    /// A job's finished steps, by position.
    pub fn of_job(job: Uuid) -> Select<Entity> {
        Entity::find()
            .filter(Column::JobId.eq(job))
            .order_by_asc(Column::Position)
    }
}
