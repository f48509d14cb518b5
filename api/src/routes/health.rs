//! Whether the service lives, and whether it can work.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::AppState;

/// How the service is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`, or `unavailable`.
    status: &'static str,
    /// What is missing, where something is.
    missing: Vec<String>,
}

/// Whether the process lives
#[utoipa::path(
    get, path = "/health", tag = "operation", security(()),
    responses((status = 200, body = Health)),
)]
pub async fn health() -> Json<Health> {
    Json(Health {
        status: "ok",
        missing: Vec::new(),
    })
}

/// Whether the database answers and its migrations are in place
#[utoipa::path(
    get, path = "/ready", tag = "operation", security(()),
    responses((status = 200, body = Health), (status = 503, body = Health)),
)]
pub async fn ready(State(state): State<AppState>) -> Response {
    let missing = match state.db.pending_migrations().await {
        Ok(pending) => pending
            .into_iter()
            .map(|name| format!("migration {name}"))
            .collect(),
        Err(error) => {
            tracing::warn!(%error, "not ready: the database does not answer");
            vec!["the database".to_owned()]
        }
    };
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
