//! Starts a worker: settings, log, database, agent, then works until it is
//! stopped.

use std::sync::Arc;

use shared::database::Database;
use shared::trace;
use tokio_util::sync::CancellationToken;
use worker::agent::supervise;
use worker::config::Config;
use worker::metrics::Metrics;
use worker::scrape;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "supervise") {
        let command: Vec<_> = arguments.skip_while(|a| a == "--").collect();
        return Ok(supervise(&command)?);
    }
    let config = Config::load()?;
    shared::log::init(&config.log)?;
    let export = trace::start(&config.traces, "blog-worker")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(run(config));
    export.stop();
    // A thread that still waits for something would be waited for.
    runtime.shutdown_background();
    done
}

async fn run(config: Config) -> anyhow::Result<()> {
    let agent = config.agent()?;
    let metrics = Arc::new(Metrics::new(&config)?);
    if let Some(listener) = scrape::listen(config.metrics_addr).await? {
        tokio::spawn(scrape::serve(listener, metrics.clone()));
    }
    config.storage.create_data_dir()?;
    let db = Database::open(&config.storage).await?;
    db.migrate().await?;

    let stop = CancellationToken::new();
    shared::stop::on_signal(stop.clone())?;
    worker::run(&config, db.clone(), agent, metrics, stop).await;
    db.close().await;
    Ok(())
}
