//! Who is calling: passwords, lock-out, access tokens, refresh tokens, API keys.

pub mod caller;
pub mod lockout;
pub mod lockouts;
pub mod logins;
pub mod password;
pub mod standing;
pub mod tokens;

use selextract_platform::ledger::users;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a user may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything about the own tasks and keys.
    #[default]
    Member,
    /// Also users, analytics, and reading and ending anybody's tasks.
    Admin,
}

impl From<users::Role> for Role {
    fn from(role: users::Role) -> Self {
        match role {
            users::Role::Admin => Self::Admin,
            users::Role::Member => Self::Member,
        }
    }
}

impl From<Role> for users::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
            Role::Member => Self::Member,
        }
    }
}

impl Role {
    /// The role of a user of the ledger.
    pub fn of(user: &users::User) -> Self {
        users::Role::from_ledger(&user.role).into()
    }
}
