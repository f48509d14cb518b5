//! Log lines: one for each thing worth knowing, written where it is handled.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

/// Of these libraries we want to hear only when something is wrong; what they
/// do is in our own lines. What Postgres remarks is nothing wrong: such as that
/// a commit which a stop has broken off can't be undone any more. A directive in
/// `RUST_LOG` that names one wins.
const LIBRARY_LEVELS: &str = "apalis_core=warn,apalis_sqlite=warn,apalis_postgres=warn,\
                     sea_orm=warn,sea_orm_migration=warn,sqlx=warn,sqlx::postgres::notice=error,\
                     hyper=warn,reqwest=warn";

/// Starts logging to standard output, for the rest of the process.
///
/// # Errors
/// When `RUST_LOG` can't be read as filter directives.
pub fn init(settings: &LogSettings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{LIBRARY_LEVELS},{}", settings.rust_log))
        .with_context(|| format!("RUST_LOG: {:?} is no filter", settings.rust_log))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    match settings.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stdout().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}
