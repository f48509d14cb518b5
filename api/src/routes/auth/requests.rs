//! The bodies of registration, login and refresh.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::auth::password::rules::new_password;
use crate::extract::field_reader::{FieldReader, FromFields, Violation, accept_any};
use crate::extract::text_rules::length;

/// A new account.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegisterRequest {
    /// Unique, case-insensitive.
    #[schema(min_length = 3, max_length = 32, pattern = "^[A-Za-z0-9_.-]+$")]
    pub(super) username: String,
    /// Any characters; neither a common password nor the username.
    #[schema(min_length = 8, max_length = 128, format = Password)]
    pub(super) password: String,
    /// `browser` to get the refresh token as a cookie.
    #[schema(nullable)]
    pub(super) client: Option<ClientKind>,
}

impl FromFields for RegisterRequest {
    fn from_fields(fields: &mut FieldReader) -> Option<Self> {
        let username = fields.required("username", username);
        let password = fields.required("password", |password| {
            new_password(password, username.as_deref().unwrap_or_default())
        });
        let client = fields.optional("client", accept_any);
        Some(RegisterRequest {
            username: username?,
            password: password?,
            client: client?,
        })
    }
}

/// Username and password.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginRequest {
    #[schema(max_length = 32, pattern = "^[^\\x00]*$")]
    pub(super) username: String,
    #[schema(max_length = 128, format = Password)]
    pub(super) password: String,
    /// `browser` to get the refresh token as a cookie.
    #[schema(nullable)]
    pub(super) client: Option<ClientKind>,
}

impl FromFields for LoginRequest {
    fn from_fields(fields: &mut FieldReader) -> Option<Self> {
        // It is looked up, so it must be valid for the database.
        let username = fields.required("username", length(0, usize::MAX));
        let password = fields.required("password", accept_any);
        let client = fields.optional("client", accept_any);
        Some(LoginRequest {
            username: username?,
            password: password?,
            client: client?,
        })
    }
}

/// A kind of client that is treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientKind {
    /// A page in a browser.
    Browser,
}

/// A refresh token. A browser sends none: it has the cookie.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshRequest {
    #[schema(max_length = 43, pattern = "^[A-Za-z0-9_-]{43}$")]
    pub(super) refresh_token: Option<String>,
}

impl FromFields for RefreshRequest {
    fn from_fields(fields: &mut FieldReader) -> Option<Self> {
        let refresh_token = fields.optional("refresh_token", accept_any)?;
        Some(RefreshRequest { refresh_token })
    }
}

fn username(name: String) -> std::result::Result<String, Violation> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let (code, message) = match name.len() {
        _ if !name.chars().all(known) => ("invalid", "may only have letters, digits, and . _ -"),
        ..3 => ("too_short", "must have at least 3 characters"),
        33.. => ("too_long", "must have at most 32 characters"),
        _ => return Ok(name),
    };
    Err((code, message.to_owned()))
}
