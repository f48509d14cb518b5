//! Starts the API: settings, log, database, then serves until it is stopped.

use std::io::Write;

use anyhow::Context;
use shared::database::Database;
use shared::{events, trace};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::auth::tokens::load_or_create_secret;
use crate::config::Config;
use crate::connections::{ConnectionLimits, raise_open_file_limit};
use crate::server::serve;
use crate::state::AppState;
use crate::{cleanup, cli, router};

/// The API's program.
///
/// # Errors
/// Why it did not start, or what went wrong with the command that it was to run.
pub fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let stop = CancellationToken::new();
    runtime.block_on(async { shared::shutdown::cancel_on_signal(stop.clone()) })?;
    let config = Config::load()?;
    if let Some(command) = config.command {
        let run = stop.run_until_cancelled(cli::run(command, &config.storage));
        let done = runtime.block_on(run);
        // Does not wait for blocked threads.
        runtime.shutdown_background();
        writeln!(std::io::stdout(), "{}", done.context("it was stopped")??)?;
        return Ok(());
    }
    shared::log::init(&config.log)?;
    let export = trace::start(&config.traces, "blog-api")?;
    let done = runtime.block_on(run(config, stop));
    export.stop();
    // Does not wait for blocked threads.
    runtime.shutdown_background();
    done
}

async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    if let Err(error) = raise_open_file_limit() {
        tracing::warn!(%error, "can't raise the limit of open files");
    }
    let limits = ConnectionLimits::new(&config);
    let data_dir = config.storage.create_data_dir()?;
    let secret = match &config.jwt_secret {
        Some(secret) => secret.clone(),
        None => load_or_create_secret(data_dir)?,
    };
    let opening = Database::open_and_migrate(&config.storage, events::CONNECTIONS);
    let Some(db) = stop.run_until_cancelled(opening).await else {
        tracing::info!("stopped before it was ready");
        return Ok(());
    };
    let db = db?;

    let address = config.listen_addr;
    let grace = config.shutdown_grace();
    let token_ttl = config.refresh_token_ttl();
    let state = AppState::new(config, db.clone(), &secret, stop.clone())?;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("LISTEN_ADDR: can't listen on {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "the API is ready");

    let prune = cleanup::run_periodically(db.clone(), token_ttl);
    tokio::spawn(stop.clone().run_until_cancelled_owned(prune));
    tokio::spawn(
        stop.clone()
            .run_until_cancelled_owned(db.clone().follow_clock()),
    );
    let serve = serve(listener, router::app(state), limits, stop.clone());
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        () = serve => {}
        () = overdue => tracing::warn!("some requests did not end in time"),
    }
    db.close().await;
    tracing::info!("the API has stopped");
    Ok(())
}
