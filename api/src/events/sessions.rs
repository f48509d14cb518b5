//! The sessions and API keys of readers: a stream ends with that which it was opened with.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use entity::{api_key, session, user};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{MAX_PER_USER, MAX_TOTAL};
use crate::auth::current_user::CurrentUser;
use crate::error::Result;

/// How many ids one statement has: databases limit its parameters.
const MAX_IDS: usize = 500;

/// The sessions and API keys that readers have. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct WatchedSessions(Arc<Mutex<HashMap<Uuid, WatchedSession>>>);

#[derive(Debug)]
struct WatchedSession {
    user: Uuid,
    readers: usize,
    ended: CancellationToken,
}

/// A reader's place, until it is dropped.
#[derive(Debug)]
pub(super) struct SessionGuard {
    sessions: WatchedSessions,
    id: Uuid,
    ended: CancellationToken,
}

impl WatchedSessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, WatchedSession>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a reader. None if there are too many.
    pub(super) fn watch(&self, me: &CurrentUser) -> Option<SessionGuard> {
        let mut sessions = self.lock();
        let of_user = sessions.values().filter(|s| s.user == me.user.id);
        let of_user: usize = of_user.map(|session| session.readers).sum();
        let in_all: usize = sessions.values().map(|session| session.readers).sum();
        if of_user >= MAX_PER_USER || in_all >= MAX_TOTAL {
            return None;
        }
        let id = me.credential.id();
        let session = sessions.entry(id).or_insert_with(|| WatchedSession {
            user: me.user.id,
            readers: 0,
            ended: CancellationToken::new(),
        });
        session.readers += 1;
        Some(SessionGuard {
            sessions: self.clone(),
            id,
            ended: session.ended.clone(),
        })
    }

    /// Ends the streams of sessions and keys that are over, or whose users are disabled.
    pub(super) async fn end_invalid(&self, db: &impl ConnectionTrait) -> Result<()> {
        let ids: Vec<Uuid> = self.lock().keys().copied().collect();
        for ids in ids.chunks(MAX_IDS) {
            let sessions = session::Entity::find()
                .filter(session::Column::Id.is_in(ids.iter().copied()))
                .find_also_related(user::Entity)
                .all(db)
                .await?;
            let keys = api_key::Entity::find()
                .filter(api_key::Column::Id.is_in(ids.iter().copied()))
                .find_also_related(user::Entity)
                .all(db)
                .await?;
            let sessions = sessions
                .into_iter()
                .filter(|(session, _)| session.is_active());
            let sessions = sessions.map(|(session, user)| (session.id, user));
            let keys = keys.into_iter().filter(|(key, _)| key.is_valid());
            let keys = keys.map(|(key, user)| (key.id, user));
            let is_enabled = |user: user::Model| user.disabled_at.is_none();
            let valid: HashSet<Uuid> = sessions
                .chain(keys)
                .filter_map(|(id, user)| user.is_some_and(is_enabled).then_some(id))
                .collect();
            let sessions = self.lock();
            for id in ids.iter().filter(|id| !valid.contains(id)) {
                if let Some(session) = sessions.get(id) {
                    session.ended.cancel();
                }
            }
        }
        Ok(())
    }
}

impl SessionGuard {
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        let mut sessions = self.sessions.lock();
        if let Some(session) = sessions.get_mut(&self.id) {
            session.readers -= 1;
            if session.readers == 0 {
                sessions.remove(&self.id);
            }
        }
    }
}
