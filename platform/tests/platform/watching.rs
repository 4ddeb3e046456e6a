//! Runs compared with the runs before them: what is new, changed and gone, and what drifted.

use jiff::Timestamp;
use selextract_platform::{
    drift::Drift,
    ledger::{
        TaskId, UserId,
        claims::{Claim, Ending, Fenced, NewPage},
        record_changes::{Kind, RecordChange},
        scrape_tasks::CheckedUpsert,
        watching::{Counts, Report},
    },
};
use selextract_task::{TaskSpec, Watch};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{LEASE, Room, upsert};

fn spec(watch: &Value) -> TaskSpec {
    serde_json::from_value(json!({
        "url": "http://site.test/list", "items": "li", "fields": [{ "name": "id" }, { "name": "price" }], "watch": watch,
    }))
    .unwrap()
}

/// A `ScrapeTask` that is run out of turn again and again.
async fn watched(watch: &Value) -> Room {
    let room = Room::new().await;
    let item = item(watch);
    room.upsert(&item, Timestamp::now()).await;
    room.sql("UPDATE tasks SET status = 'canceled'").await;
    room
}

fn item(watch: &Value) -> CheckedUpsert {
    let mut item = upsert("uid", "a");
    item.item.task = spec(watch);
    item
}

/// Begins a run whose pages have these records.
async fn begin(room: &Room, pages: &[Value]) -> Claim {
    use selextract_platform::ledger::schedules::RunNow;
    let RunNow::Started(entry) = room.ledger.run_now(None, "uid").await.unwrap() else {
        unreachable!("nothing else runs")
    };
    let claim = room.claim(entry.id).await.unwrap();
    for (page, number) in pages.iter().zip(1..) {
        let records: Vec<_> = page
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r.as_object().unwrap().clone())
            .collect();
        let filled = |name: &str| i32::try_from(records.iter().filter(|r| !r[name].is_null()).count()).unwrap();
        let page = NewPage {
            number,
            url: format!("http://site.test/list/{number}"),
            fill: vec![i32::try_from(records.len()).unwrap(), filled("id"), filled("price")],
            records,
            ..NewPage::default()
        };
        room.ledger
            .commit_page(claim.lease(), &page, LEASE)
            .await
            .unwrap()
            .unwrap();
    }
    claim
}

/// A whole run; with its report.
async fn run(room: &Room, pages: &[Value]) -> (TaskId, Report) {
    let claim = begin(room, pages).await;
    room.ledger.report(&claim).await.unwrap().unwrap();
    room.ledger
        .finish(claim.lease(), &Ending::Succeeded, 0)
        .await
        .unwrap()
        .unwrap();
    let report = room.ledger.run_report(claim.id).await.unwrap().unwrap();
    (claim.id, report)
}

fn records(of: &[(i32, i32)]) -> Value {
    of.iter()
        .map(|(id, price)| json!({ "id": id, "price": price }))
        .collect()
}

fn counts(report: &Report) -> (i64, i64, i64, i64) {
    let Counts {
        new,
        changed,
        gone,
        same,
        ..
    } = report.counts;
    (new, changed, gone, same)
}

async fn changes(room: &Room, (id, report): &(TaskId, Report), kind: Option<Kind>) -> Vec<RecordChange> {
    let watch = Watch {
        key: vec!["id".to_owned()],
        ..Watch::default()
    };
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let found = room
            .ledger
            .record_changes((*id, report.compared_with), kind, after, 2, &watch)
            .await
            .unwrap();
        let Some(last) = found.last() else { return all };
        after = Some(last.at);
        all.extend(found);
    }
}

#[tokio::test]
async fn records_are_told_to_be_new_changed_gone_or_the_same_by_their_key() {
    let room = watched(&json!({ "key": ["id"] })).await;
    let first = run(&room, &[records(&[(1, 10), (2, 20)]), records(&[(3, 30), (4, 40)])]).await;
    assert_eq!(counts(&first.1), (4, 0, 0, 0));
    assert_eq!(first.1.compared_with, None, "a baseline");
    let second = run(&room, &[records(&[(2, 21), (1, 10)]), records(&[(5, 50), (3, 30)])]).await;
    assert_eq!(counts(&second.1), (1, 1, 1, 2));
    assert_eq!(second.1.compared_with, Some(first.0));
    let told: Vec<_> = changes(&room, &second, None)
        .await
        .into_iter()
        .map(|c| (c.kind, c.record, c.before, c.fields))
        .collect();
    let record = |id: i32, price: i32| Some(json!({ "id": id, "price": price }).as_object().unwrap().clone());
    assert_eq!(
        told,
        [
            (Kind::New, record(5, 50), None, Vec::new()),
            (Kind::Changed, record(2, 21), record(2, 20), vec!["price".to_owned()]),
            (Kind::Gone, None, record(4, 40), Vec::new()),
        ]
    );
    assert_eq!(changes(&room, &second, Some(Kind::Gone)).await.len(), 1);
    let third = run(&room, &[records(&[(1, 10), (2, 21), (3, 30), (4, 40), (5, 50)])]).await;
    assert_eq!(counts(&third.1), (1, 0, 0, 4), "what was gone is new when it is back");
}

#[tokio::test]
async fn a_run_that_failed_is_compared_with_nothing() {
    let room = watched(&json!({ "key": ["id"] })).await;
    let first = run(&room, &[records(&[(1, 10), (2, 20)])]).await;
    let claim = begin(&room, &[records(&[(1, 10)])]).await;
    room.ledger.report(&claim).await.unwrap().unwrap();
    // Its worker went between the report and the end, and the run was canceled then.
    room.ledger
        .finish(claim.lease(), &Ending::Canceled, 0)
        .await
        .unwrap()
        .unwrap();
    let third = run(&room, &[records(&[(2, 20)])]).await;
    assert_eq!(third.1.compared_with, Some(first.0));
    assert_eq!(counts(&third.1), (0, 0, 1, 1));
}

#[tokio::test]
async fn a_report_under_a_lost_lease_is_dropped_and_the_next_worker_makes_it_anew() {
    let room = watched(&json!({ "key": ["id"] })).await;
    let claim = begin(&room, &[records(&[(1, 10), (2, 20)])]).await;
    room.ledger.report(&claim).await.unwrap().unwrap();
    let lost = Claim {
        lease_token: Uuid::now_v7(),
        ..claim.clone()
    };
    assert_eq!(room.ledger.report(&lost).await.unwrap(), Err(Fenced));
    assert_eq!(room.number("SELECT count(*) FROM watch_records").await, 2);
    room.ledger.report(&claim).await.unwrap().unwrap();
    assert_eq!(
        counts(&room.ledger.run_report(claim.id).await.unwrap().unwrap()),
        (2, 0, 0, 0)
    );
}

#[tokio::test]
async fn the_first_of_records_with_one_key_counts_and_records_without_a_key_are_counted() {
    let room = watched(&json!({ "key": ["id"] })).await;
    let page = json!([{ "id": 1, "price": 1 }, { "id": 1, "price": 2 }, { "id": null, "price": 3 }]);
    let (_, report) = run(&room, &[page, records(&[(1, 9)])]).await;
    assert_eq!(
        (report.counts.new, report.counts.duplicates, report.counts.keyless),
        (1, 2, 1)
    );
    let (_, report) = run(&room, &[records(&[(1, 1)])]).await;
    assert_eq!(counts(&report), (0, 0, 0, 1));
}

#[tokio::test]
async fn results_leave_out_what_is_the_same_where_that_is_asked() {
    let room = watched(&json!({ "key": ["id"], "report": "Changes" })).await;
    let pages = [records(&[(1, 10), (2, 20)]), records(&[(3, 30)])];
    let (first, report) = run(&room, &pages).await;
    assert!(!report.leaves_out_the_same(), "of a first run everything is new");
    let (second, report) = run(&room, &[records(&[(1, 10), (2, 22)]), records(&[(3, 30), (4, 40)])]).await;
    assert!(report.leaves_out_the_same());
    let mut pages = room.ledger.pages(second, 0, 10).await.unwrap();
    room.ledger.keep_changes(second, &mut pages).await.unwrap();
    let kept: Vec<_> = pages
        .iter()
        .flat_map(|page| &page.records)
        .map(|record| record["id"].clone())
        .collect();
    assert_eq!(kept, [json!(2), json!(4)]);
    let changes = room.ledger.changes(0).await.unwrap();
    drop((first, changes));
    let run = room
        .upsert(&item(&json!({ "key": ["id"], "report": "Changes" })), Timestamp::now())
        .await;
    let preview = run.answer.run.unwrap().preview;
    assert_eq!(preview.len(), 2, "the status shows what the results hold");
}

#[tokio::test]
async fn what_is_compared_with_outlives_the_run_and_goes_when_nobody_compares_with_it() {
    let room = watched(&json!({ "key": ["id"] })).await;
    let first = run(&room, &[records(&[(1, 10), (2, 20)])]).await;
    assert_eq!(room.ledger.delete(None, first.0).await.unwrap(), Some(true));
    room.keeper.purge_reports(None).await.unwrap();
    let second = run(&room, &[records(&[(1, 11)])]).await;
    assert_eq!(counts(&second.1), (0, 1, 1, 0));
    let told = changes(&room, &second, Some(Kind::Changed)).await;
    assert!(
        told[0].record.is_some() && told[0].before.is_none(),
        "what it was is gone with its run"
    );
    room.keeper.purge_reports(None).await.unwrap();
    let of = |id: TaskId| format!("SELECT count(*) FROM watch_records WHERE task_id = '{id}'");
    assert_eq!(room.number(&of(first.0)).await, 0);
    assert_eq!(room.number(&of(second.0)).await, 2);
}

#[tokio::test]
async fn another_key_begins_anew() {
    let room = watched(&json!({ "key": ["id"] })).await;
    run(&room, &[records(&[(1, 10)])]).await;
    room.sql("UPDATE scrape_tasks SET spec = jsonb_set(spec, '{watch,key}', '[\"price\"]')")
        .await;
    let (_, report) = run(&room, &[records(&[(1, 10)])]).await;
    assert_eq!((counts(&report), report.compared_with), ((1, 0, 0, 0), None));
}

#[tokio::test]
async fn a_field_that_is_not_found_any_more_is_told_and_stays_told_until_it_is_found() {
    let room = watched(&json!({ "onDrift": "Warn" })).await;
    let well = records(&(0..10).map(|n| (n, n)).collect::<Vec<_>>());
    for _ in 0..3 {
        let (_, report) = run(&room, std::slice::from_ref(&well)).await;
        assert!(report.drift.is_none() && !report.watched, "there is too little to tell");
    }
    let broken: Value = (0..10).map(|id| json!({ "id": id, "price": null })).collect();
    let drift = Drift {
        field: Some("price".to_owned()),
        now: 0,
        usual: 100,
    };
    for _ in 0..4 {
        let (_, report) = run(&room, std::slice::from_ref(&broken)).await;
        assert_eq!(
            report.drift.unwrap().0,
            std::slice::from_ref(&drift),
            "what drifted is not what is usual"
        );
    }
    let told = room
        .upsert(&item(&json!({ "onDrift": "Warn" })), Timestamp::now())
        .await;
    assert_eq!(told.answer.run.unwrap().drift.unwrap(), ["field price"]);
    let (_, report) = run(&room, &[well]).await;
    assert!(report.drift.unwrap().0.is_empty());
}

#[tokio::test]
async fn webhooks_hear_of_changes_and_of_drift_with_the_end_of_the_run() {
    let room = watched(&json!({ "key": ["id"], "onDrift": "Fail" })).await;
    let owner: Uuid = sqlx::query_scalar("SELECT user_id FROM scrape_tasks")
        .fetch_one(&room.owner)
        .await
        .unwrap();
    let events = ["task.finished", "task.failed", "task.changed", "task.drifted"].map(str::to_owned);
    let hook = room
        .ledger
        .create_webhook(UserId(owner), Uuid::now_v7(), "http://h.test/", &events, "k:s")
        .await;
    hook.unwrap().unwrap();
    let well = records(&(0..10).map(|n| (n, n)).collect::<Vec<_>>());
    for _ in 0..3 {
        run(&room, std::slice::from_ref(&well)).await;
    }
    let told = "SELECT event FROM webhook_deliveries ORDER BY created_at, event";
    assert_eq!(
        room.texts(told).await,
        ["task.changed", "task.finished", "task.finished", "task.finished"],
        "only the first run had something new"
    );
    let body = "SELECT (body->'data'->'changes')::text FROM webhook_deliveries WHERE event = 'task.changed'";
    let body: Value = serde_json::from_str(&room.texts(body).await[0]).unwrap();
    assert_eq!(
        body,
        json!({ "new": 10, "changed": 0, "gone": 0, "same": 0, "baseline": true })
    );
    let claim = begin(&room, &[records(&[(1, 1)])]).await;
    let drift = room.ledger.report(&claim).await.unwrap().unwrap().unwrap();
    assert_eq!(drift[0].field, None, "there are far fewer records");
    room.ledger
        .finish(claim.lease(), &Ending::Failed(crate::support::error()), 0)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(room.texts(told).await[4..], ["task.drifted", "task.failed"]);
    assert_eq!(
        room.number(&format!(
            "SELECT count(*) FROM watch_records WHERE task_id = '{}'",
            claim.id
        ))
        .await,
        0,
        "nothing is told to be gone"
    );
    let (_, report) = run(&room, &[well]).await;
    assert_eq!(counts(&report), (0, 0, 0, 10));
}
