//! Metrics, for Prometheus to collect. What there is to measure each binary
//! declares in a `metrics.rs` of its own; here is what that is made with, and
//! what every process tells of itself.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use prometheus::core::Collector;
use prometheus::{Counter, HistogramOpts, Opts, TextEncoder};
pub use prometheus::{Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec};
use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// The content type of a [`Registry::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A set of metrics. What counts has one as long as its process lives; what is
/// only looked up has a new one for each scrape, and so leaves out by itself
/// what could not be looked up.
#[derive(Debug, Default)]
pub struct Registry(prometheus::Registry);

// All fail on a bad name, or one that is taken.
#[allow(missing_docs, reason = "each adds the metric that it is called after")]
#[allow(clippy::missing_errors_doc, reason = "said above")]
impl Registry {
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.add(IntCounter::new(name, help)?)
    }

    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub fn gauge(&self, name: &str, help: &str) -> Result<Gauge> {
        self.add(Gauge::new(name, help)?)
    }

    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(options)?)
    }

    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(HistogramVec::new(options, labels)?)
    }

    fn add<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    /// All of them, in the text format that Prometheus reads.
    pub fn render(&self) -> Result<String> {
        Ok(TextEncoder::new().encode_to_string(&self.0.gather())?)
    }
}

/// The registry of a process that starts now.
///
/// # Errors
/// Never, but for the names below.
pub fn process_registry(program: &str) -> Result<Registry> {
    let registry = Registry::default();
    let help = "Always 1; what runs is in the labels.";
    registry
        .gauges("blog_build_info", help, &["program", "version"])?
        .with_label_values(&[program, env!("CARGO_PKG_VERSION")])
        .set(1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let help = "When the process started, in seconds since 1970.";
    registry
        .gauge("process_start_time_seconds", help)?
        .set(now.unwrap_or_default().as_secs_f64());
    Ok(registry)
}

/// Jobs that are over, by outcome and, of failed ones, error. Workers end most,
/// but a job that is canceled in the queue none has ever seen.
///
/// # Errors
/// Never, but for the name.
pub fn jobs_finished(registry: &Registry) -> Result<IntCounterVec> {
    let help = "Jobs that are over.";
    let jobs = registry.counters("blog_jobs_finished_total", help, &["outcome", "error"])?;
    jobs.with_label_values(&["canceled", ""]);
    Ok(jobs)
}

/// A registry for one scrape, with what the process uses, as far as the system
/// tells. The names are those of Prometheus' own clients.
///
/// # Errors
/// Never, but for the names below.
pub fn scrape_registry() -> Result<Registry> {
    let registry = Registry::default();
    let help = "Time on all processors, in seconds.";
    registry
        .add(Counter::new("process_cpu_seconds_total", help)?)?
        .inc_by(cpu_seconds());
    let gauges = [
        (
            "process_resident_memory_bytes",
            "Memory in use, in bytes.",
            resident_bytes(),
        ),
        ("process_open_fds", "File descriptors in use.", open_files()),
        (
            "process_max_fds",
            "File descriptors that may be used.",
            max_open_files(),
        ),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            registry.gauge(name, help)?.set(value);
        }
    }
    Ok(registry)
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn resident_bytes() -> Option<f64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let resident: f64 = pages.split(' ').nth(1)?.parse().ok()?;
    Some(resident * page_size() as f64)
}

fn open_files() -> Option<f64> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as f64)
}

fn max_open_files() -> Option<f64> {
    Some(getrlimit(Resource::Nofile).current? as f64)
}
