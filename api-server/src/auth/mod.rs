//! Who is calling: passwords, lock-out, access tokens, refresh tokens, API keys.

pub mod lockout;
pub mod password;
pub mod tokens;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a user may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything about the own tasks and keys.
    #[default]
    User,
    /// Also users, analytics, and reading and ending anybody's tasks.
    Admin,
}

impl Role {
    /// As in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    /// Reads a text of the ledger; what is not known is not an admin.
    pub fn from_ledger(text: &str) -> Self {
        if text == Self::Admin.as_str() {
            Self::Admin
        } else {
            Self::User
        }
    }
}
