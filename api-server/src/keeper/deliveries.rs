//! Sending what the outbox holds: signed as standard-webhooks says, through the egress proxy, again and again for a day.

use std::{collections::HashMap, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::{StreamExt, stream::FuturesUnordered};
use jiff::Timestamp;
use rand::Rng;
use reqwest::{Client, Proxy, Url, redirect};
use ring::hmac;
use selextract_platform::ledger::{
    Ledger, LedgerError, UserId,
    webhooks::{Sent, Taken},
};
use tokio::sync::Mutex;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{routes::webhooks::place, sealed::Seal};

/// The most deliveries that are under way; of one owner far fewer are, so that no receiver that does not answer delays others.
const AT_ONCE: usize = 64;
/// How long a receiver may take. Less than the lease of a delivery.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The wait after the first failure; it triples with each further one.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_hours(4);
/// How the egress proxy marks an answer that is its own.
const EGRESS: &str = "x-selextract-egress";

/// Sends deliveries.
#[derive(Debug)]
pub(super) struct Deliveries {
    client: Client,
    seal: Seal,
    /// Of each owner so many are under way; one round at a time takes deliveries.
    under_way: Mutex<HashMap<UserId, usize>>,
}

impl Deliveries {
    /// Through this proxy, the only way out.
    pub(super) fn new(proxy: &Url, seal: Seal) -> reqwest::Result<Self> {
        let client = Client::builder()
            .no_proxy()
            .proxy(Proxy::all(proxy.clone())?)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("Selextract/", env!("CARGO_PKG_VERSION"), " (webhooks)"))
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self {
            client,
            seal,
            under_way: Mutex::default(),
        })
    }

    /// Sends what is due, a bounded number, beside those of earlier rounds that are under way; returns how many.
    pub(super) async fn send_due(&self, ledger: &Ledger) -> Result<usize, LedgerError> {
        let taken = {
            let mut under_way = self.under_way.lock().await;
            let room = AT_ONCE.saturating_sub(under_way.values().sum());
            if room == 0 {
                return Ok(0);
            }
            let taken = ledger.take_deliveries(room, &under_way).await?;
            for delivery in &taken {
                *under_way.entry(delivery.user_id).or_default() += 1;
            }
            taken
        };
        let count = taken.len();
        let mut sending: FuturesUnordered<_> = taken
            .into_iter()
            .map(|delivery| async move {
                let (sent, answer) = self.send(&delivery).await;
                debug!(delivery = %delivery.id, ?sent, answer, "A webhook was told.");
                let noted = ledger.sent(&delivery, sent, &answer).await;
                self.ended(delivery.user_id).await;
                noted
            })
            .collect();
        let mut noted = Ok(count);
        while let Some(one) = sending.next().await {
            noted = one.and(noted);
        }
        noted
    }

    async fn ended(&self, owner: UserId) {
        let mut under_way = self.under_way.lock().await;
        if let Some(count) = under_way.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&owner);
            }
        }
    }

    async fn send(&self, delivery: &Taken) -> (Sent, String) {
        let again = Sent::Again(wait_after(delivery.attempts));
        let secret = match self.seal.open(&place(delivery.webhook_id), &delivery.secret) {
            Ok(secret) => secret,
            Err(error) => {
                warn!(webhook = %delivery.webhook_id, %error, "A webhook's secret cannot be opened.");
                return (again, "its secret cannot be opened".to_owned());
            }
        };
        let (body, now) = (delivery.body.0.to_string(), Timestamp::now().as_second());
        let request = self
            .client
            .post(&delivery.url)
            .header("content-type", "application/json")
            .header("webhook-id", delivery.id.to_string())
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature(&secret, delivery.id, now, &body))
            .body(body);
        match request.send().await {
            Err(error) if error.is_timeout() => (again, "it did not answer in time".to_owned()),
            // What reqwest says may hold the URL; the user knows that, and nothing more is told.
            Err(_) => (again, "it cannot be reached through the cluster's egress".to_owned()),
            Ok(answer) => match answer.headers().get(EGRESS).and_then(|word| word.to_str().ok()) {
                Some(word) => (again, word.to_owned()),
                None => (
                    judge(answer.status().as_u16(), again),
                    answer.status().as_u16().to_string(),
                ),
            },
        }
    }
}

/// What an answer means: taken, gone for ever, or to be tried again.
fn judge(status: u16, again: Sent) -> Sent {
    match status {
        200..300 => Sent::Delivered,
        410 => Sent::Gone,
        _ => again,
    }
}

/// The wait after so many attempts: it triples up to four hours, less up to a quarter at random.
fn wait_after(attempts: i32) -> Duration {
    let before = u32::try_from(attempts.saturating_sub(1)).unwrap_or_default().min(20);
    let whole = FIRST.saturating_mul(3_u32.saturating_pow(before)).min(LONGEST);
    whole.mul_f64(1.0 - rand::rng().random_range(0.0..0.25))
}

/// The header `webhook-signature` (standard-webhooks: HMAC-SHA256 over `id.timestamp.body`).
fn signature(secret: &str, id: Uuid, timestamp: i64, body: &str) -> String {
    let key = BASE64_STANDARD
        .decode(secret.trim_start_matches("whsec_"))
        .unwrap_or_default();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let tag = hmac::sign(&key, format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", BASE64_STANDARD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_tried_for_a_day_ever_more_seldom() {
        let mut whole = Duration::ZERO;
        for attempt in 1..=20 {
            let wait = wait_after(attempt);
            assert!(wait <= LONGEST && wait >= FIRST.mul_f64(0.75), "{attempt}: {wait:?}");
            whole += wait;
        }
        assert!(whole > Duration::from_hours(24), "{whole:?}");
        assert!(wait_after(i32::MAX) <= LONGEST);
    }

    #[test]
    fn only_an_answer_of_success_ends_it_and_410_ends_the_webhook() {
        let again = Sent::Again(FIRST);
        let judged = [200, 204, 302, 400, 410, 500].map(|status| judge(status, again));
        assert_eq!(
            judged,
            [Sent::Delivered, Sent::Delivered, again, again, Sent::Gone, again]
        );
    }

    #[test]
    fn the_signature_is_that_of_the_specification() {
        // Computed with Python's hmac: sha256 over "00000000-0000-0000-0000-000000000000.1.{}" with the key "key".
        assert_eq!(
            signature("whsec_a2V5", Uuid::nil(), 1, "{}"),
            "v1,tfTRKSkYspWDIjHyzj7K2rdlK8Uj3X1uEmd+r/WQvCA="
        );
    }
}
