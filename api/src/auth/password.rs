//! Passwords: argon2id, on threads of their own, a few at a time.
//!
//! The cost is OWASP's least for argon2id, which is also the library's default:
//! <https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Params, PasswordHasher, PasswordVerifier};

use crate::concurrency::ConcurrencyLimit;
use crate::error::{Error, Result};

mod common_passwords;
mod hash_buffers;
pub(crate) mod rules;

use hash_buffers::{HashBuffer, HashBufferPool};

/// Hashes and verifies, at no more places than there are cores: more would only
/// take memory.
#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    places: ConcurrencyLimit,
    /// Those who sign up have a line of their own, and come one by one from there
    /// for no more than half of the places: a crowd of them keeps nobody from
    /// signing in.
    sign_ups: ConcurrencyLimit,
    memories: HashBufferPool,
    /// Verified for names that don't exist, so that the answer takes as long.
    decoy: Arc<str>,
}

/// What a password turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verification {
    /// Not the one.
    Mismatch,
    /// The one.
    Match,
    /// The one, but its hash is weaker than those made today; here is a new one.
    NeedsRehash(String),
}

impl Passwords {
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let decoy = hash(&HashBuffer::default(), "a password that no one has")?;
        Ok(Passwords {
            places: ConcurrencyLimit::new(cores),
            sign_ups: ConcurrencyLimit::new(cores.div_ceil(2)),
            memories: HashBufferPool::default(),
            decoy: decoy.into(),
        })
    }

    /// Hashes a password, in PHC's string format.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if too many want it, and when the system has no randomness.
    pub(crate) async fn hash(&self, password: String) -> Result<String> {
        self.run_blocking(move |memory| hash(memory, &password))
            .await?
    }

    /// Hashes the password of somebody who signs up.
    ///
    /// # Errors
    /// As [`Passwords::hash`].
    pub(crate) async fn hash_for_sign_up(&self, password: String) -> Result<String> {
        let passwords = self.clone();
        let hash = async move { passwords.hash(password).await };
        self.sign_ups.run(hash).await?
    }

    /// Verifies a password against a hash; without one, takes as long and says
    /// it is wrong.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if too many want it, and when the hash can't be read or the
    /// system has no randomness.
    pub(crate) async fn verify(
        &self,
        password: String,
        stored: Option<&str>,
    ) -> Result<Verification> {
        let exists = stored.is_some();
        let stored = stored.unwrap_or(&self.decoy).to_owned();
        let work = move |memory: &HashBuffer| verify(memory, &password, &stored);
        let verdict = self.run_blocking(work).await??;
        Ok(if exists {
            verdict
        } else {
            Verification::Mismatch
        })
    }

    async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&HashBuffer) -> T + Send + 'static,
    ) -> Result<T> {
        let memories = self.memories.clone();
        self.places.run_blocking(move || memories.with(work)).await
    }
}

fn hash(memory: &HashBuffer, password: &str) -> Result<String> {
    let hash = memory
        .hash_password(password.as_bytes())
        .map_err(|e| Error::Internal(format!("can't hash a password: {e}")))?;
    Ok(hash.to_string())
}

fn verify(memory: &HashBuffer, password: &str, stored: &str) -> Result<Verification> {
    let parsed = PasswordHash::new(stored)
        .map_err(|e| Error::Internal(format!("a stored hash can't be read: {e}")))?;
    if memory
        .verify_password(password.as_bytes(), &parsed)
        .is_err()
    {
        return Ok(Verification::Mismatch);
    }
    if is_outdated(&parsed) {
        return hash(memory, password).map(Verification::NeedsRehash);
    }
    Ok(Verification::Match)
}

fn is_outdated(hash: &PasswordHash) -> bool {
    let Ok(params) = Params::try_from(hash) else {
        return true;
    };
    params.m_cost() < Params::DEFAULT_M_COST
        || params.t_cost() < Params::DEFAULT_T_COST
        || params.p_cost() < Params::DEFAULT_P_COST
}

#[cfg(test)]
mod tests {
    use argon2::Argon2;

    use tokio::task::{JoinSet, yield_now};

    use super::*;

    #[test]
    fn a_password_is_verified() {
        let memory = HashBuffer::default();
        let stored = hash(&memory, "correct horse").unwrap();
        assert!(
            stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{stored}"
        );
        let verdict = |password| verify(&memory, password, &stored).unwrap();
        assert_eq!(verdict("correct horse"), Verification::Match);
        assert_eq!(verdict("battery staple"), Verification::Mismatch);
    }

    #[test]
    fn a_weak_hash_is_replaced() {
        let weak = Argon2::from(Params::new(8 * 1024, 1, 1, None).unwrap())
            .hash_password(b"correct horse")
            .unwrap()
            .to_string();
        let memory = HashBuffer::default();
        let verdict = |stored: &str| verify(&memory, "correct horse", stored).unwrap();
        let Verification::NeedsRehash(new) = verdict(&weak) else {
            panic!("not replaced");
        };
        assert_eq!(verdict(&new), Verification::Match);
    }

    #[tokio::test]
    async fn a_crowd_that_signs_up_keeps_nobody_from_signing_in() {
        const CROWD: usize = 64;
        let passwords = Passwords::new().unwrap();
        let mut crowd = JoinSet::new();
        for _ in 0..CROWD {
            let passwords = passwords.clone();
            crowd
                .spawn(async move { passwords.hash_for_sign_up("correct horse".to_owned()).await });
        }
        // Now all of them are in line.
        yield_now().await;
        let verdict = passwords.verify("correct horse".to_owned(), None).await;
        assert_eq!(verdict.unwrap(), Verification::Mismatch);
        while let Some(signed_up) = crowd.try_join_next() {
            signed_up.unwrap().unwrap();
        }
        assert!(crowd.len() > CROWD / 2, "{} are left", crowd.len());
    }
}
