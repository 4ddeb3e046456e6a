//! Render Auto: a page by HTTP, and by the browser where the server's HTML lacks what the plan reads.

use std::{sync::Arc, time::Instant};

use selextract_platform::frontier::{
    hosts::Outcome,
    rendering::{Finding, Remembered},
};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{Run, Spending, look_at_page};
use crate::{
    extract::Extracted,
    failure::Failure,
    fetch::{Freshness, Page},
    gate::{Gate, Stopped},
    rendering::{Engine, lack},
    telemetry::Decision,
};

impl Run<'_> {
    /// Fetches and reads by the engine that the host needs, as far as it is known.
    pub(super) async fn read_by_either(
        &mut self,
        url: &Url,
        deadline: Instant,
        gate: &mut Gate<'_>,
        stop: &CancellationToken,
        spending: &mut Spending,
    ) -> Result<(Page, Extracted), Stopped> {
        let host = url.host_str().unwrap_or_default();
        let remembered = if self.browser_helps_not {
            Remembered::Unknown
        } else {
            self.claims.rendering(host).await
        };
        if remembered == Remembered::Scripted {
            self.engines.metrics.auto_decided(Decision::Remembered);
            return self.read_by_browser(url, deadline, gate, stop, spending).await;
        }
        let page = self.fetch(Engine::Http, url, gate, stop, spending).await?;
        spending.bytes += page.bytes;
        if let Freshness::NotModified(known) = &page.freshness {
            // What was remembered of a page was read by HTTP, and was enough.
            self.engines.metrics.auto_decided(Decision::Enough);
            let extracted = self.as_it_was(known).await?;
            return Ok((page, extracted));
        }
        let (page, read) = look_at_page(Arc::clone(&self.plan), page, deadline).await?;
        let Some(lack) = lack(&self.plan, &read) else {
            self.engines.metrics.auto_decided(Decision::Enough);
            if remembered == Remembered::TryAgain {
                self.claims.found_rendering(host, Finding::Plain).await;
            }
            return Ok((page, read.map_err(Failure::from)?));
        };
        if self.browser_helps_not {
            self.engines.metrics.auto_decided(Decision::Helpless);
            return Ok((page, read.map_err(Failure::from)?));
        }
        self.engines.metrics.auto_decided(Decision::Lacked(lack));
        // Before its turn: a run that has to wait for it is to begin in the browser then.
        self.claims.found_rendering(host, Finding::Suspected).await;
        gate.ended(Outcome::Answered);
        gate.pass(url, &self.plan, stop).await?;
        self.read_by_browser(url, deadline, gate, stop, spending).await
    }

    async fn read_by_browser(
        &mut self,
        url: &Url,
        deadline: Instant,
        gate: &mut Gate<'_>,
        stop: &CancellationToken,
        spending: &mut Spending,
    ) -> Result<(Page, Extracted), Stopped> {
        let page = self.fetch(Engine::Browser, url, gate, stop, spending).await?;
        spending.bytes += page.bytes;
        let (page, read) = look_at_page(Arc::clone(&self.plan), page, deadline).await?;
        let helped = lack(&self.plan, &read).is_none();
        let finding = if helped { Finding::Scripted } else { Finding::Plain };
        let host = url.host_str().unwrap_or_default();
        self.claims.found_rendering(host, finding).await;
        self.browser_helps_not = !helped;
        Ok((page, read.map_err(Failure::from)?))
    }
}
