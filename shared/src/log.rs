//! Sets up logging.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

/// Libraries log warnings and errors only; what they do is in our own lines. Postgres' notices are
/// no warnings: that there is no transaction to roll back, for example, after a shutdown has
/// interrupted a commit. A directive of `RUST_LOG` for the same target wins.
const LIBRARY_LEVELS: &str = "apalis_core=warn,apalis_sqlite=warn,apalis_postgres=warn,\
                     sea_orm=warn,sea_orm_migration=warn,sqlx=warn,sqlx::postgres::notice=error,\
                     hyper=warn,reqwest=warn";

/// Starts logging to standard output. Fails if `RUST_LOG` is invalid.
pub fn init(settings: &LogSettings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{LIBRARY_LEVELS},{}", settings.rust_log))
        .with_context(|| format!("RUST_LOG: {:?} is not a valid filter", settings.rust_log))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    match settings.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stdout().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}
