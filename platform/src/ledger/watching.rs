//! Reports on runs that read every page: how well fields were filled and whether that drifted, and which records are new, changed or gone since
//! the last run of the same series that succeeded. Written under the lease, before the run ends; the end makes them valid.
//!
//! How records are compared is [`super::comparing`]'s.

use selextract_task::{TaskSpec, Watch};
use snafu::ResultExt;
use sqlx::{FromRow, types::Json};

use super::{
    Ledger, LedgerError, TaskId,
    claims::{Claim, Fenced, Lease},
    comparing::Crawled,
    error::DatabaseSnafu,
};
use crate::{
    digest,
    drift::{self, Drift, FieldFill, Figures, MAX_RUNS},
};

/// The most records of a run that are compared.
pub const MOST_RECORDS: i64 = 500_000;
pub(super) const DOING: &str = "reporting on a run";

/// How many records of a run are new, changed, gone and the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct Counts {
    /// Not in the run before.
    pub new: i64,
    /// In both, with another content.
    pub changed: i64,
    /// Not in this run any more.
    pub gone: i64,
    /// In both, with the same content.
    pub same: i64,
    /// In the crawl before, on pages that this one could not read or did not come to: nobody knows whether they are there.
    pub unseen: i64,
    /// Records whose key another record of the run has: the first of them counts.
    pub duplicates: i64,
    /// Records without any part of their key: they are not compared.
    pub keyless: i64,
    /// The run has more than [`MOST_RECORDS`]: nothing was compared.
    pub too_many: bool,
}

/// What is told of a run that read every page.
#[derive(Clone, Debug, FromRow)]
pub struct Report {
    /// How well each field was filled.
    pub fill: Json<Vec<FieldFill>>,
    /// What drifted; `None` while there is too little to tell.
    pub drift: Option<Json<Vec<Drift>>>,
    /// Whether records were compared.
    pub watched: bool,
    /// Whether results hold only what is new and changed.
    pub changes_only: bool,
    /// The run that it was compared with; `None` for a first one.
    pub compared_with: Option<TaskId>,
    /// The records.
    #[sqlx(flatten)]
    pub counts: Counts,
}

impl Report {
    /// Whether results hold only what is new and changed. Of a first run everything is new.
    pub fn leaves_out_the_same(&self) -> bool {
        self.changes_only && self.compared_with.is_some()
    }
}

/// What a run had before it was compared.
#[derive(FromRow)]
struct Facts {
    series: String,
    records: i64,
    fill: Vec<i64>,
}

impl Ledger {
    /// Reports on a run that has read every page, under its lease; the same twice gives the same. Returns what drifted.
    pub async fn report(&self, claim: &Claim) -> Result<Result<Option<Vec<Drift>>, Fenced>, LedgerError> {
        self.report_on(claim.lease(), claim, None).await
    }

    /// The same for a run whose lease this is.
    pub(super) async fn report_on(
        &self,
        held: Lease,
        claim: &Claim,
        crawled: Option<Crawled>,
    ) -> Result<Result<Option<Vec<Drift>>, Fenced>, LedgerError> {
        let spec = &claim.spec.0;
        let Some(facts) = self.report_facts(held, claim).await? else {
            return Ok(Err(Fenced));
        };
        let figures = figures(spec, &facts);
        let shape = digest::shape(spec);
        let earlier = self.earlier_figures(&facts.series, &shape, held.id).await?;
        let drift = drift::judge(&figures, &earlier);
        let drifted = drift.as_ref().is_some_and(|drift| !drift.is_empty());
        let watch = spec.watch.as_ref();
        let fails = drifted && watch.is_some_and(Watch::fails_on_drift);
        let watch = watch.filter(|watch| !watch.key.is_empty() && !fails);
        let watch_key = watch.map(|watch| digest::fingerprint(spec, watch));
        let former = match &watch_key {
            Some(key) => self.former_run(&facts.series, key, held.id).await?,
            None => None,
        };
        let counts = match watch {
            Some(watch) => match self.compare(held, former, (watch, crawled), facts.records).await? {
                Ok(counts) => counts,
                Err(Fenced) => return Ok(Err(Fenced)),
            },
            None => Counts::default(),
        };
        let report = Report {
            fill: Json(figures.fields),
            drift: drift.clone().map(Json),
            watched: watch_key.is_some(),
            changes_only: watch.is_some_and(Watch::reports_changes_only),
            compared_with: former,
            counts,
        };
        let written = self.write_report(held, &facts, &shape, watch_key, &report).await?;
        Ok(if written { Ok(drift) } else { Err(Fenced) })
    }

    async fn report_facts(&self, held: Lease, claim: &Claim) -> Result<Option<Facts>, LedgerError> {
        sqlx::query_as(
            "SELECT coalesce(source_uid, $3) AS series, records, ARRAY(
                 SELECT sum(filled)::bigint FROM pages p CROSS JOIN LATERAL unnest(p.fill) WITH ORDINALITY AS f (filled, place)
                 WHERE p.task_id = $1 GROUP BY place ORDER BY place) AS fill
             FROM tasks WHERE id = $1 AND lease_token = $2 AND status = 'running'",
        )
        .bind(held.id)
        .bind(held.token)
        .bind(digest::series(claim.user_id.0, &claim.spec.0))
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu { doing: DOING })
    }

    /// The figures of the newest earlier runs that extracted the same, succeeded and did not drift.
    async fn earlier_figures(&self, series: &str, shape: &str, id: TaskId) -> Result<Vec<Figures>, LedgerError> {
        let rows: Vec<(i64, Json<Vec<FieldFill>>)> = sqlx::query_as(
            "SELECT records, fill FROM run_reports
             WHERE series = $1 AND shape = $2 AND succeeded AND task_id < $3 AND coalesce(drift, '[]') = '[]'
             ORDER BY task_id DESC LIMIT $4",
        )
        .bind(series)
        .bind(shape)
        .bind(id)
        .bind(i64::try_from(MAX_RUNS).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: DOING })?;
        let figures = rows.into_iter().map(|(records, fields)| Figures {
            records: u64::try_from(records).unwrap_or_default(),
            fields: fields.0,
        });
        Ok(figures.collect())
    }

    /// The last run of the series that succeeded and whose records are known by the same key.
    async fn former_run(&self, series: &str, key: &str, id: TaskId) -> Result<Option<TaskId>, LedgerError> {
        sqlx::query_scalar(
            "SELECT task_id FROM run_reports r
             WHERE series = $1 AND watch_key = $2 AND succeeded AND NOT too_many AND task_id < $3
                 AND (new + changed + same = 0 OR EXISTS (SELECT FROM watch_records w WHERE w.task_id = r.task_id))
             ORDER BY task_id DESC LIMIT 1",
        )
        .bind(series)
        .bind(key)
        .bind(id)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu { doing: DOING })
    }

    async fn write_report(
        &self,
        held: Lease,
        facts: &Facts,
        shape: &str,
        watch_key: Option<String>,
        report: &Report,
    ) -> Result<bool, LedgerError> {
        let counts = report.counts;
        let written = sqlx::query(
            "WITH held AS (
                 UPDATE tasks SET reported = true WHERE id = $1 AND lease_token = $2 AND status = 'running' RETURNING id
             )
             INSERT INTO run_reports (task_id, series, shape, records, fill, drift, watch_key, changes_only, compared_with, new, changed, gone,
                 same, duplicates, keyless, too_many, unseen)
             SELECT id, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18 FROM held
             ON CONFLICT (task_id) DO UPDATE SET made_at = now(), succeeded = false, records = excluded.records, fill = excluded.fill,
                 drift = excluded.drift, watch_key = excluded.watch_key, changes_only = excluded.changes_only,
                 compared_with = excluded.compared_with, new = excluded.new, changed = excluded.changed, gone = excluded.gone,
                 same = excluded.same, duplicates = excluded.duplicates, keyless = excluded.keyless, too_many = excluded.too_many,
                 unseen = excluded.unseen",
        )
        .bind(held.id)
        .bind(held.token)
        .bind(&facts.series)
        .bind(shape)
        .bind(facts.records)
        .bind(&report.fill)
        .bind(&report.drift)
        .bind(watch_key)
        .bind(report.changes_only)
        .bind(report.compared_with)
        .bind(counts.new)
        .bind(counts.changed)
        .bind(counts.gone)
        .bind(counts.same)
        .bind(counts.duplicates)
        .bind(counts.keyless)
        .bind(counts.too_many)
        .bind(counts.unseen)
        .execute(&self.pool)
        .await
        .context(DatabaseSnafu { doing: DOING })?;
        Ok(written.rows_affected() > 0)
    }

    /// The report on a run, if there is one.
    pub async fn run_report(&self, id: TaskId) -> Result<Option<Report>, LedgerError> {
        sqlx::query_as(
            "SELECT fill, drift, watch_key IS NOT NULL AS watched, changes_only, compared_with, new, changed, gone, same, duplicates, keyless,
                    too_many, unseen
             FROM run_reports WHERE task_id = $1",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "reading the report on a run",
        })
    }
}

/// The figures of a run by the names of its fields.
fn figures(spec: &TaskSpec, facts: &Facts) -> Figures {
    let number = |number: &i64| u64::try_from(*number).unwrap_or_default();
    let mut fill = facts.fill.iter().map(number);
    let items = fill.next().unwrap_or_default();
    let fields = spec.fields.iter().zip(fill).map(|(field, found)| FieldFill {
        field: field.name.clone(),
        found,
        items,
    });
    Figures {
        records: number(&facts.records),
        fields: fields.collect(),
    }
}
