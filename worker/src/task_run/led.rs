//! Where a page is led before it is read: by redirects, scripts and clicks in the browser, and to its login. What of it the run may have, and
//! when. Waits for hosts, and asks sites for their robots.txt.

use selextract_task::Plan;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    access::Access,
    crawl,
    fetch::browser::Leave,
    gate::{Gate, Stopped},
};

/// A page that is led on in the browser: each document is one that the run may have, and each host on the way has its turn.
pub(super) struct Led<'l, 'g> {
    pub(super) gate: &'l mut Gate<'g>,
    pub(super) plan: &'l Plan,
    pub(super) access: &'l Access,
    pub(super) stop: &'l CancellationToken,
    /// The page's own.
    pub(super) url: &'l Url,
}

impl Leave for Led<'_, '_> {
    type Refusal = Stopped;

    async fn ask(&mut self, next: &Url) -> Result<(), Stopped> {
        // The site has forgotten the session, which its answer tells.
        if self.access.is_turned_away(self.url, next) {
            return Ok(());
        }
        crawl::stay_inside(self.plan, self.url, next)?;
        self.gate.lead(next, self.plan, self.stop).await
    }
}

/// A page that is led to its run's login first: the login's hosts have their turn, besides the page's own.
pub(super) struct LoggingIn<'l, 'g> {
    pub(super) gate: &'l mut Gate<'g>,
    pub(super) plan: &'l Plan,
    pub(super) stop: &'l CancellationToken,
}

impl Leave for LoggingIn<'_, '_> {
    type Refusal = Stopped;

    async fn ask(&mut self, next: &Url) -> Result<(), Stopped> {
        self.gate.aside(next, self.plan, self.stop).await
    }
}
