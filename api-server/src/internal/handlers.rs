//! The four calls of the operator. Both ends read leniently: versions of operator and API may differ.

use std::time::Duration;

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};
use futures::{StreamExt, TryStreamExt, stream};
use http::StatusCode;
use jiff::Timestamp;
use selextract_platform::{
    frontier::Entry,
    ledger::{
        LedgerError,
        scrape_tasks::{CheckedUpsert, Upserted},
    },
};
use selextract_task::{
    Violations,
    feed::{Changes, KnownTasks, MAX_ITEMS, Removals, Upsert, UpsertAnswer, UpsertAnswers, Upserts},
};
use serde::Deserialize;
use tokio::time::Instant;

use crate::{params::Params, problem::Problem, state::AppState};

/// The longest that a call for changes is held.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How often the ledger is asked while a call is held: one statement of an index scan each, and one call for each cluster.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Items written at a time; the pool is the public API's too.
const WRITERS: usize = 4;
/// The longest sentence of a refusal; it becomes a condition's message.
const MAX_REFUSAL: usize = 1024;

/// Which known tasks are wanted.
#[derive(Debug, Deserialize)]
pub struct KnownParams {
    /// The last uid of the page before; empty for the first page.
    #[serde(default)]
    after: String,
}

/// Which changes are wanted.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangesParams {
    /// `next` of the call before, or 0.
    #[serde(default)]
    after: i64,
    /// How long to wait when there is none.
    #[serde(default)]
    wait_seconds: u64,
}

/// An item after its spec was compiled.
#[expect(
    clippy::large_enum_variant,
    reason = "most are accepted, and a batch of them is short-lived"
)]
enum Checked {
    Accepted(CheckedUpsert),
    Refused(UpsertAnswer),
}

/// Makes the ledger know the tasks as they should be.
pub async fn upsert(
    State(state): State<AppState>,
    body: Result<Json<Upserts>, JsonRejection>,
) -> Result<Json<UpsertAnswers>, Problem> {
    let Json(Upserts { items }) = body.map_err(|rejection| unreadable(&rejection))?;
    bound(items.len())?;
    let checked = check(items).await?;
    let now = Timestamp::now();
    let written = checked.into_iter().map(|item| write(&state, item, now));
    let written: Vec<Option<Upserted>> = stream::iter(written).buffered(WRITERS).try_collect().await?;
    let written = written.into_iter().flatten();
    let (answers, started): (Vec<_>, Vec<_>) = written.map(|one| (one.answer, one.started)).unzip();
    let started: Vec<Entry> = started.into_iter().flatten().collect();
    if !started.is_empty() {
        state.offer(started);
    }
    Ok(Json(UpsertAnswers { items: answers }))
}

/// A page of what the ledger knows.
pub async fn known(
    State(state): State<AppState>,
    Params(params): Params<KnownParams>,
) -> Result<Json<KnownTasks>, Problem> {
    let items = state.ledger.known_scrape_tasks(&params.after).await?;
    Ok(Json(KnownTasks { items }))
}

/// Ends what the removed tasks still do.
pub async fn remove(
    State(state): State<AppState>,
    body: Result<Json<Removals>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let Json(Removals { uids }) = body.map_err(|rejection| unreadable(&rejection))?;
    bound(uids.len())?;
    state.ledger.remove_scrape_tasks(&uids).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What changed since `after`, held until something did or the wait is over.
pub async fn changes(
    State(state): State<AppState>,
    Params(params): Params<ChangesParams>,
) -> Result<Json<Changes>, Problem> {
    let deadline = Instant::now() + Duration::from_secs(params.wait_seconds).min(MAX_WAIT);
    loop {
        let changes = state.ledger.changes(params.after).await?;
        let next_poll = Instant::now() + POLL_INTERVAL;
        if changes.next != params.after || !changes.changes.is_empty() || next_poll > deadline {
            return Ok(Json(changes));
        }
        tokio::select! {
            () = tokio::time::sleep_until(next_poll) => {}
            () = state.ending.cancelled() => return Ok(Json(changes)),
        }
    }
}

/// Compiles every spec off the runtime: 500 specs of 64 selectors are tens of milliseconds of work.
async fn check(items: Vec<Upsert>) -> Result<Vec<Checked>, Problem> {
    let work = move || items.into_iter().map(check_one).collect();
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "Checking the operator's tasks failed.");
        Problem::internal()
    })
}

fn check_one(item: Upsert) -> Checked {
    match item.task.compile() {
        Ok(plan) => Checked::Accepted(CheckedUpsert {
            host: plan.url.host_str().unwrap_or_default().to_owned(),
            item,
            no_room: None,
        }),
        Err(violations) => Checked::Refused(UpsertAnswer {
            uid: item.uid,
            run: None,
            next_run_at: None,
            held: None,
            refused: Some(sentence(&violations)),
            quota_exceeded: false,
        }),
    }
}

/// One item that the database does not take stands in no other's way: it has no answer (`None`), and the operator sends it again.
async fn write(state: &AppState, item: Checked, now: Timestamp) -> Result<Option<Upserted>, Problem> {
    let mut item = match item {
        Checked::Accepted(item) => item,
        Checked::Refused(answer) => return Ok(Some(Upserted { answer, started: None })),
    };
    let owner = match state.ledger.namespace_owner(&item.item.namespace).await {
        Ok(owner) => owner,
        Err(error) => return not_stored(&item, error),
    };
    // A schedule's runs start with its ticks.
    if item.item.schedule.is_none() {
        item.no_room = state.quotas.no_room(owner).await?;
    }
    match state.ledger.upsert_scrape_task(&item, owner, now).await {
        Ok(written) => {
            if let Some(started) = &written.started {
                state.quotas.count(started.owner, 1).await;
            }
            Ok(Some(written))
        }
        Err(error) => not_stored(&item, error),
    }
}

fn not_stored(item: &CheckedUpsert, error: LedgerError) -> Result<Option<Upserted>, Problem> {
    if error.is_unavailable() {
        return Err(error.into());
    }
    tracing::warn!(uid = item.item.uid, %error, "A ScrapeTask could not be stored.");
    Ok(None)
}

fn sentence(violations: &Violations) -> String {
    let text = violations.to_string();
    if text.chars().count() > MAX_REFUSAL {
        text.chars().take(MAX_REFUSAL - 1).chain(['…']).collect()
    } else {
        text
    }
}

pub(super) fn bound(items: usize) -> Result<(), Problem> {
    if items <= MAX_ITEMS {
        Ok(())
    } else {
        Err(Problem::field(
            "items",
            items.to_string(),
            format!("at most {MAX_ITEMS} at a time"),
        ))
    }
}

fn unreadable(rejection: &JsonRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::too_large()
    } else {
        Problem::malformed().detail(rejection.body_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(uid: &str, url: &str) -> Upsert {
        serde_json::from_value(serde_json::json!({
            "uid": uid, "namespace": "team", "name": "prices", "specHash": "h", "priority": 5, "suspend": false,
            "onChange": "Replace", "task": { "url": url, "fields": [{ "name": "a" }] },
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn one_wrong_spec_is_refused_in_words_and_the_others_go_on() {
        let checked = check(vec![
            item("1", "https://e.com"),
            item("2", "ftp://e.com"),
            item("3", "https://e.com"),
        ])
        .await;
        let checked = checked.unwrap();
        let [Checked::Accepted(_), Checked::Refused(refused), Checked::Accepted(_)] = checked.as_slice() else {
            panic!("the second one is refused");
        };
        assert_eq!(refused.uid, "2");
        assert!(refused.refused.as_ref().unwrap().starts_with("url = \"ftp://e.com\""));
    }

    #[test]
    fn more_items_than_agreed_are_refused() {
        assert!(bound(MAX_ITEMS).is_ok() && bound(MAX_ITEMS + 1).is_err());
    }
}
