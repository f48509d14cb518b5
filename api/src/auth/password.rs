//! Password hashing: argon2id on blocking threads, with limited concurrency.
//!
//! The cost is OWASP's minimum for argon2id, which is also the library's default:
//! <https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Params, PasswordHasher, PasswordVerifier};

use crate::concurrency_limit::ConcurrencyLimit;
use crate::error::{Error, Result};

mod common_passwords;
mod hash_buffers;
pub(crate) mod rules;

use hash_buffers::{HashBuffer, HashBufferPool};

/// Hashes and verifies passwords, at most one per core: more would only take buffer.
#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    permits: ConcurrencyLimit,
    /// Sign-ups queue here first, and take at most half of the permits: a crowd of them keeps
    /// nobody from signing in.
    sign_ups: ConcurrencyLimit,
    buffers: HashBufferPool,
}

/// Verified for unknown usernames, so that the response takes as long. It costs what a new hash
/// does, and is none of any password: nobody has calculated it.
const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$\
                     AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The result of verifying a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verification {
    Mismatch,
    Match,
    /// It matches, but its hash is weaker than current ones; this is a new one.
    NeedsRehash(String),
}

impl Passwords {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Passwords {
            permits: ConcurrencyLimit::new(cores),
            sign_ups: ConcurrencyLimit::new(cores.div_ceil(2)),
            buffers: HashBufferPool::default(),
        }
    }

    /// Hashes a password, as a PHC string.
    ///
    /// # Errors
    /// [`Error::Overloaded`] without a permit in time.
    pub(crate) async fn hash(&self, password: String) -> Result<String> {
        self.run_blocking(move |buffer| hash(buffer, &password))
            .await?
    }

    /// Hashes the password of a new account.
    ///
    /// # Errors
    /// As [`Passwords::hash`].
    pub(crate) async fn hash_for_sign_up(&self, password: String) -> Result<String> {
        let passwords = self.clone();
        let hash = async move { passwords.hash(password).await };
        self.sign_ups.run(hash).await?
    }

    /// Verifies a password against a stored hash; without one, takes as long and is a mismatch.
    ///
    /// # Errors
    /// [`Error::Overloaded`] without a permit in time.
    pub(crate) async fn verify(
        &self,
        password: String,
        stored: Option<&str>,
    ) -> Result<Verification> {
        let exists = stored.is_some();
        let stored = stored.unwrap_or(DECOY).to_owned();
        let work = move |buffer: &HashBuffer| verify(buffer, &password, &stored);
        let verification = self.run_blocking(work).await??;
        Ok(if exists {
            verification
        } else {
            Verification::Mismatch
        })
    }

    async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&HashBuffer) -> T + Send + 'static,
    ) -> Result<T> {
        let buffers = self.buffers.clone();
        self.permits.run_blocking(move || buffers.with(work)).await
    }
}

fn hash(buffer: &HashBuffer, password: &str) -> Result<String> {
    let hash = buffer
        .hash_password(password.as_bytes())
        .map_err(|e| Error::Internal(format!("can't hash a password: {e}")))?;
    Ok(hash.to_string())
}

fn verify(buffer: &HashBuffer, password: &str, stored: &str) -> Result<Verification> {
    let parsed = PasswordHash::new(stored)
        .map_err(|e| Error::Internal(format!("can't read a stored hash: {e}")))?;
    if buffer
        .verify_password(password.as_bytes(), &parsed)
        .is_err()
    {
        return Ok(Verification::Mismatch);
    }
    if is_outdated(&parsed) {
        return hash(buffer, password).map(Verification::NeedsRehash);
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
        let buffer = HashBuffer::default();
        let stored = hash(&buffer, "correct horse").unwrap();
        assert!(
            stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{stored}"
        );
        let verification = |password| verify(&buffer, password, &stored).unwrap();
        assert_eq!(verification("correct horse"), Verification::Match);
        assert_eq!(verification("battery staple"), Verification::Mismatch);
    }

    #[test]
    fn an_unknown_user_costs_what_a_user_does() {
        let new = hash(&HashBuffer::default(), "correct horse").unwrap();
        assert_eq!(DECOY.len(), new.len());
        let decoy = PasswordHash::new(DECOY).unwrap();
        let new = PasswordHash::new(&new).unwrap();
        assert_eq!(decoy.algorithm, new.algorithm);
        assert_eq!((decoy.version, decoy.params), (new.version, new.params));
    }

    #[test]
    fn a_weak_hash_is_replaced() {
        let weak = Argon2::from(Params::new(8 * 1024, 1, 1, None).unwrap())
            .hash_password(b"correct horse")
            .unwrap()
            .to_string();
        let buffer = HashBuffer::default();
        let verification = |stored: &str| verify(&buffer, "correct horse", stored).unwrap();
        let Verification::NeedsRehash(new) = verification(&weak) else {
            panic!("not replaced");
        };
        assert_eq!(verification(&new), Verification::Match);
    }

    #[tokio::test]
    async fn a_crowd_that_signs_up_keeps_nobody_from_signing_in() {
        const CROWD: usize = 64;
        let passwords = Passwords::new();
        let mut crowd = JoinSet::new();
        for _ in 0..CROWD {
            let passwords = passwords.clone();
            crowd
                .spawn(async move { passwords.hash_for_sign_up("correct horse".to_owned()).await });
        }
        // Now all of them are in line.
        yield_now().await;
        let verification = passwords.verify("correct horse".to_owned(), None).await;
        assert_eq!(verification.unwrap(), Verification::Mismatch);
        while let Some(signed_up) = crowd.try_join_next() {
            signed_up.unwrap().unwrap();
        }
        assert!(crowd.len() > CROWD / 2, "{} are left", crowd.len());
    }
}
