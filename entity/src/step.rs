//! Checkpoints: the finished steps of a job, so that no agent call is paid for
//! twice.

use sea_orm::entity::prelude::*;

use crate::clock::Timestamp;

/// A row of `job_steps`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "job_steps")]
pub struct Model {
    /// The job.
    #[sea_orm(primary_key, auto_increment = false)]
    pub job_id: Uuid,
    /// 0 is the outline, and n the nth section.
    #[sea_orm(primary_key, auto_increment = false)]
    pub position: i32,
    /// What the step brought, cleaned, as Markdown.
    pub content: String,
    /// When it was finished.
    pub created_at: Timestamp,
}

impl ActiveModelBehavior for ActiveModel {}

impl Entity {
    /// A job's finished steps in their order.
    pub fn of_job(job: Uuid) -> Select<Entity> {
        use sea_orm::QueryOrder;
        Entity::find()
            .filter(Column::JobId.eq(job))
            .order_by_asc(Column::Position)
    }
}
