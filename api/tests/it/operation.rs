//! What operators see: health, readiness, request ids.
