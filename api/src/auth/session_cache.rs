//! Sessions that were looked up a moment ago, with their users.
//!
//! On SQLite a session is as it was looked up until something is committed, by whichever process, and
//! that is told by the WAL index, at the cost of a system call. So a revocation acts at once.
//! Postgres has no such sign: there each request looks its session up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use entity::{session, user};
use sea_orm::DbErr;
use shared::database::Database;
use shared::wal_index::{WalIndex, WalIndexHeader};
use uuid::Uuid;

/// With so many it begins anew.
const MAX_SESSIONS: usize = 10_000;

/// The cache. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct SessionCache(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    index: Arc<WalIndex>,
    sessions: Mutex<Sessions>,
}

/// What was true when the index had this header.
#[derive(Debug, Default)]
struct Sessions {
    header: Option<WalIndexHeader>,
    by_id: HashMap<Uuid, Found>,
}

/// A session and its user, as rows.
pub(crate) type Found = (session::Model, user::Model);

impl SessionCache {
    pub(crate) fn new(db: &Database) -> Self {
        let inner = |index: &Arc<WalIndex>| Inner {
            index: index.clone(),
            sessions: Mutex::default(),
        };
        SessionCache(db.wal_index().map(inner).map(Arc::new))
    }

    /// The session of this id, looked up by `look_up` unless it is known.
    pub(crate) async fn get(
        &self,
        id: Uuid,
        look_up: impl Future<Output = Result<Option<Found>, DbErr>>,
    ) -> Result<Option<Found>, DbErr> {
        let Some(inner) = &self.0 else {
            return look_up.await;
        };
        // Read before the look-up, which may see what is committed meanwhile, or not.
        let Ok(header) = inner.index.header() else {
            return look_up.await;
        };
        if let Some(found) = inner.at(header).by_id.get(&id) {
            return Ok(Some(found.clone()));
        }
        let found = look_up.await?;
        if let Some(found) = &found {
            inner.insert(header, id, found.clone());
        }
        Ok(found)
    }
}

impl Inner {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was true at this header; what was true at another one is forgotten.
    fn at(&self, header: WalIndexHeader) -> MutexGuard<'_, Sessions> {
        let mut sessions = self.sessions();
        if sessions.header != Some(header) || sessions.by_id.len() >= MAX_SESSIONS {
            sessions.by_id.clear();
            sessions.header = Some(header);
        }
        sessions
    }

    fn insert(&self, header: WalIndexHeader, id: Uuid, found: Found) {
        let mut sessions = self.sessions();
        if sessions.header == Some(header) {
            sessions.by_id.insert(id, found);
        }
    }
}
