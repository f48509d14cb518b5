//! What all handlers share.

use std::sync::Arc;
use std::time::Duration;

use shared::change_watcher::ChangeWatcher;
use shared::config::{Model, Secret};
use shared::database::Database;
use tokio_util::sync::CancellationToken;

use crate::auth::password::Passwords;
use crate::auth::tokens::SigningKeys;
use crate::cached::Cached;
use crate::concurrency::{ConcurrencyLimit, PerUserLimit};
use crate::config::Config;
use crate::long_poll::LongPollHub;
use crate::metrics::Metrics;

/// What all handlers share.
#[derive(Clone, Debug)]
pub struct AppState {
    /// Where everything is kept.
    pub db: Database,
    /// What tokens and cursors are signed with.
    pub keys: Arc<SigningKeys>,
    /// Hashes and verifies passwords.
    pub passwords: Passwords,
    /// What clients may choose from; the first is the default.
    pub models: Arc<[Model]>,
    /// Places for searches, which are the only slow queries.
    pub searches: PerUserLimit,
    /// Places for posts that are rendered, which takes a core.
    pub renders: ConcurrencyLimit,
    /// What the service lacks to work.
    pub(crate) readiness: Cached<Vec<String>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Places for those who wait for a job.
    pub waits: LongPollHub,
    /// The settings.
    pub config: Arc<Config>,
    /// Canceled when the API is to stop: nobody waits any longer then.
    pub stop: CancellationToken,
}

impl AppState {
    /// The state of an API on `db`, which signs with `secret` and ends when `stop`
    /// is canceled.
    ///
    /// # Errors
    /// When a setting is bad.
    pub fn new(
        config: Config,
        db: Database,
        secret: &Secret,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let changes = ChangeWatcher::watch(&db);
        Ok(AppState {
            waits: LongPollHub::new(db.clone(), changes, stop.clone()),
            db,
            keys: Arc::new(SigningKeys::new(secret)),
            passwords: Passwords::new()?,
            models: config.agent.models()?.into(),
            searches: PerUserLimit::new(MAX_SEARCHES),
            renders: ConcurrencyLimit::per_core(),
            readiness: Cached::new(READY_MAX_AGE),
            metrics: Arc::new(Metrics::new()?),
            config: Arc::new(config),
            stop,
        })
    }
}

/// For how long the database need not be asked again whether it is ready.
const READY_MAX_AGE: Duration = Duration::from_secs(1);

/// How many searches an API makes at once, which leaves a connection to other
/// queries even on SQLite.
const MAX_SEARCHES: usize = 3;
