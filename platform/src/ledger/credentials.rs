//! Credentials for sites. They come and go encrypted: who has no data key reads nothing here.

use snafu::ResultExt;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Ledger, LedgerError, UserId, error::DatabaseSnafu};

/// The most credentials of an owner.
pub const MOST: i64 = 100;

/// Credentials, without what is secret in them.
#[derive(Clone, Debug, FromRow)]
pub struct Listed {
    /// Their name, one for each owner.
    pub name: String,
    /// `basic`, `bearer`, `header` or `formLogin`.
    pub kind: String,
    /// The origin that gets them.
    pub origin: String,
    /// Whether they came from a Kubernetes Secret.
    pub from_secret: bool,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
}

/// Credentials to store.
pub struct Stored<'a> {
    /// A new id, of this write.
    pub id: Uuid,
    /// Their name.
    pub name: &'a str,
    /// As in [`Listed::kind`].
    pub kind: &'a str,
    /// The origin that gets them.
    pub origin: &'a str,
    /// Sealed for [`place`].
    pub secret: &'a str,
    /// The version of the Kubernetes Secret that they come from.
    pub secret_version: Option<&'a str>,
}

/// Credentials as a worker reads them.
#[derive(FromRow)]
pub struct Sealed {
    /// Of the write.
    pub id: Uuid,
    /// The origin that gets them.
    pub origin: String,
    /// Sealed for [`place`].
    pub secret: String,
}

/// Credentials that came from a Kubernetes Secret.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct FromSecret {
    /// The Secret's namespace.
    pub namespace: String,
    /// Its name, and theirs.
    pub name: String,
    /// The version of the Secret that was read.
    pub version: String,
}

/// For which place credentials are sealed: a row whose origin was changed opens no more.
pub fn place(id: Uuid, origin: &str) -> String {
    format!("credentials/{id}/{origin}")
}

impl Ledger {
    /// Stores credentials over those of the same name. `false` when the owner has [`MOST`] others already.
    pub async fn put_credentials(&self, owner: UserId, new: &Stored<'_>) -> Result<bool, LedgerError> {
        let done = sqlx::query(
            "INSERT INTO credentials (id, user_id, name, kind, origin, secret, secret_version)
             SELECT $1, $2, $3, $4, $5, $6, $7
             WHERE (SELECT count(*) FROM credentials WHERE user_id = $2 AND name <> $3) < $8
             ON CONFLICT (user_id, name) DO UPDATE SET id = excluded.id, kind = excluded.kind, origin = excluded.origin,
                 secret = excluded.secret, secret_version = excluded.secret_version, updated_at = now()",
        )
        .bind(new.id)
        .bind(owner)
        .bind(new.name)
        .bind(new.kind)
        .bind(new.origin)
        .bind(new.secret)
        .bind(new.secret_version)
        .bind(MOST)
        .execute(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "storing credentials",
        })?;
        Ok(done.rows_affected() > 0)
    }

    /// An owner's credentials, without what is secret in them.
    pub async fn credentials(&self, owner: UserId) -> Result<Vec<Listed>, LedgerError> {
        sqlx::query_as(
            "SELECT name, kind, origin, secret_version IS NOT NULL AS from_secret, rfc3339(created_at) AS created_at,
                 rfc3339(updated_at) AS updated_at
             FROM credentials WHERE user_id = $1 ORDER BY name",
        )
        .bind(owner)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "listing credentials",
        })
    }

    /// Credentials of an owner as they are sealed, for a run of his that names them.
    pub async fn sealed_credentials(&self, owner: UserId, name: &str) -> Result<Option<Sealed>, LedgerError> {
        sqlx::query_as("SELECT id, origin, secret FROM credentials WHERE user_id = $1 AND name = $2")
            .bind(owner)
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .context(DatabaseSnafu {
                doing: "reading credentials",
            })
    }

    /// Removes credentials. Whether there were any.
    pub async fn delete_credentials(&self, owner: UserId, name: &str) -> Result<bool, LedgerError> {
        let done = sqlx::query("DELETE FROM credentials WHERE user_id = $1 AND name = $2")
            .bind(owner)
            .bind(name)
            .execute(&self.pool)
            .await
            .context(DatabaseSnafu {
                doing: "removing credentials",
            })?;
        Ok(done.rows_affected() > 0)
    }

    /// What came from Kubernetes Secrets, in the order of namespace and name, after this one; 500 at most.
    pub async fn credentials_of_secrets(&self, after: (&str, &str)) -> Result<Vec<FromSecret>, LedgerError> {
        sqlx::query_as(
            "SELECT substr(u.name, 5) AS namespace, c.name, c.secret_version AS version
             FROM credentials c JOIN users u ON u.id = c.user_id AND u.kind = 'namespace'
             WHERE c.secret_version IS NOT NULL AND (substr(u.name, 5), c.name) > ($1, $2)
             ORDER BY 1, 2 LIMIT 500",
        )
        .bind(after.0)
        .bind(after.1)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "listing the credentials of Secrets",
        })
    }

    /// Removes what came from a Kubernetes Secret; what came by the API under the same name stays.
    pub async fn delete_credentials_of_secret(&self, namespace: &str, name: &str) -> Result<bool, LedgerError> {
        let done = sqlx::query(
            "DELETE FROM credentials c USING users u
             WHERE u.id = c.user_id AND u.name = $1 AND c.name = $2 AND c.secret_version IS NOT NULL",
        )
        .bind(format!("k8s:{namespace}"))
        .bind(name)
        .execute(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "removing the credentials of a Secret",
        })?;
        Ok(done.rows_affected() > 0)
    }
}
