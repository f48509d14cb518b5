//! Calling jobs off, with their deliveries.

use entity::job::lifecycle::{self, Cancel};
use entity::{job, user};
use futures_util::FutureExt;
use sea_orm::{DatabaseTransaction, DbErr};
use shared::queue;
use uuid::Uuid;

use crate::AppState;

/// How many jobs are called off in one transaction, so that nobody has to wait
/// long for it.
pub const BATCH: u64 = 200;

/// Calls off a job: at once if it is queued, otherwise by asking its worker to
/// stop. None if it was over already.
pub async fn job(tx: &DatabaseTransaction, id: Uuid) -> Result<Option<job::Model>, DbErr> {
    let called_off = jobs(tx, &[id]).await?;
    Ok(called_off.into_iter().next())
}

/// Calls off jobs, and returns those that were not over already. Who calls off
/// several holds them: a worker that holds one of them may be about to put back
/// the delivery of another.
pub async fn jobs(tx: &DatabaseTransaction, ids: &[Uuid]) -> Result<Vec<job::Model>, DbErr> {
    let (mut called_off, mut deliveries) = (Vec::new(), Vec::new());
    for id in ids {
        match lifecycle::cancel(tx, *id).await? {
            Cancel::Canceled(job) => {
                deliveries.extend(job.delivery_id.clone());
                called_off.push(job);
            }
            Cancel::Canceling(job) => called_off.push(job),
            Cancel::TooLate => {}
        }
    }
    queue::take_all(tx, deliveries).await?;
    Ok(called_off)
}

/// Calls off up to `limit` jobs of a user, and returns them. The caller holds
/// the user's row.
pub async fn some_of(
    tx: &DatabaseTransaction,
    user: Uuid,
    limit: u64,
) -> Result<Vec<job::Model>, DbErr> {
    let held = lifecycle::hold_jobs(tx, user, limit).await?;
    jobs(tx, &held).await
}

/// Calls off what is left of the jobs of a disabled user, batch by batch. Should
/// this break off, [`left_over`] goes on with it.
pub async fn rest_of_disabled(state: &AppState, user: Uuid) -> Result<(), DbErr> {
    loop {
        let canceled = state
            .db
            .transact(move |tx| some_of_disabled(tx, user, BATCH).boxed())
            .await?;
        canceled.iter().for_each(|job| state.metrics.canceled(job));
        if canceled.is_empty() {
            return Ok(());
        }
    }
}

/// Calls off up to `limit` jobs that a disabled user has left all the same, and
/// says how many: the API that was to do so may have died.
pub async fn left_over(tx: &DatabaseTransaction, limit: u64) -> Result<u64, DbErr> {
    let Some(user) = lifecycle::disabled_with_jobs(tx).await? else {
        return Ok(0);
    };
    let canceled = some_of_disabled(tx, user, limit).await?;
    Ok(canceled.len() as u64)
}

async fn some_of_disabled(
    tx: &DatabaseTransaction,
    user: Uuid,
    limit: u64,
) -> Result<Vec<job::Model>, DbErr> {
    match user::Entity::hold(tx, user).await? {
        Some(user) if user.disabled_at.is_some() => some_of(tx, user.id, limit).await,
        // Enabled again meanwhile, or gone.
        _ => Ok(Vec::new()),
    }
}
