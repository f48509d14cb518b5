//! Access tokens, refresh tokens, and the secret that signs everything.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use entity::clock::now;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error as JwtError, ErrorKind as JwtErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::rand::SecureRandom;
use ring::{digest, hmac, rand};
use serde::{Deserialize, Serialize};
use shared::config::Secret;
use shared::private_file;
use signature::{Signer, Verifier};
use uuid::Uuid;

use crate::error::{Error, Result};

const ISSUER: &str = "blog-post-api";
const AUDIENCE: &str = "blog-post-api";
const ACCESS_TOKEN_TYPE: &str = "access";

/// How far the clocks of several API machines may differ, in seconds.
const CLOCK_SKEW: i64 = 60;

/// The claims of an access token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    aud: String,
    /// Always `access`, so that no other kind of token is mistaken for one.
    typ: String,
    /// The user's id.
    pub(crate) sub: Uuid,
    /// The session's id.
    pub(crate) sid: Uuid,
    iat: i64,
    nbf: i64,
    exp: i64,
}

impl Claims {
    /// The claims, if they are valid at `now`.
    fn at(self, now: i64) -> Result<Self> {
        if self.exp <= now {
            return Err(Error::TokenExpired);
        }
        if self.nbf > now {
            return Err(Error::Unauthenticated);
        }
        Ok(self)
    }
}

/// The keys derived from the secret.
#[derive(Clone)]
pub struct SigningKeys {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    cursors: hmac::Key,
    guard: hmac::Key,
    api_keys: hmac::Key,
}

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKeys([secret])")
    }
}

impl SigningKeys {
    /// Derives the keys from `secret`.
    pub fn new(secret: &Secret) -> Self {
        // If it is installed already, it is the same one.
        let _ = PROVIDER.install_default();
        let secret = secret.expose().as_bytes();
        let mut validation = Validation::new(Algorithm::HS256);
        // Checked by the database's clock, which the library does not know.
        validation.validate_exp = false;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp", "nbf"]);
        let tokens = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived = |purpose: &[u8]| {
            let key = hmac::sign(&tokens, purpose);
            hmac::Key::new(hmac::HMAC_SHA256, key.as_ref())
        };
        SigningKeys {
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            validation,
            cursors: derived(b"cursors"),
            guard: derived(b"guard"),
            api_keys: derived(b"api keys"),
        }
    }

    /// Signs an access token.
    pub(crate) fn access_token(&self, user: Uuid, session: Uuid, ttl: Duration) -> Result<String> {
        let now = now().timestamp();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            typ: ACCESS_TOKEN_TYPE.to_owned(),
            sub: user,
            sid: session,
            iat: now,
            nbf: now - CLOCK_SKEW,
            exp: now + i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX / 2),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(|e| Error::Internal(format!("can't sign a token: {e}")))
    }

    /// The claims of an access token that is signed by us and valid now.
    ///
    /// # Errors
    /// [`Error::TokenExpired`] or [`Error::Unauthenticated`].
    pub(crate) fn read_access_token(&self, token: &str) -> Result<Claims> {
        let read = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation);
        match read {
            Ok(token) if token.claims.typ == ACCESS_TOKEN_TYPE => {
                token.claims.at(now().timestamp())
            }
            _ => Err(Error::Unauthenticated),
        }
    }

    /// A signature for an API key.
    pub(super) fn api_key_tag(&self, data: &[u8]) -> [u8; 8] {
        let tag = hmac::sign(&self.api_keys, data);
        let mut short = [0; 8];
        short.copy_from_slice(&tag.as_ref()[..8]);
        short
    }

    /// A signature for a cursor.
    pub(crate) fn cursor_tag(&self, data: &[u8]) -> [u8; 16] {
        let tag = hmac::sign(&self.cursors, data);
        let mut short = [0; 16];
        short.copy_from_slice(&tag.as_ref()[..16]);
        short
    }

    /// A keyed hash, in hexadecimal, of input that must not be stored.
    pub(crate) fn throttle_tag(&self, data: &[u8]) -> String {
        hex(hmac::sign(&self.guard, data).as_ref())
    }
}

/// A new refresh token: 256 random bits.
pub(crate) fn new_refresh_token() -> Result<String> {
    random().map_err(Error::internal)
}

/// What is stored of a refresh token or an API key: its SHA-256, in hexadecimal.
pub(crate) fn secret_hash(token: &str) -> String {
    hex(digest::digest(&digest::SHA256, token.as_bytes()).as_ref())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The secret in `data_dir`, created if there is none. Processes that start at once get the same.
///
/// # Errors
/// When it can't be read or written.
pub(crate) fn load_or_create_secret(data_dir: &Path) -> anyhow::Result<Secret> {
    let path = data_dir.join("jwt-secret");
    let doing = || format!("the JWT secret in {}", path.display());
    private_file::restrict_permissions(&path);
    if !path.exists() {
        // A link appears complete or not at all, and never replaces a file.
        let draft = data_dir.join(format!(".jwt-secret-{}", Uuid::now_v7()));
        let mut file = create_private_file(&draft)?;
        file.write_all(random()?.as_bytes()).with_context(doing)?;
        file.sync_all().with_context(doing)?;
        let linked = fs::hard_link(&draft, &path);
        fs::remove_file(&draft).with_context(doing)?;
        if let Err(e) = linked
            && e.kind() != ErrorKind::AlreadyExists
        {
            return Err(e).with_context(doing);
        }
    }
    let secret = fs::read_to_string(&path).with_context(doing)?;
    anyhow::ensure!(secret.trim().len() >= 32, "{} is too short", doing());
    Ok(Secret::from(secret.trim()))
}

fn create_private_file(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(private_file::MODE)
        .open(path);
    file.with_context(|| format!("can't make {}", path.display()))
}

fn random() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| anyhow::anyhow!("the system has no randomness"))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// Knows HMAC with SHA-256 only, whichever algorithm a token's header names.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| match algorithm {
        Algorithm::HS256 => Ok(Box::new(HmacSha256::new(key.as_bytes()))),
        _ => Err(JwtError::from(JwtErrorKind::InvalidAlgorithm)),
    },
    verifier_factory: |algorithm, key| match algorithm {
        Algorithm::HS256 => Ok(Box::new(HmacSha256::new(key.try_get_as_bytes()?))),
        _ => Err(JwtError::from(JwtErrorKind::InvalidAlgorithm)),
    },
    key_utils: KeyUtils::new_unimplemented(),
};

struct HmacSha256(hmac::Key);

impl HmacSha256 {
    fn new(secret: &[u8]) -> Self {
        HmacSha256(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

impl Signer<Vec<u8>> for HmacSha256 {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, signature::Error> {
        Ok(hmac::sign(&self.0, message).as_ref().to_vec())
    }
}

impl Verifier<Vec<u8>> for HmacSha256 {
    fn verify(&self, message: &[u8], tag: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        hmac::verify(&self.0, message, tag).map_err(|_| signature::Error::new())
    }
}

impl JwtSigner for HmacSha256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for HmacSha256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> SigningKeys {
        SigningKeys::new(&Secret::from("0123456789abcdef0123456789abcdef"))
    }

    #[test]
    fn a_token_comes_back_as_it_went() {
        let (user, session) = (Uuid::now_v7(), Uuid::now_v7());
        let token = keys()
            .access_token(user, session, Duration::from_secs(9))
            .unwrap();
        let claims = keys().read_access_token(&token).unwrap();
        assert_eq!((claims.sub, claims.sid), (user, session));
    }

    #[test]
    fn a_token_of_another_key_is_refused() {
        let other = SigningKeys::new(&Secret::from("ffffffffffffffffffffffffffffffff"));
        let token = other.access_token(Uuid::now_v7(), Uuid::now_v7(), Duration::from_secs(9));
        let read = keys().read_access_token(&token.unwrap());
        assert!(matches!(read, Err(Error::Unauthenticated)));
    }

    #[test]
    fn an_expired_token_is_told_apart() {
        let token = keys().access_token(Uuid::now_v7(), Uuid::now_v7(), Duration::ZERO);
        // It is good until the end of the second that it expires in.
        std::thread::sleep(Duration::from_millis(1100));
        let read = keys().read_access_token(&token.unwrap());
        assert!(matches!(read, Err(Error::TokenExpired)));
    }

    #[test]
    fn refresh_tokens_are_256_bits_that_nobody_can_guess() {
        const MANY: usize = 1000;
        let mut tokens = std::collections::HashSet::new();
        let mut ones = [0; 256];
        for _ in 0..MANY {
            let token = new_refresh_token().unwrap();
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(&token).unwrap();
            assert_eq!(bytes.len(), 32);
            for (place, ones) in ones.iter_mut().enumerate() {
                *ones += usize::from(bytes[place / 8] >> (place % 8) & 1);
            }
            tokens.insert(token);
        }
        assert_eq!(tokens.len(), MANY);
        // Each bit is one in about every other token.
        let odd = |ones: &&usize| !(MANY * 2 / 5..=MANY * 3 / 5).contains(*ones);
        assert_eq!(ones.iter().find(odd), None);
    }

    #[test]
    fn the_secret_is_made_once_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_create_secret(dir.path()).unwrap();
        assert_eq!(load_or_create_secret(dir.path()).unwrap(), first);
        let mode = std::fs::metadata(dir.path().join("jwt-secret"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
