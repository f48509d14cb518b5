//! Where Prometheus collects a worker's metrics.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use shared::metrics::CONTENT_TYPE;
use tokio::net::TcpListener;

use crate::config::MetricsAddr;
use crate::metrics::Metrics;

/// The address unless one is set.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// Listens where the settings say; nowhere if they say so. Where they say
/// nothing, a second worker of a machine takes any port that is free.
///
/// # Errors
/// When it can't be listened on the address, naming the setting.
pub(crate) async fn listen(setting: Option<MetricsAddr>) -> anyhow::Result<Option<TcpListener>> {
    let listener = match setting {
        Some(MetricsAddr::Off) => return Ok(None),
        Some(MetricsAddr::At(address)) => bind(address).await?,
        None => match TcpListener::bind(DEFAULT_ADDRESS).await {
            Ok(listener) => listener,
            Err(_) => bind(SocketAddr::new(DEFAULT_ADDRESS.ip(), 0)).await?,
        },
    };
    tracing::info!(address = %listener.local_addr()?, "metrics are served");
    Ok(Some(listener))
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("METRICS_ADDR: can't listen on {address}"))
}

/// Serves them for ever.
///
/// # Errors
/// When the listener fails.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>) -> std::io::Result<()> {
    let text = move || async move { scrape(&metrics) };
    axum::serve(listener, Router::new().route("/metrics", get(text))).await
}

fn scrape(metrics: &Metrics) -> Response {
    match metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "can't render metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
