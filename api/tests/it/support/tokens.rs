//! Access tokens, taken apart and forged.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

use super::test_app::SECRET;

/// The parts of a token, decoded: its header and its claims.
pub(crate) fn decode_token(token: &str) -> (Value, Value) {
    let mut parts = token.split('.').map(|part| {
        let json = BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice(&json).unwrap_or_default()
    });
    (parts.next().unwrap(), parts.next().unwrap())
}

/// A part of a token.
pub(crate) fn encode_part(part: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(part)
}

/// A token that says whatever one likes.
pub(crate) fn forge_token(
    header: &Value,
    claims: &Value,
    algorithm: hmac::Algorithm,
    secret: &str,
) -> String {
    let said = [header, claims].map(|part| encode_part(part.to_string().as_bytes()));
    let said = said.join(".");
    let key = hmac::Key::new(algorithm, secret.as_bytes());
    let signature = hmac::sign(&key, said.as_bytes());
    format!("{said}.{}", encode_part(signature.as_ref()))
}

/// A token that we could have signed ourselves.
pub(crate) fn sign_token(claims: &Value) -> String {
    let header = json!({ "typ": "JWT", "alg": "HS256" });
    forge_token(&header, claims, hmac::HMAC_SHA256, SECRET)
}
