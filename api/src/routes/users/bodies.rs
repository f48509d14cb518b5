//! What clients send about accounts, and the rules for names and passwords.

use utoipa::ToSchema;

use crate::body::{Body, Fault, Fields, any, text};
use crate::password::is_common;

/// A new account.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Unique whatever its case.
    #[schema(min_length = 3, max_length = 32, pattern = "^[A-Za-z0-9_.-]+$")]
    pub(super) username: String,
    /// Any characters; not a common one, nor the username.
    #[schema(min_length = 8, max_length = 128, format = Password)]
    pub(super) password: String,
}

impl Body for Registration {
    fn read(fields: &mut Fields) -> Option<Self> {
        let username = fields.required("username", username);
        let password = fields.required("password", |password| {
            new_password(password, username.as_deref().unwrap_or_default())
        });
        Some(Registration {
            username: username?,
            password: password?,
        })
    }
}

/// Name and password.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    #[schema(max_length = 32, pattern = "^[^\\x00]*$")]
    pub(super) username: String,
    #[schema(max_length = 128, format = Password)]
    pub(super) password: String,
}

impl Body for Credentials {
    fn read(fields: &mut Fields) -> Option<Self> {
        // It is looked up, so it must be something that can be stored.
        let username = fields.required("username", text(0, usize::MAX));
        let password = fields.required("password", any);
        Some(Credentials {
            username: username?,
            password: password?,
        })
    }
}

/// A refresh token.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    #[schema(max_length = 43, pattern = "^[A-Za-z0-9_-]{43}$")]
    pub(super) refresh_token: String,
}

impl Body for Refresh {
    fn read(fields: &mut Fields) -> Option<Self> {
        let refresh_token = fields.required("refresh_token", any)?;
        Some(Refresh { refresh_token })
    }
}

/// The old password and the new one.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    #[schema(max_length = 128, format = Password)]
    pub(super) current_password: String,
    /// Any characters; not a common one, nor the username.
    #[schema(min_length = 8, max_length = 128, format = Password)]
    pub(super) new_password: String,
}

impl Body for PasswordChange {
    fn read(fields: &mut Fields) -> Option<Self> {
        let current_password = fields.required("current_password", any);
        let new_password = fields.required("new_password", |new| new_password(new, ""));
        Some(PasswordChange {
            current_password: current_password?,
            new_password: new_password?,
        })
    }
}

/// The password, once more.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    #[schema(max_length = 128, format = Password)]
    pub(super) password: String,
}

impl Body for Confirmation {
    fn read(fields: &mut Fields) -> Option<Self> {
        let password = fields.required("password", any)?;
        Some(Confirmation { password })
    }
}

fn username(name: String) -> std::result::Result<String, Fault> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !name.chars().all(known) {
        let message = "may only have letters, digits, and . _ -";
        return Err(("invalid", message.to_owned()));
    }
    match name.len() {
        ..3 => Err(("too_short", "must have at least 3 characters".to_owned())),
        33.. => Err(("too_long", "must have at most 32 characters".to_owned())),
        _ => Ok(name),
    }
}

fn new_password(password: String, username: &str) -> std::result::Result<String, Fault> {
    match password.chars().count() {
        ..8 => Err(("too_short", "must have at least 8 characters".to_owned())),
        129.. => Err(("too_long", "must have at most 128 characters".to_owned())),
        _ if is_username(&password, username) => Err(password_is_username()),
        _ if is_common(&password) => {
            let message = "is one of the passwords that are tried first";
            Err(("too_common", message.to_owned()))
        }
        _ => Ok(password),
    }
}

pub(super) fn is_username(password: &str, username: &str) -> bool {
    password.eq_ignore_ascii_case(username)
}

pub(super) fn password_is_username() -> Fault {
    ("same_as_username", "must not be the username".to_owned())
}
