//! Who did what to whom, when and from where. Rows are added, and forgotten when
//! they are old; nothing changes one.

use sea_orm::entity::prelude::*;
use sea_orm::{QuerySelect, QueryTrait, Set};
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::{Timestamp, new_id, now};
use crate::user;

/// A row of `audit_events`. It names people as they were called at the time, for
/// they may be gone.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_events")]
pub struct Model {
    /// UUIDv7, so that ids sort by age.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// When.
    pub at: Timestamp,
    /// What.
    pub action: Action,
    /// Who did it; null for the command line, and for who did not sign in.
    pub actor_id: Option<Uuid>,
    /// Their name.
    pub actor: Option<String>,
    /// The user whom it was done to, if it was one.
    pub subject_id: Option<Uuid>,
    /// Their name.
    pub subject: Option<String>,
    /// From where.
    pub address: Option<String>,
    /// The request's id, as logs have it.
    pub request_id: Option<String>,
    /// What else there is to say. Neither passwords nor tokens.
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
    /// A wrong password, for a user or for nobody.
    LoginFailed,
    /// A refresh token came a second time, and its session was ended.
    RefreshTokenReused,
    /// A user has set a new password.
    PasswordChanged,
    /// A user is gone, by their own will.
    AccountDeleted,
    /// A user has become an admin, or is one no longer.
    RoleChanged,
    /// A user is kept out.
    UserDisabled,
    /// A user is let in again.
    UserEnabled,
    /// An admin called off a user's job.
    JobCanceled,
    /// An admin had a user's job tried again.
    JobRetried,
    /// An admin called off, or had tried again, all jobs that a filter matched.
    JobsBulkChanged,
    /// Workers were told to take no more jobs.
    QueuePaused,
    /// Workers were told to take jobs again.
    QueueResumed,
}

impl ActiveModelBehavior for ActiveModel {}

/// A user, as they were called at the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRef {
    /// Their id.
    pub id: Uuid,
    /// Their name.
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

/// From where something was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestMetadata {
    /// The client's address.
    pub address: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
}

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// What.
    pub action: Action,
    /// By whom, if they are known.
    pub actor: Option<UserRef>,
    /// To whom, if it was a user.
    pub subject: Option<UserRef>,
    /// From where.
    pub source: RequestMetadata,
    /// What else there is to say. Neither passwords nor tokens, nor what was
    /// typed as a name and is none: it may have been meant as a password.
    pub details: Option<Json>,
}

impl AuditEvent {
    /// Writes it down, in the transaction of what it tells of: the two are
    /// committed together or not at all.
    pub async fn insert(self, tx: &impl ConnectionTrait) -> Result<(), DbErr> {
        let parts = |who: Option<UserRef>| who.map(|who| (who.id, who.name)).unzip();
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
    /// Removes up to `limit` events from before `before`, and says how many.
    pub async fn delete_old(
        db: &impl ConnectionTrait,
        before: Timestamp,
        limit: u64,
    ) -> Result<u64, DbErr> {
        let old = Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::At.lt(before))
            .limit(limit)
            .into_query();
        let removed = Entity::delete_many()
            .filter(Column::Id.in_subquery(old))
            .exec(db)
            .await?;
        Ok(removed.rows_affected)
    }
}
