//! Prometheus metrics: the registry, and the metrics that every process has. Each binary declares
//! its own in its `metrics.rs`.

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

/// A set of metrics. Counters are in one that lives as long as the process. Values that are looked
/// up are in a new one for each scrape, so that those whose lookup failed are left out.
#[derive(Debug, Default)]
pub struct Registry(prometheus::Registry);

// All fail only on an invalid name, or one that is taken.
#[allow(
    missing_docs,
    reason = "each adds a metric of the kind that it is named after"
)]
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

    /// All metrics, in Prometheus' text format.
    pub fn render(&self) -> Result<String> {
        Ok(TextEncoder::new().encode_to_string(&self.0.gather())?)
    }
}

/// The registry of a process that starts now.
pub fn process_registry(program: &str) -> Result<Registry> {
    let registry = Registry::default();
    let help = "Always 1; the program and its version are in the labels.";
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

/// Finished jobs by outcome and, if failed, error. The API has this metric, too, for it finishes
/// the jobs that are canceled in the queue.
pub fn jobs_finished(registry: &Registry) -> Result<IntCounterVec> {
    let help = "Finished jobs.";
    let jobs = registry.counters("blog_jobs_finished_total", help, &["outcome", "error"])?;
    jobs.with_label_values(&["canceled", ""]);
    Ok(jobs)
}

/// A registry for one scrape, with the process metrics that the system provides. Their names are
/// those of Prometheus' own clients.
pub fn scrape_registry() -> Result<Registry> {
    let registry = Registry::default();
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let help = "CPU time on all processors, in seconds.";
    let cpu_seconds = registry.add(Counter::new("process_cpu_seconds_total", help)?)?;
    cpu_seconds.inc_by(cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9);
    let gauge = |name, help, value: Option<f64>| match value {
        Some(value) => registry.gauge(name, help).map(|gauge| gauge.set(value)),
        None => Ok(()),
    };
    let help = "Resident memory, in bytes.";
    gauge("process_resident_memory_bytes", help, resident_bytes())?;
    let open = std::fs::read_dir("/proc/self/fd").ok();
    let open = open.map(|files| files.count() as f64);
    gauge("process_open_fds", "Open file descriptors.", open)?;
    let max = getrlimit(Resource::Nofile).current.map(|max| max as f64);
    gauge("process_max_fds", "Limit of open file descriptors.", max)?;
    Ok(registry)
}

fn resident_bytes() -> Option<f64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let resident: f64 = pages.split(' ').nth(1)?.parse().ok()?;
    Some(resident * page_size() as f64)
}
