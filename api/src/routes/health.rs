//! Liveness and readiness.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use shared::database::Database;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::state::AppState;

/// How long the database may take to answer.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// The service's health.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`, or `unavailable`.
    status: &'static str,
    /// What is missing.
    missing: Vec<String>,
}

/// Check liveness
#[utoipa::path(
    get, path = "/health", tag = "operation", security(()),
    responses((status = 200, body = Health)),
)]
pub(crate) async fn health() -> Json<Health> {
    Json(Health {
        status: "ok",
        missing: Vec::new(),
    })
}

/// Check readiness: the database answers, and its migrations are applied
#[utoipa::path(
    get, path = "/ready", tag = "operation", security(()),
    responses((status = 200, body = Health), (status = 503, body = Health)),
)]
pub(crate) async fn ready(State(state): State<AppState>) -> Response {
    let db = state.db.clone();
    let missing = state
        .readiness
        .get(async move { failed_checks(&db).await })
        .await;
    let missing = missing.unwrap_or_else(|| vec!["the database".to_owned()]);
    if missing.is_empty() {
        let status = "ok";
        return Json(Health { status, missing }).into_response();
    }
    let health = Health {
        status: "unavailable",
        missing,
    };
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    (unavailable, [(header::RETRY_AFTER, "5")], Json(health)).into_response()
}

async fn failed_checks(db: &Database) -> Vec<String> {
    let checked = timeout(READY_TIMEOUT, db.schema_status()).await;
    let checked = checked.map_err(anyhow::Error::from);
    let status = match checked.and_then(|status| Ok(status?)) {
        Ok(status) => status,
        Err(error) => {
            tracing::warn!(%error, "not ready: the database does not answer");
            return vec!["the database".to_owned()];
        }
    };
    if let Some(name) = status.breaking() {
        return vec![format!(
            "a version of this program that knows migration {name}"
        )];
    }
    let pending = status.pending.into_iter();
    pending.map(|name| format!("migration {name}")).collect()
}
