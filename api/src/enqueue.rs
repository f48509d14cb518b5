//! Putting jobs into the queue, with their deliveries.

use std::time::Duration;

use entity::job;
use entity::job::lifecycle::{self, NewJob, Origin, Room};
use sea_orm::DatabaseTransaction;
use shared::queue::{self, Payload};

use crate::error::{Error, Result, is_duplicate};

/// Makes a job and puts it into the queue, in the caller's transaction, for a
/// user who may have `most` that are unfinished.
///
/// # Errors
/// When the post is being generated, the user may have no more, or the database
/// does not answer.
pub async fn job(tx: &DatabaseTransaction, new: NewJob, most: u32) -> Result<job::Model> {
    has_room(lifecycle::room(tx, new.user, most).await?)?;
    let delivery = queue::delivery_id(Duration::ZERO);
    let job = match lifecycle::create(tx, new, &delivery).await {
        Err(e) if is_duplicate(&e) => return Err(Error::GenerationInProgress),
        created => created?,
    };
    queue::push(tx, &delivery, Payload::next(&job), Duration::ZERO).await?;
    Ok(job)
}

/// Puts a job into the queue again that the caller holds, with its owner's `room`.
///
/// # Errors
/// When it can't be tried again, the owner may have no more, or the database does
/// not answer.
pub async fn again(
    tx: &DatabaseTransaction,
    before: job::Model,
    room: Room,
    attempts: i32,
    origin: Origin,
) -> Result<job::Model> {
    let latest = job::Entity::of_post(before.post_id).one(tx).await?;
    match latest.filter(|latest| latest.id != before.id) {
        Some(latest) if latest.status.is_over() => return Err(Error::JobFinished),
        Some(_) => return Err(Error::GenerationInProgress),
        None => has_room(room)?,
    }
    let delivery = queue::delivery_id(Duration::ZERO);
    let job = match lifecycle::requeue(tx, &before, attempts, origin, &delivery).await {
        Ok(Some(job)) => job,
        Ok(None) if before.status == job::Status::Succeeded => return Err(Error::JobFinished),
        Ok(None) => return Err(Error::GenerationInProgress),
        // Another job of the same post is unfinished.
        Err(e) if is_duplicate(&e) => return Err(Error::GenerationInProgress),
        Err(e) => return Err(e.into()),
    };
    queue::push(tx, &delivery, Payload::next(&job), Duration::ZERO).await?;
    Ok(job)
}

fn has_room(room: Room) -> Result<()> {
    match room {
        Room::Free => Ok(()),
        Room::Full => Err(Error::QuotaExceeded),
        Room::Disabled => Err(Error::AccountDisabled),
    }
}
