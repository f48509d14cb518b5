//! What clients send to sign up, to sign in, and to stay signed in.

use utoipa::ToSchema;

use crate::body::{Body, Fault, Fields, any, text};
use crate::routes::users::new_password;

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
