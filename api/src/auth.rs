//! Who calls: passwords, tokens, and the user that a request comes from.

pub(crate) mod current_user;
pub(crate) mod login_throttle;
pub(crate) mod password;
pub(crate) mod tokens;
