//! Tokens: forged, expired, revoked, replayed.
