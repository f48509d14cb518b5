//! Jobs, through their life.
