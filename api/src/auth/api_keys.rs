//! API keys: `bpk_`, which secret scanners can know, and 64 characters: 24 random bytes, the id of
//! the user, and a tag. The tag tells a key of ours from an invented one without a query, for the
//! rate limit; whether it is valid, and for whom, the database says by its hash.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SecureRandom;
use ring::{digest, hmac, rand};
use uuid::Uuid;

use super::tokens::hex;
use crate::error::{Error, Result};

pub(crate) const PREFIX: &str = "bpk_";

const RANDOM_BYTES: usize = 24;
const USER_BYTES: usize = 16;
const TAG_BYTES: usize = 8;

/// So much of a key is shown in lists.
const SHOWN_CHARS: usize = 12;

/// A new key, which is shown once.
pub(crate) struct NewKey {
    pub(crate) key: String,
    pub(crate) prefix: String,
    pub(crate) hash: String,
}

/// Makes keys for users, and knows them again.
#[derive(Clone)]
pub(super) struct KeySigner(hmac::Key);

impl KeySigner {
    pub(super) fn new(key: hmac::Key) -> Self {
        KeySigner(key)
    }

    pub(super) fn new_key(&self, user: Uuid) -> Result<NewKey> {
        let mut bytes = vec![0; RANDOM_BYTES];
        let random = rand::SystemRandom::new();
        random
            .fill(&mut bytes)
            .map_err(|_| Error::Internal("the system has no randomness".to_owned()))?;
        bytes.extend(user.as_bytes());
        bytes.extend(self.tag(&bytes));
        let key = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
        Ok(NewKey {
            prefix: key[..SHOWN_CHARS].to_owned(),
            hash: hash(&key),
            key,
        })
    }

    /// The user of a key that was made here.
    pub(super) fn user_of(&self, key: &str) -> Option<Uuid> {
        let bytes = key.strip_prefix(PREFIX)?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(bytes).ok()?;
        let (data, tag) = bytes.split_at_checked(RANDOM_BYTES + USER_BYTES)?;
        let user = Uuid::from_slice(&data[RANDOM_BYTES..]).ok()?;
        (tag == self.tag(data)).then_some(user)
    }

    fn tag(&self, data: &[u8]) -> Vec<u8> {
        hmac::sign(&self.0, data).as_ref()[..TAG_BYTES].to_vec()
    }
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
        keys.insert(hash(key));
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.contains(&hash(key))
    }
}

/// What is stored of a key.
pub(crate) fn hash(key: &str) -> String {
    hex(digest::digest(&digest::SHA256, key.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_ours_is_known_and_no_other() {
        let signer = KeySigner::new(hmac::Key::new(hmac::HMAC_SHA256, b"secret"));
        let user = Uuid::now_v7();
        let NewKey { key, prefix, .. } = signer.new_key(user).unwrap();
        assert_eq!(key.len(), 68);
        assert!(key.starts_with(&prefix));
        assert_eq!(signer.user_of(&key), Some(user));
        let other = KeySigner::new(hmac::Key::new(hmac::HMAC_SHA256, b"another secret"));
        assert_eq!(other.user_of(&key), None);
        for invented in [
            "",
            "bpk_",
            "bpk_AAAA",
            &format!("bpk_{}", "A".repeat(64)),
            &key[4..],
        ] {
            assert_eq!(signer.user_of(invented), None, "{invented}");
        }
    }
}
