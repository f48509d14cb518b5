//! Which passwords a user may choose.

use super::common_passwords::is_common;
use crate::extract::field_reader::Violation;

/// Accepts a new password of the user called `username`.
pub(crate) fn new_password(
    password: String,
    username: &str,
) -> std::result::Result<String, Violation> {
    let (code, message) = match password.chars().count() {
        ..8 => ("too_short", "must have at least 8 characters"),
        129.. => ("too_long", "must have at most 128 characters"),
        _ if password.eq_ignore_ascii_case(username) => {
            ("same_as_username", "must not be the username")
        }
        _ if is_common(&password) => ("too_common", "is one of the commonest passwords"),
        _ => return Ok(password),
    };
    Err((code, message.to_owned()))
}
