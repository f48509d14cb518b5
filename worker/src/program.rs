//! Starts a worker: settings, log, database, agent, then works until it is
//! stopped.

use std::process::ExitCode;
use std::sync::Arc;

use shared::database::Database;
use shared::{queue, trace};
use tokio_util::sync::CancellationToken;

use crate::agent::supervise;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::sources::{Researcher, pdf};
use crate::{init, metrics_server, runner};

/// The worker's program.
///
/// # Errors
/// Why it did not start.
pub fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == "supervise" => {
            let command: Vec<_> = arguments.skip_while(|a| a == "--").collect();
            supervise(&command)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(first) if first == pdf::COMMAND => {
            pdf::run()?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    // Before anything else: until it has handlers, signals to process 1 are lost.
    if init::is_needed() {
        return Ok(init::run()?);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let stop = CancellationToken::new();
    runtime.block_on(async { shared::shutdown::cancel_on_signal(stop.clone()) })?;
    let config = Config::load()?;
    shared::log::init(&config.log)?;
    let export = trace::start(&config.traces, "blog-worker")?;
    let done = runtime.block_on(run(config, stop));
    export.stop();
    // A thread that still waits for something would be waited for.
    runtime.shutdown_background();
    done.map(|()| ExitCode::SUCCESS)
}

async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let agent = config.agent()?;
    let researcher = Arc::new(Researcher::new(&config)?);
    let metrics = Arc::new(Metrics::new(&config)?);
    if let Some(listener) = metrics_server::listen(config.metrics_addr).await? {
        tokio::spawn(metrics_server::serve(listener, metrics.clone()));
    }
    config.storage.create_data_dir()?;
    let opening = Database::open_and_migrate(&config.storage, queue::CONNECTIONS);
    let Some(db) = stop.run_until_cancelled(opening).await else {
        tracing::info!("stopped before it was ready");
        return Ok(());
    };
    let db = db?;
    runner::run(&config, db.clone(), agent, researcher, metrics, stop).await;
    db.close().await;
    Ok(())
}
