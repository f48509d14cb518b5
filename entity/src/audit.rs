//! The audit trail. Rows are inserted, and deleted when they are old; they are never changed.

use sea_orm::entity::prelude::*;
use sea_orm::{QuerySelect, Set};
use serde::Serialize;
use utoipa::ToSchema;

use crate::batch_delete::delete_selected;
use crate::clock::{Timestamp, new_id, now};
use crate::user;

/// A row of `audit_events`. It has users' names as they were at the time, for the users may be
/// deleted.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_events")]
pub struct Model {
    /// UUIDv7, so that ids sort by age.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub action: Action,
    /// The user who did it; null for the command line, and for a client who is not logged in.
    pub actor_id: Option<Uuid>,
    /// The actor's name.
    pub actor: Option<String>,
    /// The user to whom it was done, if there is one.
    pub subject_id: Option<Uuid>,
    /// The subject's name.
    pub subject: Option<String>,
    /// The client's IP address.
    pub address: Option<String>,
    /// The request's id, as in logs.
    pub request_id: Option<String>,
    /// See [`AuditEvent::details`].
    pub details: Option<Json>,
}

/// An action in the audit trail. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, ToSchema)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::None)",
    rename_all = "snake_case"
)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditAction)]
pub enum Action {
    /// A login failed by a wrong password or an unknown name.
    LoginFailed,
    /// A refresh token was used twice, and its session was ended.
    RefreshTokenReused,
    /// A user changed their password.
    PasswordChanged,
    /// A user deleted their account.
    AccountDeleted,
    /// A user made an API key.
    ApiKeyCreated,
    /// A user revoked an API key.
    ApiKeyRevoked,
    /// A user became an admin, or is one no longer.
    RoleChanged,
    /// A user was disabled.
    UserDisabled,
    /// A user was enabled again.
    UserEnabled,
    /// An admin canceled a user's job.
    JobCanceled,
    /// An admin retried a user's job.
    JobRetried,
    /// An admin canceled or retried all jobs that match a filter.
    JobsBulkChanged,
    /// The queue was paused.
    QueuePaused,
    /// The queue was resumed.
    QueueResumed,
}

impl ActiveModelBehavior for ActiveModel {}

/// A user's id, and name at the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRef {
    /// The id.
    pub id: Uuid,
    /// The name.
    pub name: String,
}

impl From<&user::Model> for UserRef {
    fn from(user: &user::Model) -> Self {
        UserRef {
            id: user.id,
            name: user.username.clone(),
        }
    }
}

/// The request that did something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestMetadata {
    /// The client's IP address.
    pub address: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
}

/// An event to insert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// What happened.
    pub action: Action,
    /// The user who did it, if known.
    pub actor: Option<UserRef>,
    /// The user to whom it was done, if there is one.
    pub subject: Option<UserRef>,
    /// The request.
    pub source: RequestMetadata,
    /// More about the event, without passwords and tokens, and without names of no user: what was
    /// typed there may be a password.
    pub details: Option<Json>,
}

impl AuditEvent {
    /// Inserts the event, in the transaction that it is about: both are committed or neither.
    pub async fn insert(self, tx: &impl ConnectionTrait) -> Result<(), DbErr> {
        let parts = |user: Option<UserRef>| user.map(|user| (user.id, user.name)).unzip();
        let (actor_id, actor) = parts(self.actor);
        let (subject_id, subject) = parts(self.subject);
        let row = ActiveModel {
            id: Set(new_id()),
            at: Set(now()),
            action: Set(self.action),
            actor_id: Set(actor_id),
            actor: Set(actor),
            subject_id: Set(subject_id),
            subject: Set(subject),
            address: Set(self.source.address),
            request_id: Set(self.source.request_id),
            details: Set(self.details),
        };
        Entity::insert(row).exec_without_returning(tx).await?;
        Ok(())
    }
}

impl Entity {
    /// Deletes up to `limit` events from before `before`, and returns how many.
    pub async fn delete_old(
        db: &impl ConnectionTrait,
        before: Timestamp,
        limit: u64,
    ) -> Result<u64, DbErr> {
        let old = Entity::find().filter(Column::At.lt(before)).limit(limit);
        let delete = delete_selected(old, Column::Id);
        Ok(delete.exec(db).await?.rows_affected)
    }
}
