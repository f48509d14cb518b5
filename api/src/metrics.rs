//! What the API counts, for Prometheus.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use entity::job;
use shared::database::Database;
use shared::metrics::{
    Gauge, HistogramVec, IntCounterVec, Registry, jobs_finished, process_registry, scrape_registry,
};
use shared::queue::{self, QueueDepth};
use tokio::time::timeout;

use crate::cached::Cached;

/// Seconds. Who waits for a job may do so for a minute.
const LATENCY_BUCKETS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Where counting the jobs of the queue ends, so that a scrape stays cheap.
const MAX_COUNTED: u32 = 100_000;

/// How long a scrape waits for the database.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(3);

/// For how long the queue is as it was measured last, however often anyone asks.
const DEPTH_MAX_AGE: Duration = Duration::from_secs(5);

/// What is counted since the start.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    latency: HistogramVec,
    in_flight: Gauge,
    jobs: IntCounterVec,
    /// What the database told of the queue, if it answered.
    queue: Cached<Option<QueueDepth>>,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// Never, but for the names below.
    pub fn new() -> Result<Self> {
        let registry = process_registry("api")?;
        Ok(Metrics {
            requests: registry.counters(
                "blog_http_requests_total",
                "Requests that were answered. The route is the pattern, or unknown.",
                &["method", "route", "status"],
            )?,
            latency: registry.histograms(
                "blog_http_request_duration_seconds",
                "How long answers took, with what a client asked to wait.",
                &["method", "route"],
                &LATENCY_BUCKETS,
            )?,
            in_flight: registry.gauge(
                "blog_http_requests_in_flight",
                "Requests that wait for their answer.",
            )?,
            jobs: jobs_finished(&registry)?,
            queue: Cached::new(DEPTH_MAX_AGE),
            registry,
        })
    }

    /// A job was canceled. If a worker has it, that counts it when it ends.
    pub fn job_canceled(&self, job: &job::Model) {
        if job.status == job::Status::Canceled {
            self.jobs.with_label_values(&["canceled", ""]).inc();
        }
    }

    /// All that a scrape is told. What the database does not tell is left out.
    ///
    /// # Errors
    /// Never, but for the names below.
    pub async fn render(&self, db: &Database) -> Result<String> {
        let now = scrape_registry()?;
        let db = db.clone();
        let depth = self.queue.get(async move { queue_depth(&db).await }).await;
        let depth = depth.flatten();
        now.gauge(
            "blog_database_up",
            "Whether the database answered when the queue was measured, 1 or 0.",
        )?
        .set(f64::from(u8::from(depth.is_some())));
        if let Some(depth) = depth {
            set_queue_gauges(&now, &depth)?;
        }
        Ok(self.registry.render()? + &now.render()?)
    }
}

async fn queue_depth(db: &Database) -> Option<QueueDepth> {
    let depth = timeout(SCRAPE_TIMEOUT, queue::depth(db.read(), MAX_COUNTED));
    match depth.await {
        Ok(Ok(depth)) => return Some(depth),
        Ok(Err(error)) => tracing::warn!(%error, "the queue can't be measured"),
        Err(_) => tracing::warn!("the queue can't be measured: the database is too slow"),
    }
    None
}

fn set_queue_gauges(now: &Registry, depth: &QueueDepth) -> Result<()> {
    let jobs = now.gauges(
        "blog_queue_jobs",
        "Jobs that wait or run, of the whole service; counted up to 100000, and once in 5 seconds.",
        &["status"],
    )?;
    jobs.with_label_values(&["queued"]).set(depth.queued);
    jobs.with_label_values(&["running"]).set(depth.running);
    let oldest = depth.next.as_deref().and_then(queue::lateness);
    now.gauge(
        "blog_queue_oldest_due_seconds",
        "For how long the next job has been due; 0 if none is.",
    )?
    .set(oldest.unwrap_or_default().as_secs_f64());
    now.gauge(
        "blog_queue_paused",
        "Whether workers take no jobs, for an admin wants it so, 1 or 0.",
    )?
    .set(f64::from(u8::from(depth.paused_at.is_some())));
    Ok(())
}

/// Middleware: counts the request.
pub async fn track_metrics(
    State(metrics): State<Arc<Metrics>>,
    request: Request,
    next: Next,
) -> Response {
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    let begun = Instant::now();
    let in_flight = InFlight::new(&metrics.in_flight);
    let response = next.run(request).await;
    drop(in_flight);
    let seconds = begun.elapsed().as_secs_f64();
    let status = response.status();
    let requests = &metrics.requests;
    requests
        .with_label_values(&[method, route, status.as_str()])
        .inc();
    let latency = &metrics.latency;
    latency.with_label_values(&[method, route]).observe(seconds);
    response
}

/// Clients may invent methods, which must not become series.
pub(crate) fn method_label(method: &Method) -> &'static str {
    let mut known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].into_iter();
    known.find(|known| method == known).unwrap_or("other")
}

/// A request under way, until it is answered or its client goes.
struct InFlight<'a>(&'a Gauge);

impl<'a> InFlight<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        InFlight(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
