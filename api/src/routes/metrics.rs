//! The endpoint for Prometheus.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use shared::metrics::CONTENT_TYPE;

use crate::error::{Error, Result};
use crate::state::AppState;

/// Get metrics in Prometheus' text format
#[utoipa::path(
    get, path = "/metrics", tag = "operation", security(()),
    responses((status = 200, body = String, content_type = "text/plain")),
)]
pub(crate) async fn metrics(State(state): State<AppState>) -> Result<impl IntoResponse> {
    let text = state.metrics.render(&state.db).await;
    let text = text.map_err(Error::internal)?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}
