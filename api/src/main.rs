//! Starts the API: settings, log, database, then serves until it is stopped.

use std::io::Write;

use anyhow::Context;
use api::AppState;
use api::commands::make_admin;
use api::config::{Command, Config};
use api::serve::{PATIENCE, most_connections, serve};
use api::token::kept_secret;
use shared::config::StorageSettings;
use shared::database::Database;
use shared::trace;
use tokio::net::TcpListener;

fn main() -> anyhow::Result<()> {
    let config = Config::load()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    if let Some(command) = config.command {
        let said = runtime.block_on(obey(command, &config.storage))?;
        writeln!(std::io::stdout(), "{said}")?;
        return Ok(());
    }
    shared::log::init(&config.log)?;
    let export = trace::start(&config.traces, "blog-api")?;
    let done = runtime.block_on(run(config));
    export.stop();
    // A thread that still waits for something would be waited for.
    runtime.shutdown_background();
    done
}

/// Carries out a command, and says what was done.
async fn obey(command: Command, storage: &StorageSettings) -> anyhow::Result<String> {
    let db = Database::open_existing(storage).await?;
    let Command::MakeAdmin { username } = command;
    let said = make_admin(&db, username).await;
    db.close().await;
    said
}

async fn run(config: Config) -> anyhow::Result<()> {
    let data_dir = config.storage.create_data_dir()?;
    let secret = match &config.jwt_secret {
        Some(secret) => secret.clone(),
        None => kept_secret(data_dir)?,
    };
    let db = Database::open(&config.storage).await?;
    db.migrate().await?;

    let address = config.listen_addr;
    let (grace, token_ttl) = (config.shutdown_grace(), config.refresh_token_ttl());
    let state = AppState::new(config, db.clone(), &secret)?;
    let stop = state.stop.clone();
    // Listened for before anyone is told that we are ready.
    shared::stop::on_signal(stop.clone())?;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("LISTEN_ADDR: can't listen on {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "the API is ready");

    let prune = api::prune::regularly(db.clone(), token_ttl);
    tokio::spawn(stop.clone().run_until_cancelled_owned(prune));
    let most = most_connections();
    let serve = serve(listener, api::app(state), PATIENCE, most, stop.clone());
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
