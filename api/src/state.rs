//! The state that all handlers share.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use shared::change_watcher::ChangeWatcher;
use shared::config::Secret;
use shared::database::Database;
use shared::events::EventSignal;
use tokio_util::sync::CancellationToken;

use crate::auth::api_keys::RefusedKeys;
use crate::auth::password::Passwords;
use crate::auth::session_cache::SessionCache;
use crate::auth::tokens::SigningKeys;
use crate::cached::Cached;
use crate::concurrency_limit::{ConcurrencyLimit, PerUserLimit};
use crate::config::Config;
use crate::events::EventHub;
use crate::generation_options::Capabilities;
use crate::long_poll::LongPollHub;
use crate::metrics::Metrics;
use crate::routes::posts::insert::PostInserter;

/// The state that all handlers share. Clones are cheap, for each request makes some.
#[derive(Clone, Debug)]
pub struct AppState(Arc<Shared>);

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// What [`AppState`] derefs to.
#[derive(Debug)]
pub struct Shared {
    pub(crate) db: Database,
    pub(crate) keys: Arc<SigningKeys>,
    pub(crate) sessions: SessionCache,
    pub(crate) refused_keys: RefusedKeys,
    pub(crate) passwords: Passwords,
    pub(crate) capabilities: Arc<Capabilities>,
    /// For searches, which are the only slow queries.
    pub(crate) searches: PerUserLimit,
    /// For rendering posts, which takes a core.
    pub renders: ConcurrencyLimit,
    /// What is missing for the service to be ready.
    pub(crate) readiness: Cached<Vec<String>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) long_polls: LongPollHub,
    pub(crate) events: EventHub,
    pub(crate) new_posts: PostInserter,
    pub(crate) config: Arc<Config>,
}

impl AppState {
    /// The state of an API on `db`, which signs with `secret` and ends when `stop` is canceled.
    ///
    /// # Errors
    /// When a setting is invalid.
    pub fn new(
        config: Config,
        db: Database,
        secret: &Secret,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let changes = ChangeWatcher::watch(&db);
        let signal = EventSignal::listen(&db, changes.clone());
        Ok(AppState(Arc::new(Shared {
            events: EventHub::new(db.clone(), signal, stop.clone()),
            long_polls: LongPollHub::new(db.clone(), changes, stop),
            sessions: SessionCache::new(&db),
            new_posts: PostInserter::new(db.clone(), &config),
            db,
            keys: Arc::new(SigningKeys::new(secret)),
            refused_keys: RefusedKeys::default(),
            passwords: Passwords::new(),
            capabilities: Arc::new(Capabilities::new(
                config.agent.models()?,
                config.search.kind().is_some(),
            )),
            searches: PerUserLimit::new(MAX_SEARCHES),
            renders: ConcurrencyLimit::per_core(),
            readiness: Cached::new(READY_MAX_AGE),
            metrics: Arc::new(Metrics::new()?),
            config: Arc::new(config),
        })))
    }
}

/// How long a readiness check is reused.
const READY_MAX_AGE: Duration = Duration::from_secs(1);

/// How many searches run at once, which leaves a connection to other queries even on SQLite.
const MAX_SEARCHES: usize = 3;
