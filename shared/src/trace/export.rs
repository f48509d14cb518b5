//! Exports spans to a collector over OTLP, on a thread of its own: a collector that is down or slow
//! costs spans, but nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use opentelemetry::{Key, KeyValue, global};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use reqwest::{Url, blocking, redirect};

use crate::config::TraceSettings;

/// The timeout of one batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// The timeout of the last batches at shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// The exporter, if there is a collector.
#[derive(Debug)]
pub struct ExportGuard(Option<SdkTracerProvider>);

impl ExportGuard {
    /// Exports the remaining spans, within a bounded time.
    pub fn stop(self) {
        let Some(provider) = self.0 else { return };
        if let Err(error) = provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::debug!(%error, "the last spans were not exported");
        }
    }
}

/// Starts the export of `service`'s spans, if the settings name a collector. Fails if the URL is
/// invalid.
pub fn start(settings: &TraceSettings, service: &'static str) -> anyhow::Result<ExportGuard> {
    let Some(endpoint) = &settings.otel_exporter_otlp_endpoint else {
        return Ok(ExportGuard(None));
    };
    let exporter = exporter(endpoint).context("OTEL_EXPORTER_OTLP_ENDPOINT")?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource(service))
        .build();
    global::set_tracer_provider(provider.clone());
    Ok(ExportGuard(Some(provider)))
}

fn exporter(endpoint: &str) -> anyhow::Result<Exporter> {
    let mut url = Url::parse(endpoint.trim()).context("the collector's URL is invalid")?;
    ensure!(
        matches!(url.scheme(), "http" | "https") && url.has_host(),
        "the collector's URL must begin with http:// or https://"
    );
    // The exporter would not send them.
    ensure!(
        url.username().is_empty() && url.password().is_none(),
        "put the collector's credentials into OTEL_EXPORTER_OTLP_HEADERS, not into the URL"
    );
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(["v1", "traces"]);
    }
    let otlp = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(client(&url)?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url)
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    Ok(Exporter {
        otlp,
        failing: AtomicBool::new(false),
    })
}

fn client(url: &Url) -> anyhow::Result<blocking::Client> {
    // It fails only if a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = blocking::Client::builder()
        .timeout(EXPORT_TIMEOUT)
        // A redirect would send the headers, and a key in them, to another host.
        .redirect(redirect::Policy::none());
    if url.scheme() == "http" {
        // In a container without certificates building would fail, though none is needed.
        builder = builder.tls_certs_only([]);
    }
    builder.build().context("can't set up the HTTP client")
}

/// The attributes of OpenTelemetry's variables; `service` is the default for the service's name.
fn resource(service: &'static str) -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let mut resource = Resource::builder().with_attribute(version);
    let name = Resource::builder().build().get(&Key::new("service.name"));
    if name.is_none_or(|name| name.as_str().starts_with("unknown_service")) {
        resource = resource.with_service_name(service);
    }
    resource.build()
}

/// An exporter that logs once that the collector is unreachable, and once that it is back.
#[derive(Debug)]
struct Exporter {
    otlp: opentelemetry_otlp::SpanExporter,
    failing: AtomicBool,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.otlp.export(batch).await;
        let failed_before = self.failing.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(error) if !failed_before => {
                tracing::warn!(%error, "traces don't reach the collector; trying again");
            }
            Ok(()) if failed_before => tracing::info!("traces reach the collector again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}
