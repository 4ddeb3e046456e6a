//! What a watched task found new, changed and gone since the last run of the same task that succeeded.

use axum::{Json, extract::State};
use selextract_platform::ledger::{
    TaskId,
    record_changes::{Kind, MOST, Place, RecordChange},
    watching::{Counts, Report},
};
use selextract_task::Watch;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::tasks::{TaskView, visible_task};
use crate::{
    auth::caller::Caller,
    export::Record,
    params::{Id, Params},
    problem::Problem,
    state::AppState,
};

/// Changes in one answer.
const LISTED: i64 = 20;

/// Which changes are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ChangesParams {
    /// Only changes of this kind.
    #[param(inline)]
    kind: Option<ChangeKind>,
    /// `next` of the answer before.
    cursor: Option<String>,
    /// How many at most, 1 to 100; 20 without it.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u8>,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It was not in the run before.
    New,
    /// It was, with another content.
    Changed,
    /// It was, and is no more.
    Gone,
}

/// How many records are new, changed, gone and the same.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChangeCounts {
    new: i64,
    changed: i64,
    gone: i64,
    same: i64,
    /// In the crawl before, on pages that this one could not read or did not come to: nobody knows whether they are there.
    unseen: i64,
    /// Records whose key another record of the run has; the first of them counts.
    duplicates: i64,
    /// Records without any part of their key: they are not compared.
    keyless: i64,
    /// There was no run to compare with: every record is new.
    baseline: bool,
    /// The run has more than 500,000 records: nothing was compared.
    too_many: bool,
    /// The task that it was compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    compared_with: Option<Uuid>,
}

/// How well a field was filled.
#[derive(Debug, Serialize, ToSchema)]
pub struct FillRate {
    field: String,
    /// In how many items it was found; a default does not count.
    found: u64,
    /// How many items there were.
    items: u64,
}

/// Something of which the run found far less than is usual.
#[derive(Debug, Serialize, ToSchema)]
pub struct DriftView {
    /// The field that is filled less; not there where there are fewer records.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// Percent of the items in which the field is filled, or records.
    now: u64,
    /// The median of the runs before.
    usual: u64,
}

/// What is told of a run that read every page, beside its records; of `ScrapeTask`s, schedules and watched tasks.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ReportView {
    /// With `watch.key`: what became of the records.
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<ChangeCounts>,
    /// In the order of the spec's fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    fill_rates: Option<Vec<FillRate>>,
    /// What drifted: the site seems to have changed under its selectors (`SchemaDrift`). Not there while there are too few runs to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    drift: Option<Vec<DriftView>>,
}

/// A record that is new, changed or gone.
#[derive(Debug, Serialize, ToSchema)]
pub struct Change {
    kind: ChangeKind,
    /// What tells it from others.
    #[schema(value_type = Object)]
    key: Record,
    /// As it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    record: Option<Record>,
    /// As it was; not there when the run before was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    before: Option<Record>,
    /// What differs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<String>,
}

/// Some of the changes of a task: new ones first, then changed ones, then those that are gone.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecordChanges {
    counts: ChangeCounts,
    changes: Vec<Change>,
    /// Send it as `cursor` for the next changes; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The records that are new, changed or gone since the last run of the same task that succeeded. Only of tasks with `watch.key` that succeeded.
#[utoipa::path(
    get, path = "/api/v1/tasks/{id}/changes", tag = "tasks", operation_id = "task_changes",
    params(("id" = Uuid, Path, description = "The task's id"), ChangesParams),
    responses(
        (status = 200, body = RecordChanges),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "The task is not watched, or has not succeeded"),
    ),
)]
pub async fn changes(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    Params(params): Params<ChangesParams>,
) -> Result<Json<RecordChanges>, Problem> {
    let limit = params.limit.map_or(LISTED, i64::from);
    if !(1..=MOST).contains(&limit) {
        return Err(Problem::malformed().detail(format!("limit must be 1 to {MOST}")));
    }
    let after = params.cursor.as_deref().map(read_cursor).transpose()?;
    let task = visible_task(&state, &caller, id).await?;
    let report = watched(&state, &task).await?;
    let watch: Watch = serde_json::from_value(task.spec["watch"].clone()).unwrap_or_default();
    let runs = (TaskId(id), report.compared_with);
    let kind = params.kind.map(Kind::from);
    let found = state.ledger.record_changes(runs, kind, after, limit, &watch).await?;
    let next = found
        .last()
        .filter(|_| i64::try_from(found.len()) == Ok(limit))
        .map(|last| format!("{}.{}.{}", last.at.kind, last.at.page, last.at.place));
    let changes = found.into_iter().map(|change| Change::read(change, &watch)).collect();
    Ok(Json(RecordChanges {
        counts: ChangeCounts::read(&report),
        changes,
        next,
    }))
}

async fn watched(state: &AppState, task: &TaskView) -> Result<Report, Problem> {
    let report = state.ledger.run_report(TaskId(task.id)).await?;
    report
        .filter(|report| report.watched && task.succeeded())
        .ok_or_else(|| {
            Problem::conflict()
                .detail("nothing was compared: that needs watch.key in the spec, and a run that succeeded")
        })
}

fn read_cursor(text: &str) -> Result<Place, Problem> {
    let mut parts = text.split('.');
    let place = parts
        .next()
        .zip(parts.next())
        .zip(parts.next())
        .filter(|_| parts.next().is_none());
    let place = place.and_then(|((kind, page), place)| {
        Some(Place {
            kind: kind.parse().ok()?,
            page: page.parse().ok()?,
            place: place.parse().ok()?,
        })
    });
    place.ok_or_else(|| Problem::malformed().detail("cursor must be next of the answer before"))
}

impl Change {
    fn read(change: RecordChange, watch: &Watch) -> Self {
        let known = change.record.as_ref().or(change.before.as_ref());
        let key = known.map(|record| {
            let fields = watch.key.iter();
            fields
                .map(|name| (name.clone(), record.get(name).cloned().unwrap_or(Value::Null)))
                .collect()
        });
        Self {
            kind: change.kind.into(),
            key: key.unwrap_or_default(),
            record: change.record,
            before: change.before,
            fields: change.fields,
        }
    }
}

impl ReportView {
    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.fill_rates.is_some()
    }
}

impl ChangeCounts {
    fn read(report: &Report) -> Self {
        let Counts {
            new,
            changed,
            gone,
            same,
            unseen,
            duplicates,
            keyless,
            too_many,
        } = report.counts;
        Self {
            new,
            changed,
            gone,
            same,
            unseen,
            duplicates,
            keyless,
            too_many,
            baseline: report.compared_with.is_none() && !too_many,
            compared_with: report.compared_with.map(|id| id.0),
        }
    }
}

impl From<Report> for ReportView {
    fn from(report: Report) -> Self {
        let changes = report.watched.then(|| ChangeCounts::read(&report));
        let fill = report.fill.0.into_iter().map(|fill| FillRate {
            field: fill.field,
            found: fill.found,
            items: fill.items,
        });
        let drift = report.drift.map(|drift| {
            let drift = drift.0.into_iter().map(|drift| DriftView {
                field: drift.field,
                now: drift.now,
                usual: drift.usual,
            });
            drift.collect()
        });
        Self {
            changes,
            fill_rates: Some(fill.collect()),
            drift,
        }
    }
}

impl From<ChangeKind> for Kind {
    fn from(kind: ChangeKind) -> Self {
        match kind {
            ChangeKind::New => Self::New,
            ChangeKind::Changed => Self::Changed,
            ChangeKind::Gone => Self::Gone,
        }
    }
}

impl From<Kind> for ChangeKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::New => Self::New,
            Kind::Changed => Self::Changed,
            Kind::Gone => Self::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_anything_else_is_refused() {
        let place = read_cursor("2.14.3").unwrap();
        assert_eq!((place.kind, place.page, place.place), (2, 14, 3));
        for text in ["", "1", "1.2", "1.2.x", "1.2.3.4", "99999.1.1"] {
            assert!(read_cursor(text).is_err(), "{text}");
        }
    }
}
