//! A pool of argon2 buffers.
//!
//! A hash takes 19 MiB. The library would allocate them for each, on the thread that makes it, and
//! glibc keeps what each thread has freed: some hundred MiB after as many sign-ins. Here a hash
//! reuses the wiped buffer of an earlier one, so that hashing takes at most 19 MiB a core.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::password_hash::{self, CustomizedPasswordHasher, PasswordHasher};
use argon2::{Algorithm, Argon2, Block, Params, Version};

/// Free buffers. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct HashBufferPool(Arc<Mutex<Vec<HashBuffer>>>);

impl HashBufferPool {
    /// Runs `work` with the buffer that was used last, or a new one if none is free.
    pub(super) fn with<T>(&self, work: impl FnOnce(&HashBuffer) -> T) -> T {
        let buffer = self.free().pop().unwrap_or_default();
        let done = work(&buffer);
        self.free().push(buffer);
        done
    }

    fn free(&self) -> MutexGuard<'_, Vec<HashBuffer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hashes and verifies as [`Argon2`] does, one password at a time.
#[derive(Default)]
pub(super) struct HashBuffer(RefCell<Vec<Block>>);

impl fmt::Debug for HashBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashBuffer")
    }
}

impl PasswordHasher<PasswordHash> for HashBuffer {
    fn hash_password_with_salt(
        &self,
        password: &[u8],
        salt: &[u8],
    ) -> password_hash::Result<PasswordHash> {
        self.hash_password_with_params(password, salt, Params::default())
    }
}

/// The library derives the verifier from this.
impl CustomizedPasswordHasher<PasswordHash> for HashBuffer {
    type Params = Params;

    fn hash_password_customized(
        &self,
        password: &[u8],
        salt: &[u8],
        algorithm: Option<&str>,
        version: Option<u32>,
        params: Params,
    ) -> password_hash::Result<PasswordHash> {
        let algorithm = algorithm.map_or(Ok(Algorithm::default()), Algorithm::try_from)?;
        let version = version.map_or(Ok(Version::default()), Version::try_from)?;
        let salt = Salt::new(salt)?;
        let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
        let mut output = [0; Output::MAX_LENGTH];
        let output = output.get_mut(..length);
        let output = output.ok_or(password_hash::Error::OutputSize)?;

        let argon2 = Argon2::new(algorithm, version, params);
        let params = argon2.params();
        let mut blocks = self.0.borrow_mut();
        if blocks.len() < params.block_count() {
            blocks.resize(params.block_count(), Block::new());
        }
        let hashed =
            argon2.hash_password_into_with_memory(password, &salt, output, &mut blocks[..]);
        blocks.fill(Block::new());
        hashed?;

        Ok(PasswordHash {
            algorithm: algorithm.ident(),
            version: Some(version.into()),
            params: ParamsString::try_from(params)?,
            salt: Some(salt),
            hash: Some(Output::new(output)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn hashes_are_those_that_the_library_makes() {
        let memory = HashBuffer::default();
        let (password, salt) = (b"correct horse", b"a salt of sixteen");
        let params = |m, t, p, length| Params::new(m, t, p, length).unwrap();
        for (algorithm, version, params) in [
            (Algorithm::Argon2id, Version::V0x13, Params::default()),
            // Less memory than the last had, and then more.
            (
                Algorithm::Argon2i,
                Version::V0x13,
                params(64, 1, 2, Some(16)),
            ),
            (
                Algorithm::Argon2d,
                Version::V0x10,
                params(20000, 2, 4, None),
            ),
        ] {
            let ours = memory.hash_password_customized(
                password,
                salt,
                Some(algorithm.as_str()),
                Some(version.into()),
                params.clone(),
            );
            let theirs = Argon2::new(algorithm, version, params);
            assert_eq!(ours, theirs.hash_password_with_salt(password, salt));
        }
    }

    #[test]
    fn memory_serves_again_and_holds_nothing_of_what_it_was_used_for() {
        let memories = HashBufferPool::default();
        let hash = || memories.with(|memory| memory.hash_password(b"correct horse").unwrap());
        thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| (0..10).map(|_| hash()).for_each(drop));
            }
        });
        let memories = memories.free();
        assert!((1..=2).contains(&memories.len()), "{}", memories.len());
        for memory in memories.iter() {
            let blocks = memory.0.borrow();
            assert_eq!(blocks.len(), Params::DEFAULT.block_count());
            let mut words = blocks.iter().flat_map(|block| block.as_ref());
            assert!(words.all(|word| *word == 0));
        }
    }
}
