//! Transactions that whoever began them may give up.

use sqlx::{PgPool, Postgres, Transaction};

/// Begins a transaction, also when its caller is dropped meanwhile, as a request's is whose client hangs up.
///
/// sqlx gives a connection on whose `BEGIN` nobody waited any more back to its pool, and what the next caller writes on it is acknowledged but
/// stands in a transaction that nobody commits. On a task of its own `BEGIN` is always waited for, and a transaction that nobody takes is
/// rolled back.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where it is waited for to its end"
)]
pub(super) async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin().await }).await;
    begun.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}
