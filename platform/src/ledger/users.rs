//! Users, API keys and refresh tokens. Hashes come from the caller; nothing here knows a password or a key.

use std::time::Duration;

use snafu::ResultExt;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Ledger, LedgerError, UserId, error::DatabaseSnafu, error::NameTakenSnafu, transaction};

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything, with everybody's tasks.
    Admin,
    /// What is theirs.
    Member,
}

impl Role {
    /// As in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }

    /// Reads a text of the ledger; what is unknown has the least rights.
    pub fn from_ledger(text: &str) -> Self {
        if text == "admin" { Self::Admin } else { Self::Member }
    }
}

/// A user.
#[derive(Clone, Debug, FromRow)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// Unique; of a namespace `k8s:<namespace>`.
    pub name: String,
    /// `person` or `namespace`.
    pub kind: String,
    /// As in [`Role`].
    pub role: String,
    /// A PHC string; `None` for who cannot log in.
    pub password_hash: Option<String>,
    /// RFC 3339.
    pub created_at: String,
    /// Disabled users can do nothing.
    pub disabled: bool,
}

/// An API key without its secret.
#[derive(Clone, Debug, FromRow)]
pub struct ApiKey {
    /// The key's identity.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// The first characters of the key, to tell keys apart.
    pub prefix: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub expires_at: Option<String>,
    /// RFC 3339, to the minute.
    pub last_used_at: Option<String>,
    /// RFC 3339.
    pub revoked_at: Option<String>,
}

/// What became of a refresh token that was presented.
#[derive(Clone, Debug)]
pub enum Refresh {
    /// It was good, is used now, and the new one of its family is stored.
    Rotated(User),
    /// It was used before: somebody has a copy. The whole family is revoked.
    Reused,
    /// It is unknown, has expired, or its user is disabled.
    Invalid,
}

const USER: &str = "SELECT id, name, kind, role, password_hash, rfc3339(created_at) AS created_at, disabled_at IS NOT NULL AS disabled FROM users";

impl Ledger {
    /// A user by name.
    pub async fn user_by_name(&self, name: &str) -> Result<Option<User>, LedgerError> {
        sqlx::query_as(sqlx::AssertSqlSafe(format!("{USER} WHERE name = $1")))
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .context(DatabaseSnafu {
                doing: "reading a user",
            })
    }

    /// A user by id.
    pub async fn user(&self, id: UserId) -> Result<Option<User>, LedgerError> {
        sqlx::query_as(sqlx::AssertSqlSafe(format!("{USER} WHERE id = $1")))
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .context(DatabaseSnafu {
                doing: "reading a user",
            })
    }

    /// People, by name; at most `limit` after the name `after`.
    pub async fn users(&self, after: Option<&str>, limit: i64) -> Result<Vec<User>, LedgerError> {
        sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "{USER} WHERE kind = 'person' AND ($1::text IS NULL OR name > $1) ORDER BY name LIMIT $2"
        )))
        .bind(after)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "listing users" })
    }

    /// Creates a person.
    ///
    /// # Errors
    /// [`LedgerError::NameTaken`].
    pub async fn create_user(&self, name: &str, role: Role, password_hash: &str) -> Result<UserId, LedgerError> {
        let id: Option<UserId> = sqlx::query_scalar(
            "INSERT INTO users (id, name, kind, role, password_hash) VALUES ($1, $2, 'person', $3, $4)
             ON CONFLICT (name) DO NOTHING RETURNING id",
        )
        .bind(UserId::new())
        .bind(name)
        .bind(role.as_str())
        .bind(password_hash)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "creating a user",
        })?;
        id.ok_or_else(|| NameTakenSnafu { name }.build())
    }

    /// Disables a person and ends their sessions and keys. Whether there is one.
    pub async fn disable_user(&self, id: UserId) -> Result<bool, LedgerError> {
        let disabled: Option<UserId> = sqlx::query_scalar(
            "WITH disabled AS (
                 UPDATE users SET disabled_at = coalesce(disabled_at, now()) WHERE id = $1 AND kind = 'person' RETURNING id
             ), sessions AS (
                 DELETE FROM refresh_tokens USING disabled WHERE user_id = disabled.id
             ), keys AS (
                 UPDATE api_keys SET revoked_at = now() FROM disabled WHERE user_id = disabled.id AND revoked_at IS NULL
             )
             SELECT id FROM disabled",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "disabling a user" })?;
        Ok(disabled.is_some())
    }

    /// The owner of a namespace's tasks, made when it is new.
    pub async fn namespace_owner(&self, namespace: &str) -> Result<UserId, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "finding a namespace's owner",
        };
        let name = format!("k8s:{namespace}");
        let found = sqlx::query_scalar("SELECT id FROM users WHERE name = $1")
            .bind(&name)
            .fetch_optional(&self.pool)
            .await
            .context(doing)?;
        if let Some(id) = found {
            return Ok(id);
        }
        // DO NOTHING would return no row where another request made it a moment ago.
        sqlx::query_scalar(
            "INSERT INTO users (id, name, kind, role) VALUES ($1, $2, 'namespace', 'member')
             ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id",
        )
        .bind(UserId::new())
        .bind(&name)
        .fetch_one(&self.pool)
        .await
        .context(doing)
    }

    /// Stores an API key.
    pub async fn create_api_key(
        &self,
        user: UserId,
        name: &str,
        prefix: &str,
        hash: &[u8; 32],
        expires_after: Option<Duration>,
    ) -> Result<ApiKey, LedgerError> {
        sqlx::query_as(
            "INSERT INTO api_keys (id, user_id, name, prefix, hash, expires_at)
             VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))
             RETURNING id, name, prefix, rfc3339(created_at) AS created_at, rfc3339(expires_at) AS expires_at,
                       rfc3339(last_used_at) AS last_used_at, rfc3339(revoked_at) AS revoked_at",
        )
        .bind(Uuid::now_v7())
        .bind(user)
        .bind(name)
        .bind(prefix)
        .bind(hash.as_slice())
        .bind(expires_after.map(|d| d.as_secs_f64()))
        .fetch_one(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "creating an API key",
        })
    }

    /// A user's API keys, newest first, a hundred at most.
    pub async fn api_keys(&self, user: UserId) -> Result<Vec<ApiKey>, LedgerError> {
        sqlx::query_as(
            "SELECT id, name, prefix, rfc3339(created_at) AS created_at, rfc3339(expires_at) AS expires_at,
                    rfc3339(last_used_at) AS last_used_at, rfc3339(revoked_at) AS revoked_at
             FROM api_keys WHERE user_id = $1 ORDER BY api_keys.created_at DESC LIMIT 100",
        )
        .bind(user)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "listing API keys",
        })
    }

    /// Revokes a key of a user. Whether there is one.
    pub async fn revoke_api_key(&self, user: UserId, id: Uuid) -> Result<bool, LedgerError> {
        let done =
            sqlx::query("UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 AND user_id = $2")
                .bind(id)
                .bind(user)
                .execute(&self.pool)
                .await
                .context(DatabaseSnafu {
                    doing: "revoking an API key",
                })?;
        Ok(done.rows_affected() > 0)
    }

    /// Who a key belongs to, if it is good. Notes its use, at most once a minute.
    pub async fn user_of_api_key(&self, hash: &[u8; 32]) -> Result<Option<User>, LedgerError> {
        sqlx::query_as(
            "WITH good AS (
                 SELECT id, user_id, last_used_at FROM api_keys
                 WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
             ), used AS (
                 UPDATE api_keys SET last_used_at = now() FROM good
                 WHERE api_keys.id = good.id AND (good.last_used_at IS NULL OR good.last_used_at < now() - interval '1 minute')
             )
             SELECT u.id, u.name, u.kind, u.role, u.password_hash, rfc3339(u.created_at) AS created_at, false AS disabled
             FROM good JOIN users u ON u.id = good.user_id WHERE u.disabled_at IS NULL",
        )
        .bind(hash.as_slice())
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "checking an API key" })
    }

    /// Stores the first refresh token of a new family.
    pub async fn start_session(&self, user: UserId, hash: &[u8; 32], lives: Duration) -> Result<(), LedgerError> {
        sqlx::query(
            "WITH signed_in AS (INSERT INTO owner_counter_deltas (user_id, signed_in) VALUES ($3, true))
             INSERT INTO refresh_tokens (hash, family, user_id, expires_at) VALUES ($1, $2, $3, now() + make_interval(secs => $4))",
        )
        .bind(hash.as_slice())
        .bind(Uuid::now_v7())
        .bind(user)
        .bind(lives.as_secs_f64())
        .execute(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "starting a session" })?;
        Ok(())
    }

    /// Takes a refresh token and puts the next of its family in its place.
    pub async fn rotate_session(
        &self,
        hash: &[u8; 32],
        next: &[u8; 32],
        lives: Duration,
    ) -> Result<Refresh, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "refreshing a session",
        };
        let mut transaction = transaction::begin(&self.pool).await.context(doing)?;
        let found: Option<(Uuid, UserId, bool, bool)> = sqlx::query_as(
            "SELECT family, user_id, used_at IS NOT NULL, expires_at < now() FROM refresh_tokens WHERE hash = $1 FOR UPDATE",
        )
        .bind(hash.as_slice())
        .fetch_optional(&mut *transaction)
        .await
        .context(doing)?;
        let Some((family, user, was_used, expired)) = found else {
            return Ok(Refresh::Invalid);
        };
        if was_used {
            sqlx::query("DELETE FROM refresh_tokens WHERE family = $1")
                .bind(family)
                .execute(&mut *transaction)
                .await
                .context(doing)?;
            transaction.commit().await.context(doing)?;
            return Ok(Refresh::Reused);
        }
        let user: Option<User> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "{USER} WHERE id = $1 AND disabled_at IS NULL"
        )))
        .bind(user)
        .fetch_optional(&mut *transaction)
        .await
        .context(doing)?;
        let Some(user) = user.filter(|_| !expired) else {
            return Ok(Refresh::Invalid);
        };
        sqlx::query(
            "WITH used AS (UPDATE refresh_tokens SET used_at = now() WHERE hash = $1)
             INSERT INTO refresh_tokens (hash, family, user_id, expires_at) VALUES ($2, $3, $4, now() + make_interval(secs => $5))",
        )
        .bind(hash.as_slice())
        .bind(next.as_slice())
        .bind(family)
        .bind(user.id)
        .bind(lives.as_secs_f64())
        .execute(&mut *transaction)
        .await
        .context(doing)?;
        transaction.commit().await.context(doing)?;
        Ok(Refresh::Rotated(user))
    }

    /// Ends the session that a refresh token belongs to. An unknown token is no error.
    pub async fn end_session(&self, hash: &[u8; 32]) -> Result<(), LedgerError> {
        sqlx::query("DELETE FROM refresh_tokens WHERE family = (SELECT family FROM refresh_tokens WHERE hash = $1)")
            .bind(hash.as_slice())
            .execute(&self.pool)
            .await
            .context(DatabaseSnafu {
                doing: "ending a session",
            })?;
        Ok(())
    }
}
