//! The end of a run that has read every page: it is compared with the runs before it, where there may be some.

use selextract_platform::{
    drift,
    ledger::{
        LedgerError,
        claims::{Claim, Ending, Fenced},
    },
};
use selextract_task::{Watch, feed::RunError};

use crate::{claims::Claims, task_run::Engines};

/// Reports on the run, and says how it ends.
pub(crate) async fn conclude(
    engines: &Engines,
    claims: &Claims,
    claim: &Claim,
) -> Result<Result<Ending, Fenced>, LedgerError> {
    let watch = claim.spec.watch.as_ref();
    if watch.is_none() && claim.source_uid.is_none() {
        return Ok(Ok(Ending::Succeeded));
    }
    let drifted = match claims.report(claim).await? {
        Ok(drifted) => drifted.unwrap_or_default(),
        Err(Fenced) => return Ok(Err(Fenced)),
    };
    if drifted.is_empty() {
        return Ok(Ok(Ending::Succeeded));
    }
    engines.metrics.run_drifted();
    let message = drift::sentence(&drifted);
    tracing::warn!(task = %claim.id, message, "A run found far less than the runs before it.");
    Ok(Ok(if watch.is_some_and(Watch::fails_on_drift) {
        Ending::Failed(RunError {
            class: "SchemaDrift".into(),
            message,
        })
    } else {
        Ending::Succeeded
    }))
}
