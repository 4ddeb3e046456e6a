//! Where owners want to hear of the end of their runs, and the outbox of what is still to be told. A trigger writes the outbox in the
//! transaction that ends the run. Secrets come and go encrypted.

use std::{collections::HashMap, time::Duration};

use serde_json::Value;
use snafu::ResultExt;
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use super::{Ledger, LedgerError, TaskId, UserId, error::DatabaseSnafu};

/// The most webhooks of an owner.
pub const MOST: i64 = 20;
/// The most deliveries that are listed, the newest.
const LISTED: i64 = 100;
/// The most deliveries of an owner that are under way, so that one whose receivers do not answer delays nobody else's.
pub const PER_OWNER: usize = 8;
/// How long a delivery that was taken is nobody else's.
const LEASE: Duration = Duration::from_mins(1);

/// A webhook, without its secret.
#[derive(Clone, Debug, FromRow)]
pub struct Webhook {
    /// Its identity.
    pub id: Uuid,
    /// Where it is sent.
    pub url: String,
    /// `task.finished`, `task.failed`, `task.changed`, `task.drifted`.
    pub events: Vec<String>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; its receiver said that it is gone.
    pub disabled_at: Option<String>,
}

/// Something to tell a webhook, and what became of it.
#[derive(Clone, Debug, FromRow)]
pub struct Delivery {
    /// Its identity: the same for every attempt.
    pub id: Uuid,
    /// The run that ended.
    pub task_id: TaskId,
    /// As in [`Webhook::events`].
    pub event: String,
    /// `pending`, `delivered` or `failed`.
    pub status: String,
    /// How often it was sent.
    pub attempts: i32,
    /// RFC 3339.
    pub created_at: String,
    /// When it is sent next, while it is pending. RFC 3339.
    pub due_at: String,
    /// What the last attempt brought: an HTTP status, or why there was none.
    pub answer: Option<String>,
}

/// A delivery that this keeper sends now.
#[derive(Clone, Debug, FromRow)]
pub struct Taken {
    /// Its identity.
    pub id: Uuid,
    /// The webhook.
    pub webhook_id: Uuid,
    /// Whose it is.
    pub user_id: UserId,
    /// Where to.
    pub url: String,
    /// Encrypted.
    pub secret: String,
    /// What is sent.
    pub body: Json<Value>,
    /// This attempt included.
    pub attempts: i32,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was taken.
    Delivered,
    /// It is sent again after a while, unless its day is over.
    Again(Duration),
    /// The receiver is gone: the webhook is disabled.
    Gone,
}

impl Ledger {
    /// Stores a webhook. `None` when the owner has [`MOST`] already.
    pub async fn create_webhook(
        &self,
        owner: UserId,
        id: Uuid,
        url: &str,
        events: &[String],
        secret: &str,
    ) -> Result<Option<Webhook>, LedgerError> {
        sqlx::query_as(
            "INSERT INTO webhooks (id, user_id, url, events, secret)
             SELECT $1, $2, $3, $4, $5 WHERE (SELECT count(*) FROM webhooks WHERE user_id = $2) < $6
             RETURNING id, url, events, rfc3339(created_at) AS created_at, rfc3339(disabled_at) AS disabled_at",
        )
        .bind(id)
        .bind(owner)
        .bind(url)
        .bind(events)
        .bind(secret)
        .bind(MOST)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "creating a webhook",
        })
    }

    /// An owner's webhooks.
    pub async fn webhooks(&self, owner: UserId) -> Result<Vec<Webhook>, LedgerError> {
        sqlx::query_as(
            "SELECT id, url, events, rfc3339(created_at) AS created_at, rfc3339(disabled_at) AS disabled_at
             FROM webhooks WHERE user_id = $1 ORDER BY id",
        )
        .bind(owner)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "listing webhooks",
        })
    }

    /// Removes a webhook of this owner, or of anybody when `owner` is `None`, with its deliveries. Whether there was one.
    pub async fn delete_webhook(&self, owner: Option<UserId>, id: Uuid) -> Result<bool, LedgerError> {
        let done = sqlx::query("DELETE FROM webhooks WHERE id = $1 AND ($2::uuid IS NULL OR user_id = $2)")
            .bind(id)
            .bind(owner)
            .execute(&self.pool)
            .await
            .context(DatabaseSnafu {
                doing: "removing a webhook",
            })?;
        Ok(done.rows_affected() > 0)
    }

    /// The newest deliveries of a webhook, a hundred at most; `None` when there is no such webhook of this owner.
    pub async fn deliveries(&self, owner: Option<UserId>, webhook: Uuid) -> Result<Option<Vec<Delivery>>, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "listing deliveries",
        };
        let there: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM webhooks WHERE id = $1 AND ($2::uuid IS NULL OR user_id = $2))",
        )
        .bind(webhook)
        .bind(owner)
        .fetch_one(&self.pool)
        .await
        .context(doing)?;
        if !there {
            return Ok(None);
        }
        let found = sqlx::query_as(
            "SELECT id, task_id, event, status, attempts, rfc3339(created_at) AS created_at, rfc3339(due_at) AS due_at, answer
             FROM webhook_deliveries WHERE webhook_id = $1 ORDER BY webhook_deliveries.created_at DESC, id LIMIT $2",
        )
        .bind(webhook)
        .bind(LISTED)
        .fetch_all(&self.pool)
        .await
        .context(doing)?;
        Ok(Some(found))
    }

    /// Sends a delivery again, now and for another day; a webhook whose receiver said that it is gone is told of again. Whether there is one.
    pub async fn resend(&self, owner: Option<UserId>, delivery: Uuid) -> Result<bool, LedgerError> {
        let done = sqlx::query(
            "WITH again AS (
                 UPDATE webhook_deliveries d SET status = 'pending', due_at = now(), gives_up_at = now() + interval '24 hours', ended_at = NULL,
                     attempts = 0
                 FROM webhooks w WHERE d.id = $1 AND w.id = d.webhook_id AND ($2::uuid IS NULL OR w.user_id = $2)
                 RETURNING d.webhook_id
             )
             UPDATE webhooks w SET disabled_at = NULL FROM again WHERE w.id = again.webhook_id",
        )
        .bind(delivery)
        .bind(owner)
        .execute(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "sending a delivery again" })?;
        Ok(done.rows_affected() > 0)
    }

    /// Takes deliveries that are due, so that no other keeper sends them meanwhile: of each owner no more than [`PER_OWNER`] with those of his
    /// that are under way, in turns between owners.
    pub async fn take_deliveries(
        &self,
        most: usize,
        under_way: &HashMap<UserId, usize>,
    ) -> Result<Vec<Taken>, LedgerError> {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (owners, counts): (Vec<Uuid>, Vec<i64>) = under_way.iter().map(|(owner, n)| (owner.0, count(*n))).unzip();
        sqlx::query_as(
            // One look into the index for each webhook to which something is to be told, however much that is.
            "WITH RECURSIVE hooks AS (
                 (SELECT webhook_id FROM webhook_deliveries WHERE status = 'pending' ORDER BY webhook_id LIMIT 1)
                 UNION ALL
                 SELECT next.webhook_id FROM hooks CROSS JOIN LATERAL (
                     SELECT webhook_id FROM webhook_deliveries WHERE status = 'pending' AND webhook_id > hooks.webhook_id
                     ORDER BY webhook_id LIMIT 1
                 ) next
             ), first AS (
                 SELECT d.id, d.due_at, row_number() OVER (PARTITION BY w.user_id ORDER BY d.due_at) + coalesce(busy.count, 0) AS place
                 FROM hooks JOIN webhooks w ON w.id = hooks.webhook_id AND w.disabled_at IS NULL
                     LEFT JOIN unnest($3::uuid[], $4::bigint[]) AS busy (user_id, count) ON busy.user_id = w.user_id
                     CROSS JOIN LATERAL (
                         SELECT id, due_at FROM webhook_deliveries d
                         WHERE d.webhook_id = hooks.webhook_id AND d.status = 'pending' AND d.due_at <= now() ORDER BY d.due_at LIMIT $5
                     ) d
             ), due AS (
                 SELECT d.id FROM webhook_deliveries d
                 WHERE d.id IN (SELECT id FROM first WHERE place <= $5 ORDER BY place, due_at LIMIT $1)
                     AND d.status = 'pending' AND d.due_at <= now()
                 FOR UPDATE OF d SKIP LOCKED
             ), taken AS (
                 UPDATE webhook_deliveries d SET attempts = attempts + 1, due_at = now() + make_interval(secs => $2)
                 FROM due WHERE d.id = due.id RETURNING d.id, d.webhook_id, d.body, d.attempts
             )
             SELECT taken.id, webhook_id, user_id, url, secret, body, attempts FROM taken JOIN webhooks w ON w.id = webhook_id",
        )
        .bind(count(most))
        .bind(LEASE.as_secs_f64())
        .bind(owners)
        .bind(counts)
        .bind(count(PER_OWNER))
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "taking deliveries",
        })
    }

    /// Notes what became of an attempt.
    pub async fn sent(&self, delivery: &Taken, sent: Sent, answer: &str) -> Result<(), LedgerError> {
        let doing = DatabaseSnafu {
            doing: "noting a delivery",
        };
        let wait = match sent {
            Sent::Again(wait) => Some(wait.as_secs_f64()),
            Sent::Delivered | Sent::Gone => None,
        };
        sqlx::query(
            "WITH noted AS (
                 SELECT CASE WHEN $3 THEN 'delivered' WHEN $4::double precision IS NULL OR now() + make_interval(secs => $4) > gives_up_at
                        THEN 'failed' ELSE 'pending' END AS status
                 FROM webhook_deliveries WHERE id = $1
             ), gone AS (
                 UPDATE webhooks SET disabled_at = now() WHERE id = $2 AND $5
             )
             UPDATE webhook_deliveries SET status = noted.status, answer = $6,
                 ended_at = CASE WHEN noted.status <> 'pending' THEN now() END,
                 due_at = CASE WHEN noted.status = 'pending' THEN now() + make_interval(secs => $4) ELSE due_at END
             FROM noted WHERE id = $1",
        )
        .bind(delivery.id)
        .bind(delivery.webhook_id)
        .bind(sent == Sent::Delivered)
        .bind(wait)
        .bind(sent == Sent::Gone)
        .bind(answer)
        .execute(&self.pool)
        .await
        .context(doing)?;
        Ok(())
    }
}
