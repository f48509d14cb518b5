//! Authentication: passwords, tokens, and the current user.

pub(crate) mod api_keys;
pub(crate) mod browser;
pub(crate) mod current_user;
pub(crate) mod login_throttle;
pub(crate) mod password;
pub(crate) mod session_cache;
pub(crate) mod tokens;
