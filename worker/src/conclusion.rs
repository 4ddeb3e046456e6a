//! The end of a run that has read every page: it is compared with the runs before it, where there may be some.

use selextract_platform::{
    drift::{self, Drift},
    ledger::{
        LedgerError,
        claims::{Claim, Ending, Fenced},
        crawl::{CrawlEnd, HeldPage},
    },
};
use selextract_task::{Watch, feed::RunError};

use crate::{claims::Claims, task_run::Engines};

/// Whether a run is compared.
pub(crate) fn reports(claim: &Claim) -> bool {
    claim.spec.watch.is_some() || claim.source_uid.is_some()
}

/// Reports on the run, and says how it ends.
pub(crate) async fn conclude(
    engines: &Engines,
    claims: &Claims,
    claim: &Claim,
) -> Result<Result<Ending, Fenced>, LedgerError> {
    if !reports(claim) {
        return Ok(Ok(Ending::Succeeded));
    }
    Ok(claims
        .report(claim)
        .await?
        .map(|drifted| match failure(engines, claim, &drifted.unwrap_or_default()) {
            Some(error) => Ending::Failed(error),
            None => Ending::Succeeded,
        }))
}

/// The same for a crawl, by the claim of its report.
pub(crate) async fn conclude_crawl(
    engines: &Engines,
    claims: &Claims,
    claim: &Claim,
    page: &HeldPage,
) -> Result<Result<CrawlEnd, Fenced>, LedgerError> {
    Ok(claims.report_crawl(claim, page).await?.map(|report| {
        match failure(engines, claim, &report.drift.unwrap_or_default()) {
            Some(error) => CrawlEnd::FailsRun(error),
            None => CrawlEnd::Reported(report.pages),
        }
    }))
}

/// Tells of what drifted; and why the run fails, where that is asked.
fn failure(engines: &Engines, claim: &Claim, drifted: &[Drift]) -> Option<RunError> {
    if drifted.is_empty() {
        return None;
    }
    engines.metrics.run_drifted();
    let message = drift::sentence(drifted);
    let task = claim.page.as_ref().map_or(claim.id, |page| page.task);
    tracing::warn!(%task, message, "A run found far less than the runs before it.");
    let fails = claim.spec.watch.as_ref().is_some_and(Watch::fails_on_drift);
    fails.then(|| RunError {
        class: "SchemaDrift".into(),
        message,
    })
}
