//! The API's Prometheus metrics.

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

/// In seconds. A long poll may take a minute.
const LATENCY_BUCKETS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Jobs are counted up to this number, so that a scrape stays cheap.
const MAX_COUNTED: u32 = 100_000;

/// How long a scrape waits for the database.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a measurement of the queue is reused.
const DEPTH_MAX_AGE: Duration = Duration::from_secs(5);

/// Counters since the start of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    latency: HistogramVec,
    in_flight: Gauge,
    jobs: IntCounterVec,
    /// None if the database did not answer.
    queue: Cached<Option<QueueDepth>>,
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Result<Self> {
        let registry = process_registry("api")?;
        Ok(Metrics {
            requests: registry.counters(
                "blog_http_requests_total",
                "Answered requests. The route is its pattern, or unknown.",
                &["method", "route", "status"],
            )?,
            latency: registry.histograms(
                "blog_http_request_duration_seconds",
                "Time to the response, long polling included.",
                &["method", "route"],
                &LATENCY_BUCKETS,
            )?,
            in_flight: registry.gauge("blog_http_requests_in_flight", "Requests in progress.")?,
            jobs: jobs_finished(&registry)?,
            queue: Cached::new(DEPTH_MAX_AGE),
            registry,
        })
    }

    /// Counts a job that was canceled at once. One that is running is counted by its worker.
    pub(crate) fn job_canceled(&self, job: &job::Model) {
        if job.status == job::Status::Canceled {
            self.jobs.with_label_values(&["canceled", ""]).inc();
        }
    }

    /// The text of a scrape. What the database does not answer is left out.
    pub async fn render(&self, db: &Database) -> Result<String> {
        let now = scrape_registry()?;
        let db = db.clone();
        let depth = self.queue.get(async move { queue_depth(&db).await }).await;
        let depth = depth.flatten();
        now.gauge(
            "blog_database_up",
            "1 if the database answered when the queue was measured, else 0.",
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
        Ok(Err(error)) => tracing::warn!(%error, "can't measure the queue"),
        Err(_) => tracing::warn!("can't measure the queue: the database timed out"),
    }
    None
}

fn set_queue_gauges(now: &Registry, depth: &QueueDepth) -> Result<()> {
    let jobs = now.gauges(
        "blog_queue_jobs",
        "Queued and running jobs of the whole service, up to 100000; measured every 5 seconds.",
        &["status"],
    )?;
    jobs.with_label_values(&["queued"]).set(depth.queued);
    jobs.with_label_values(&["running"]).set(depth.running);
    let oldest = depth.next.as_deref().and_then(queue::lateness);
    now.gauge(
        "blog_queue_oldest_due_seconds",
        "How long the next job has been due; 0 if none is.",
    )?
    .set(oldest.unwrap_or_default().as_secs_f64());
    now.gauge(
        "blog_queue_paused",
        "1 if an admin has paused the queue, else 0.",
    )?
    .set(f64::from(u8::from(depth.paused_at.is_some())));
    Ok(())
}

/// Middleware: counts and times the request.
pub(crate) async fn track_metrics(
    State(metrics): State<Arc<Metrics>>,
    request: Request,
    next: Next,
) -> Response {
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    let started = Instant::now();
    let in_flight = InFlight::new(&metrics.in_flight);
    let response = next.run(request).await;
    drop(in_flight);
    let seconds = started.elapsed().as_secs_f64();
    let status = response.status();
    let requests = &metrics.requests;
    requests
        .with_label_values(&[method, route, status.as_str()])
        .inc();
    let latency = &metrics.latency;
    latency.with_label_values(&[method, route]).observe(seconds);
    response
}

/// Unknown methods are one label: clients may invent any number.
pub(crate) fn method_label(method: &Method) -> &'static str {
    let mut known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].into_iter();
    known.find(|known| method == known).unwrap_or("other")
}

/// A request in progress, until it is answered or its client disconnects.
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
