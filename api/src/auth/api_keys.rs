//! API keys: `bpk_`, which secret scanners can know, and 64 characters: 24 random bytes, the id of
//! the user, and a tag. The tag tells a key of ours from an invented one without a query, for the
//! rate limit; whether it is valid, and for whom, the database says by its hash.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand;
use ring::rand::SecureRandom;
use uuid::Uuid;

use super::tokens::{SigningKeys, secret_hash};
use crate::error::{Error, Result};

pub(crate) const PREFIX: &str = "bpk_";

const RANDOM_BYTES: usize = 24;
const USER_BYTES: usize = 16;

/// So much of a key is shown in lists.
const SHOWN_CHARS: usize = 12;

/// A new key, which is shown once.
pub(crate) struct NewKey {
    pub(crate) key: String,
    pub(crate) prefix: String,
    pub(crate) hash: String,
}

/// A new key for a user.
pub(crate) fn new_key(keys: &SigningKeys, user: Uuid) -> Result<NewKey> {
    let mut bytes = vec![0; RANDOM_BYTES];
    let random = rand::SystemRandom::new();
    random
        .fill(&mut bytes)
        .map_err(|_| Error::Internal("the system has no randomness".to_owned()))?;
    bytes.extend(user.as_bytes());
    bytes.extend(keys.api_key_tag(&bytes));
    let key = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
    Ok(NewKey {
        prefix: key[..SHOWN_CHARS].to_owned(),
        hash: secret_hash(&key),
        key,
    })
}

/// The user of a key that was made with this secret, valid or not.
pub(crate) fn user_of(keys: &SigningKeys, key: &str) -> Option<Uuid> {
    let bytes = key.strip_prefix(PREFIX)?;
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(bytes).ok()?;
    let (data, tag) = bytes.split_at_checked(RANDOM_BYTES + USER_BYTES)?;
    let user = Uuid::from_slice(&data[RANDOM_BYTES..]).ok()?;
    (tag == keys.api_key_tag(data)).then_some(user)
}

/// Hashes of keys that were refused, so that a revoked one uses up nothing of its owner's limit.
/// Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct RefusedKeys(Arc<Mutex<HashSet<String>>>);

/// When there are more they are forgotten: each is refused again.
const MAX_REFUSED: usize = 10_000;

impl RefusedKeys {
    pub(crate) fn add(&self, key: &str) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MAX_REFUSED {
            keys.clear();
        }
        keys.insert(secret_hash(key));
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.contains(&secret_hash(key))
    }
}

#[cfg(test)]
mod tests {
    use shared::config::Secret;

    use super::*;

    #[test]
    fn a_key_of_ours_is_known_and_no_other() {
        let keys = |secret: &str| SigningKeys::new(&Secret::from(secret));
        let (ours, others) = (keys("secret"), keys("another secret"));
        let user = Uuid::now_v7();
        let NewKey { key, prefix, .. } = new_key(&ours, user).unwrap();
        assert_eq!(key.len(), 68);
        assert!(key.starts_with(&prefix));
        assert_eq!(user_of(&ours, &key), Some(user));
        assert_eq!(user_of(&others, &key), None);
        for invented in [
            "",
            "bpk_",
            "bpk_AAAA",
            &format!("bpk_{}", "A".repeat(64)),
            &key[4..],
        ] {
            assert_eq!(user_of(&ours, invented), None, "{invented}");
        }
    }
}
