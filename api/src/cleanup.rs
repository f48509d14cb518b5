//! Deletes expired sessions, tokens, audit events and idempotency keys.

use std::time::Duration;

use chrono::TimeDelta;
use entity::clock::now;
use entity::{audit, idempotency, login_throttle, refresh_token, session};
use futures_util::FutureExt;
use shared::cleanup::{CleanupSchedule, delete_in_batches};
use shared::database::Database;
use shared::queue;

/// How long a client is told that its session has ended.
const ENDED_SESSION_TTL: Duration = Duration::from_secs(24 * 3600);

/// How long audit events are kept.
const AUDIT_TTL: Duration = Duration::from_secs(400 * 24 * 3600);

/// Runs for ever. A refresh token is valid for `token_ttl`.
pub async fn run_periodically(db: Database, token_ttl: Duration) {
    let mut rounds = CleanupSchedule::new(db.clone());
    loop {
        rounds.next_round().await;
        run_once(&db, token_ttl).await;
    }
}

/// Deletes everything that has expired.
pub async fn run_once(db: &Database, token_ttl: Duration) {
    let ago = |age: Duration| now() - TimeDelta::from_std(age).unwrap_or(TimeDelta::MAX);
    let ended = ago(ENDED_SESSION_TTL);
    delete_in_batches(db, "sessions", move |tx, limit| {
        session::Entity::delete_ended(tx, ended, limit).boxed()
    })
    .await;
    // A spent token must be recognised for as long as it would have been valid.
    let spent = ago(token_ttl);
    delete_in_batches(db, "refresh tokens", move |tx, limit| {
        refresh_token::Entity::delete_consumed(tx, spent, limit).boxed()
    })
    .await;
    delete_in_batches(db, "login delays", |tx, limit| {
        login_throttle::Entity::delete_expired(tx, limit).boxed()
    })
    .await;
    let expired = ago(AUDIT_TTL);
    delete_in_batches(db, "audit events", move |tx, limit| {
        audit::Entity::delete_old(tx, expired, limit).boxed()
    })
    .await;
    delete_in_batches(db, "jobs of disabled users", |tx, limit| {
        queue::cancel_next_of_disabled(tx, limit).boxed()
    })
    .await;
    delete_in_batches(db, "idempotency keys", |tx, limit| {
        idempotency::Entity::delete_expired(tx, limit).boxed()
    })
    .await;
}
