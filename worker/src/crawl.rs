//! Crawls, as a worker sees them: a run's claim writes down where it begins; from then on each of its pages is a claim of its own.

use std::{sync::Arc, time::Instant};

use selextract_platform::{
    frontier::hosts::Outcome,
    ledger::{
        LedgerError,
        claims::{Claim, Ending, Fenced},
        crawl::{CrawlEnd, CrawlKind, CrawlStart, FoundPage, HeldPage, ReadPage},
    },
};
use selextract_task::{CrawlPlan, Plan, absolute, normal_url};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    access::Access,
    claims::{Claims, History, crawl_end},
    conclusion, conditional,
    extract::Extracted,
    failure::{Blame, Failure, backoff},
    fetch::{
        Freshness, Page, Request,
        http::{Http, Trip},
    },
    gate::{Gate, Stopped},
    sitemap,
    task_run::{Engines, Run, Spending, kept, key, nothing_found, told},
    telemetry::{PageOutcome, RunOutcome},
};

/// A sitemap may have 50 MiB: a worker reads one at a time.
static SITEMAPS: Semaphore = Semaphore::const_new(1);
/// What says that a page is none that is read, and no failure.
const NO_PAGES: [&str; 3] = ["RobotsDisallowed", "UnsupportedContent", "OutOfScope"];

/// Works on a claim of a crawl: its beginning, or one of its pages.
pub(crate) async fn work(
    engines: &Engines,
    claims: &Claims,
    claim: &Claim,
    plan: Plan,
    stop: &CancellationToken,
) -> Result<RunOutcome, LedgerError> {
    match (&claim.page, &plan.crawl) {
        (Some(held), Some(crawl)) => {
            let Some(sought) = Sought::of(held.kind) else {
                return report(engines, claims, claim, held).await;
            };
            let url = Url::parse(&held.url);
            let (crawl, max_pages) = (crawl.clone(), crawl.max_pages);
            // Of the run, not of the page: its pages share a login and a client.
            let of_run = (&engines.http, held.task.0);
            let (end, micros) = match (url, engines.vault.open(&plan, Some(claim.user_id), of_run).await?) {
                (Ok(url), Ok(rights)) => {
                    let mut visit = Visit::new(engines, claims, claim, (held, sought), (plan, rights), crawl);
                    (visit.run(&url, stop).await, visit.spending.micros())
                }
                (_, Err(failure)) => {
                    claims.leave_unvisited(claim).await;
                    (CrawlEnd::FailsRun(told(&failure)), 0)
                }
                // It was checked when it was found.
                (Err(error), _) => {
                    let failure = Failure::permanent("InvalidUrl", error.to_string());
                    (CrawlEnd::Failed(told(&failure)), 0)
                }
            };
            let outcome = outcome(&end, stop);
            let ended = claims.end_page(claim, held, &end, micros, max_pages).await?;
            Ok(ended.map_or(RunOutcome::Fenced, |()| outcome))
        }
        (None, Some(crawl)) => begin(engines, claims, claim, &plan, crawl).await,
        (_, None) => Ok(RunOutcome::Abandoned),
    }
}

/// Compares a crawl whose pages have ended with the one before.
async fn report(engines: &Engines, claims: &Claims, claim: &Claim, held: &HeldPage) -> Result<RunOutcome, LedgerError> {
    let spending = Spending::new(engines);
    claims.leave_unvisited(claim).await;
    let Ok(end) = conclusion::conclude_crawl(engines, claims, claim, held).await? else {
        return Ok(RunOutcome::Fenced);
    };
    let ended = claims.end_page(claim, held, &end, spending.micros(), 0).await?;
    Ok(match (ended, end) {
        (Err(Fenced), _) => RunOutcome::Fenced,
        (Ok(()), CrawlEnd::FailsRun(_)) => RunOutcome::Failed,
        (Ok(()), _) => RunOutcome::Succeeded,
    })
}

fn outcome(end: &CrawlEnd, stop: &CancellationToken) -> RunOutcome {
    match end {
        CrawlEnd::Done(_) | CrawlEnd::Mapped(_) | CrawlEnd::Skipped(_) | CrawlEnd::Reported(_) => RunOutcome::Succeeded,
        CrawlEnd::Failed(_) | CrawlEnd::Absent(_) | CrawlEnd::FailsRun(_) => RunOutcome::Failed,
        CrawlEnd::Retry { .. } => RunOutcome::Retried,
        CrawlEnd::Waits { .. } if stop.is_cancelled() => RunOutcome::HandedBack,
        CrawlEnd::Waits { .. } => RunOutcome::Waits,
    }
}

/// Writes down where the crawl begins. Nothing is fetched here: sitemaps and robots.txt are claimed like pages.
async fn begin(
    engines: &Engines,
    claims: &Claims,
    claim: &Claim,
    plan: &Plan,
    crawl: &CrawlPlan,
) -> Result<RunOutcome, LedgerError> {
    let spending = Spending::new(engines);
    claims.leave_unvisited(claim).await;
    let start = CrawlStart {
        found: beginning(crawl),
        max_pages: crawl.max_pages,
        nothing: nothing_found(&claim.spec, plan),
        reports: conclusion::reports(claim),
        units: spending.units(),
    };
    Ok(match claims.begin_crawl(claim, &start).await? {
        Ok(true) => RunOutcome::Succeeded,
        Ok(false) => match claims.finish(claim, &Ending::Canceled, spending.units()).await? {
            Ok(()) => RunOutcome::Canceled,
            Err(Fenced) => RunOutcome::Fenced,
        },
        Err(Fenced) => RunOutcome::Fenced,
    })
}

fn beginning(crawl: &CrawlPlan) -> Vec<FoundPage> {
    let mut found: Vec<FoundPage> = crawl
        .seeds
        .iter()
        .map(|url| found_page(CrawlKind::Page, url, 0))
        .collect();
    found.extend(crawl.sitemaps.iter().map(|url| found_page(CrawlKind::Sitemap, url, 0)));
    if crawl.from_robots_sitemaps {
        for seed in &crawl.seeds {
            if let Ok(site) = seed.join("/") {
                let robots = found_page(CrawlKind::Robots, &site, 0);
                if !found.contains(&robots) {
                    found.push(robots);
                }
            }
        }
    }
    found
}

fn found_page(kind: CrawlKind, url: &Url, depth: i16) -> FoundPage {
    FoundPage {
        kind,
        url: url.to_string(),
        host: url.host_str().unwrap_or_default().to_owned(),
        depth,
    }
}

/// Refuses a redirect that leads out of the crawl before its host is asked.
pub(crate) fn stay_inside(plan: &Plan, from: &Url, to: &Url) -> Result<(), Failure> {
    match &plan.crawl {
        Some(crawl) if !crawl.belongs(&normal_url(to)) => Err(out_of_scope(from, to)),
        _ => Ok(()),
    }
}

fn out_of_scope(from: &Url, to: &Url) -> Failure {
    let to: String = to.as_str().chars().take(300).collect();
    let message = format!(
        "{} leads to {to}, which crawl.scope or crawl.exclude keeps out; name it in url or crawl.seeds if it belongs to the crawl",
        from.path()
    );
    Failure::permanent("OutOfScope", message).blaming(Blame::Page)
}

/// What is fetched for a row of a crawl.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sought {
    Page,
    Sitemap,
    /// The sitemaps that it names.
    Robots,
}

impl Sought {
    /// `None` for a report: nothing is fetched for it.
    fn of(kind: CrawlKind) -> Option<Self> {
        match kind {
            CrawlKind::Page => Some(Self::Page),
            CrawlKind::Sitemap => Some(Self::Sitemap),
            CrawlKind::Robots => Some(Self::Robots),
            CrawlKind::Report => None,
        }
    }
}

/// One page of a crawl in one worker.
struct Visit<'a> {
    claim: &'a Claim,
    held: &'a HeldPage,
    sought: Sought,
    engines: &'a Engines,
    claims: &'a Claims,
    crawl: CrawlPlan,
    run: Run<'a>,
    spending: Spending,
}

impl<'a> Visit<'a> {
    fn new(
        engines: &'a Engines,
        claims: &'a Claims,
        claim: &'a Claim,
        (held, sought): (&'a HeldPage, Sought),
        (mut plan, rights): (Plan, (Arc<Access>, Http)),
        crawl: CrawlPlan,
    ) -> Self {
        if let Some(crawl) = &mut plan.crawl {
            crawl.reads_links = i32::from(held.depth) < i32::from(crawl.max_depth);
        }
        Self {
            claim,
            held,
            sought,
            engines,
            claims,
            crawl,
            spending: Spending::new(engines),
            run: Run::new(engines, claims, claim, (plan, rights), History::default()),
        }
    }

    async fn run(&mut self, url: &Url, stop: &CancellationToken) -> CrawlEnd {
        let robots = self.engines.robots.by(&self.run.http);
        let mut gate = Gate::new(self.claims, &robots, &self.engines.metrics, self.claim);
        let end = self.visit(url, &mut gate, stop).await;
        gate.leave_for_good(url.host_str()).await;
        end
    }

    async fn visit(&mut self, url: &Url, gate: &mut Gate<'_>, stop: &CancellationToken) -> CrawlEnd {
        if stop.is_cancelled() {
            return crawl_end(&Ending::HandedBack);
        }
        if let Some(over) = self.run.is_late().or_else(|| self.run.is_dear(0)) {
            return CrawlEnd::FailsRun(told(&over));
        }
        let started = Instant::now();
        let end = match self.sought {
            Sought::Page => self.page(url, gate, stop).await,
            Sought::Sitemap => self.sitemap(url, gate, stop).await,
            Sought::Robots => gate
                .sitemaps(url, &self.run.plan, stop)
                .await
                .map(|sitemaps| CrawlEnd::Mapped(further(url, &sitemaps, |_| true))),
        };
        let end = match end {
            Ok(end) => {
                gate.ended(Outcome::Answered);
                end
            }
            Err(Stopped::GivenBack(ending)) => crawl_end(&ending),
            Err(Stopped::Failed(failure)) => {
                gate.ended(failure.outcome());
                self.failed(&failure)
            }
        };
        self.count(&end, started);
        end
    }

    async fn page(&mut self, url: &Url, gate: &mut Gate<'_>, stop: &CancellationToken) -> Result<CrawlEnd, Stopped> {
        gate.pass(url, &self.run.plan, stop).await?;
        let (page, extracted) = self.run.read(url, gate, stop, &mut self.spending).await?;
        let arrived = normal_url(&page.url);
        stay_inside(&self.run.plan, url, &arrived)?;
        let moved = (arrived != *url).then(|| found_page(CrawlKind::Page, &arrived, self.held.depth));
        let asks = conditional::asks(&self.run.plan, self.claim);
        let state = conditional::state(self.claim, url, &page).filter(|_| asks);
        let read = ReadPage {
            not_modified: matches!(page.freshness, Freshness::NotModified(_)),
            keeps_links: state.is_some() && conditional::needs_links(&self.run.plan),
            state: state.map(Box::new),
            ..self.read(page, extracted, moved)
        };
        Ok(CrawlEnd::Done(read))
    }

    fn read(&self, page: Page, extracted: Extracted, moved: Option<FoundPage>) -> ReadPage {
        let deeper = self.held.depth.saturating_add(1);
        // What was kept of a page's links by a run that followed them from it is not followed behind the last depth.
        let links = extracted
            .links
            .iter()
            .filter(|_| conditional::needs_links(&self.run.plan));
        ReadPage {
            url: key(&page.url),
            moved,
            records: extracted.records,
            warnings: i32::try_from(extracted.left_out).unwrap_or(i32::MAX),
            found: links.map(|link| found_page(CrawlKind::Page, link, deeper)).collect(),
            artifacts: page.captures.into_iter().map(kept).collect(),
            fill: extracted.fill.counts(),
            ..ReadPage::default()
        }
    }

    /// Fetches and reads a sitemap. Its pages are as near to the beginning as the seeds.
    async fn sitemap(&mut self, url: &Url, gate: &mut Gate<'_>, stop: &CancellationToken) -> Result<CrawlEnd, Stopped> {
        // Before the host's turn and the page's time begin: what another site's sitemap takes is not this one's fault.
        let _alone = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Stopped::GivenBack(Ending::HandedBack)),
            alone = SITEMAPS.acquire() => alone,
        };
        gate.pass(url, &self.run.plan, stop).await?;
        let allowed = self.run.plan.timeout;
        let deadline = Instant::now() + allowed;
        let late = |_| Stopped::from(Failure::late(allowed).blaming(Blame::Host));
        let reading = async {
            let bytes = self.fetch_sitemap(url, gate, stop).await?;
            let size = bytes.len() as u64;
            let parsed = tokio::task::spawn_blocking(move || sitemap::parse(&bytes, deadline)).await;
            let parsed = parsed.map_err(|_| "it cannot be read".to_owned()).flatten();
            let failed = |message| Failure::permanent("Sitemap", format!("the sitemap cannot be used: {message}"));
            Ok::<_, Stopped>((parsed.map_err(|message| failed(message).blaming(Blame::Page))?, size))
        };
        let (sitemap, size) = timeout(allowed, reading).await.map_err(late)??;
        self.spending.bytes += size;
        let (base, crawl) = (url.clone(), self.crawl.clone());
        let pages = tokio::task::spawn_blocking(move || pages(&crawl, &base, &sitemap.pages)).await;
        let mut found = pages.unwrap_or_default();
        found.extend(further(url, &sitemap.sitemaps, |further| {
            further.host() == url.host() || self.crawl.is_near(further)
        }));
        Ok(CrawlEnd::Mapped(found))
    }

    async fn fetch_sitemap(
        &self,
        url: &Url,
        gate: &mut Gate<'_>,
        stop: &CancellationToken,
    ) -> Result<Vec<u8>, Stopped> {
        let request = Request {
            url,
            home: &self.run.plan.url,
            headers: &self.run.plan.headers,
        };
        let mut trip = Trip::to(url).by(&self.run.access);
        loop {
            let arrived = self.run.http.go_on_to_sitemap(&mut trip, request).await;
            if let Some(bytes) = arrived.map_err(Failure::from)? {
                return Ok(bytes);
            }
            gate.follow(trip.next(), &self.run.plan, stop).await?;
        }
    }

    fn failed(&self, failure: &Failure) -> CrawlEnd {
        if let Some(late) = self.run.is_late() {
            return CrawlEnd::FailsRun(told(&late));
        }
        if NO_PAGES.contains(&failure.class) && self.sought == Sought::Page {
            return CrawlEnd::Skipped(told(failure));
        }
        if let Some(waits) = self.run.let_off(failure) {
            return crawl_end(&waits);
        }
        let attempt = u32::try_from(self.claim.attempts).unwrap_or(1).max(1);
        let again = failure.retryable && attempt <= u32::from(self.run.plan.max_retries);
        tracing::info!(
            task = %self.held.task, page = %self.claim.id, attempt, class = failure.class, message = failure.message, again,
            "A page of a crawl failed."
        );
        let error = told(failure);
        if again {
            CrawlEnd::Retry {
                after: backoff(self.run.plan.retry_delay, attempt, failure.retry_after),
                error,
            }
        } else if failure.no_page {
            CrawlEnd::Absent(error)
        } else {
            CrawlEnd::Failed(error)
        }
    }

    fn count(&self, end: &CrawlEnd, started: Instant) {
        let outcome = match end {
            CrawlEnd::Done(page) if page.not_modified => PageOutcome::NotModified,
            CrawlEnd::Done(_) | CrawlEnd::Mapped(_) => PageOutcome::Committed,
            CrawlEnd::Retry { .. } => PageOutcome::Retryable,
            CrawlEnd::Failed(_) | CrawlEnd::Absent(_) | CrawlEnd::Skipped(_) => PageOutcome::Permanent,
            CrawlEnd::Waits { .. } | CrawlEnd::FailsRun(_) | CrawlEnd::Reported(_) => return,
        };
        self.run.count_page(outcome, started);
    }
}

/// Further sitemaps.
fn further(base: &Url, sitemaps: &[String], may: impl Fn(&Url) -> bool) -> Vec<FoundPage> {
    let urls = sitemaps.iter().filter_map(|text| absolute(base, text.trim()));
    urls.map(|url| normal_url(&url))
        .filter(|url| url.username().is_empty() && url.password().is_none() && may(url))
        .map(|url| found_page(CrawlKind::Sitemap, &url, 0))
        .collect()
}

/// The pages of a sitemap that belong to the crawl.
fn pages(crawl: &CrawlPlan, base: &Url, urls: &[String]) -> Vec<FoundPage> {
    let urls = urls.iter().filter_map(|text| absolute(base, text));
    urls.map(|url| normal_url(&url))
        .filter(|url| crawl.follows(url))
        .map(|url| found_page(CrawlKind::Page, &url, 0))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(crawl: &serde_json::Value) -> Plan {
        let spec = json!({ "url": "http://site.test/a", "fields": [{ "name": "t" }], "crawl": crawl });
        serde_json::from_value::<selextract_task::TaskSpec>(spec)
            .unwrap()
            .compile()
            .unwrap()
    }

    #[test]
    fn a_crawl_begins_with_its_seeds_its_sitemaps_and_one_robots_txt_for_each_site() {
        let plan = plan(&json!({
            "seeds": ["http://site.test/b", "http://other.test/"], "sitemaps": ["http://cdn.test/s.xml"], "fromRobotsSitemaps": true,
        }));
        let begins: Vec<_> = beginning(plan.crawl.as_ref().unwrap())
            .into_iter()
            .map(|page| (page.kind, page.url))
            .collect();
        let expected = [
            (CrawlKind::Page, "http://site.test/a"),
            (CrawlKind::Page, "http://site.test/b"),
            (CrawlKind::Page, "http://other.test/"),
            (CrawlKind::Sitemap, "http://cdn.test/s.xml"),
            (CrawlKind::Robots, "http://site.test/"),
            (CrawlKind::Robots, "http://other.test/"),
        ];
        assert_eq!(begins, expected.map(|(kind, url)| (kind, url.to_owned())));
    }

    #[test]
    fn a_redirect_out_of_the_crawl_is_refused_and_one_within_it_is_not() {
        let plan = plan(&json!({ "exclude": ["/login"], "include": ["/never"] }));
        let url = |text: &str| text.parse::<Url>().unwrap();
        assert!(stay_inside(&plan, &plan.url, &url("http://www.site.test/home")).is_ok());
        for out in ["http://elsewhere.test/", "http://site.test/login?from=a"] {
            let failure = stay_inside(&plan, &plan.url, &url(out)).unwrap_err();
            assert_eq!((failure.class, failure.retryable), ("OutOfScope", false));
            assert!(failure.message.contains(out));
        }
    }

    #[test]
    fn of_a_sitemaps_pages_only_those_of_the_crawl_are_taken() {
        let plan = plan(&json!({ "include": ["/p/"] }));
        let crawl = plan.crawl.as_ref().unwrap();
        let urls = [
            "http://site.test/p/1#x",
            "/p/2",
            "http://site.test/q",
            "http://far.test/p/3",
            "javascript:x",
        ];
        let found = pages(crawl, &plan.url, &urls.map(str::to_owned));
        let urls: Vec<_> = found.iter().map(|page| page.url.as_str()).collect();
        assert_eq!(urls, ["http://site.test/p/1", "http://site.test/p/2"]);
        assert!(found.iter().all(|page| page.depth == 0));
    }
}
