//! Sending spans to a collector, by OTLP. It happens on a thread of its own, and
//! a collector that is away or slow costs spans, but nothing else.

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

/// How long the collector may take for one batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long what is left may take at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// The sending of spans, if there is a collector.
#[derive(Debug)]
pub struct ExportGuard(Option<SdkTracerProvider>);

impl ExportGuard {
    /// Sends what is left, in a bounded time.
    pub fn stop(self) {
        let Some(provider) = self.0 else { return };
        if let Err(error) = provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }
}

/// Has spans sent to the collector that the settings name, if they do, as
/// those of `service`.
///
/// # Errors
/// When the setting is bad, naming it.
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
    let mut url = Url::parse(endpoint.trim()).context("the collector's URL can't be read")?;
    ensure!(
        matches!(url.scheme(), "http" | "https") && url.has_host(),
        "the collector's URL must begin with http:// or https://"
    );
    // It would not be sent.
    ensure!(
        url.username().is_empty() && url.password().is_none(),
        "a key for the collector belongs into OTEL_EXPORTER_OTLP_HEADERS"
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
    // An error only says that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = blocking::Client::builder()
        .timeout(EXPORT_TIMEOUT)
        // A redirect would carry a key among the headers to whoever it names.
        .redirect(redirect::Policy::none());
    if url.scheme() == "http" {
        // Building would fail in a container without certificates, for nothing.
        builder = builder.tls_certs_only([]);
    }
    builder.build().context("can't set up the HTTP client")
}

/// Who we are: what the variables of OpenTelemetry say, or our own name.
fn resource(service: &'static str) -> Resource {
    let told = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let name = Resource::builder().build().get(&Key::new("service.name"));
    let is_named = name.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    match is_named {
        true => told.build(),
        false => told.with_service_name(service).build(),
    }
}

/// Says once that the collector is away, and once that it is back.
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
                tracing::warn!(%error, "traces don't reach the collector; trying on");
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
