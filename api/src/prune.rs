//! Forgetting sign-ins that are over, and answers that are kept no longer.

use std::time::Duration;

use chrono::TimeDelta;
use entity::clock::now;
use entity::{audit, idempotency, login_delay, refresh_token, session};
use futures_util::FutureExt;
use shared::database::Database;
use shared::prune::{Rounds, in_steps};
use shared::queue;

/// For so long a client whose session has ended is told that it has.
const ENDED_SESSIONS: Duration = Duration::from_secs(24 * 3600);

/// For so long the audit trail tells what was done.
const AUDIT_TRAIL: Duration = Duration::from_secs(400 * 24 * 3600);

/// Prunes now and then, for ever. A refresh token is good for `token_ttl`.
pub async fn regularly(db: Database, token_ttl: Duration) {
    let mut rounds = Rounds::new(db.clone());
    loop {
        rounds.next().await;
        once(&db, token_ttl).await;
    }
}

/// Removes all that is old.
pub async fn once(db: &Database, token_ttl: Duration) {
    let ago = |age: Duration| now() - TimeDelta::from_std(age).unwrap_or(TimeDelta::MAX);
    let ended = ago(ENDED_SESSIONS);
    in_steps(db, "sessions", move |tx, limit| {
        session::Entity::forget_ended(tx, ended, limit).boxed()
    })
    .await;
    // A spent token must be recognised for as long as it would have been good.
    let spent = ago(token_ttl);
    in_steps(db, "refresh tokens", move |tx, limit| {
        refresh_token::Entity::forget_spent(tx, spent, limit).boxed()
    })
    .await;
    in_steps(db, "login delays", |tx, limit| {
        login_delay::Entity::forget_old(tx, limit).boxed()
    })
    .await;
    let untold = ago(AUDIT_TRAIL);
    in_steps(db, "audit events", move |tx, limit| {
        audit::Entity::forget_old(tx, untold, limit).boxed()
    })
    .await;
    in_steps(db, "jobs of disabled users", |tx, limit| {
        queue::cancel_next_of_disabled(tx, limit).boxed()
    })
    .await;
    in_steps(db, "idempotency keys", |tx, limit| {
        idempotency::Entity::forget_expired(tx, limit).boxed()
    })
    .await;
}
