//! One run in one worker: from its claim, page by page, until it is let go.

mod auto;
mod clicks;
mod led;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use selextract_platform::{
    frontier::hosts::Outcome,
    ledger::{
        LedgerError,
        artifacts::NewArtifact,
        claims::{Claim, Ending, Fenced, NewPage, Renewed},
        conditional::Known,
    },
};
use selextract_task::{CaptureWhen, Plan, Render, TaskSpec, feed::RunError};
use tokio::time::{error::Elapsed, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    access::{Access, Vault, http_login},
    browser::Browsers,
    claims::{Claims, History, jittered},
    conclusion, conditional,
    cpu::{Meter, Share},
    crawl,
    extract::{Document, ExtractError, Extracted, extract, extract_at_once, extract_by_tree, is_quick},
    failure::{BROWSER_GONE, Blame, Failure, backoff},
    fetch::{
        Capture, Freshness, Page, Request,
        browser::{Errand, Opening, Session},
        http::{Http, Trip},
    },
    gate::{Gate, Stopped},
    paging::{self, Seen},
    rendering::Engine,
    robots::Robots,
    telemetry::{Metrics, PageOutcome, RunOutcome},
};
use led::{Led, LoggingIn};

/// How long a run waits whose browser is gone.
const NEXT_BROWSER: Duration = Duration::from_secs(1);

/// What every run of a worker shares.
#[derive(Clone, Debug)]
pub struct Engines {
    /// Fetches by HTTP.
    pub http: Http,
    /// What sites allow.
    pub robots: Robots,
    /// Fetches in Chromium.
    pub browsers: Arc<Browsers>,
    /// Where credentials come from.
    pub vault: Vault,
    /// This process's CPU.
    pub cpu: Arc<Meter>,
    /// What is counted.
    pub metrics: Metrics,
}

/// Extracts, off the runtime where that may take a while; the page comes back without its text.
pub(crate) async fn read_page(plan: Arc<Plan>, page: Page, deadline: Instant) -> Result<(Page, Extracted), Failure> {
    let (page, extracted) = look_at_page(plan, page, deadline).await?;
    Ok((page, extracted?))
}

/// The same, for who judges by what is missing.
pub(crate) async fn look_at_page(
    plan: Arc<Plan>,
    mut page: Page,
    deadline: Instant,
) -> Result<(Page, Result<Extracted, ExtractError>), Failure> {
    let (url, content, text) = (page.url.clone(), page.content, std::mem::take(&mut page.text));
    let document = Document {
        url: &url,
        content,
        text: &text,
    };
    let is_quick = is_quick(&plan, document);
    if is_quick && let Some(read) = extract_at_once(&plan, document, deadline).transpose() {
        return Ok((page, read));
    }
    let extraction = tokio::task::spawn_blocking(move || {
        let document = Document {
            url: &url,
            content,
            text: &text,
        };
        if is_quick {
            extract_by_tree(&plan, document, deadline)
        } else {
            extract(&plan, document, deadline)
        }
    });
    let extracted = extraction
        .await
        .map_err(|_| Failure::permanent("Extraction", "the page cannot be read"))?;
    Ok((page, extracted))
}

/// When a run is to be let go before its end.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// At the next page boundary: the worker stops.
    pub stop: CancellationToken,
    /// At once, and without a write: the lease is lost.
    pub lost: CancellationToken,
}

/// Works on a run until it is let go, and says why it was.
pub async fn run(engines: &Engines, claims: &Claims, claim: &Claim, signals: &Signals) -> RunOutcome {
    let started = Instant::now();
    let busy = engines
        .metrics
        .run_began(Duration::from_secs_f64(claim.waited_seconds.clamp(0.0, 1e9)));
    let outcome = tokio::select! {
        biased;
        () = signals.lost.cancelled() => RunOutcome::Fenced,
        outcome = work(engines, claims, claim, &signals.stop) => outcome.unwrap_or_else(|error| {
            tracing::warn!(task = %claim.id, %error, "A run is left to its lease's end.");
            RunOutcome::Abandoned
        }),
    };
    drop(busy);
    engines.metrics.run_ended(outcome, started.elapsed());
    outcome
}

async fn work(
    engines: &Engines,
    claims: &Claims,
    claim: &Claim,
    stop: &CancellationToken,
) -> Result<RunOutcome, LedgerError> {
    let mut spending = Spending::new(engines);
    let ending = match claim.spec.compile() {
        Ok(plan) if plan.crawl.is_some() => return crawl::work(engines, claims, claim, plan, stop).await,
        Ok(plan) => match engines
            .vault
            .open(&plan, Some(claim.user_id), (&engines.http, claim.id.0))
            .await?
        {
            Ok(rights) => {
                let history = claims.history(claim).await?;
                let home = plan.url.host_str().map(str::to_owned);
                let robots = engines.robots.by(&rights.1);
                let mut gate = Gate::new(claims, &robots, &engines.metrics, claim);
                let mut run = Run::new(engines, claims, claim, (plan, rights), history);
                run.remember().await?;
                let walked = run.pages(&mut gate, stop, &mut spending).await;
                gate.leave_for_good(home.as_deref()).await;
                match walked? {
                    Walk::Ended(Ending::Succeeded) => match conclusion::conclude(engines, claims, claim).await? {
                        Ok(ending) => ending,
                        Err(Fenced) => return Ok(RunOutcome::Fenced),
                    },
                    Walk::Ended(ending) => ending,
                    Walk::Fenced => return Ok(RunOutcome::Fenced),
                }
            }
            Err(failure) => {
                claims.leave_unvisited(claim).await;
                Ending::Failed(told(&failure))
            }
        },
        // It was accepted by a version that understood it.
        Err(violations) => {
            claims.leave_unvisited(claim).await;
            Ending::Failed(told(&Failure::permanent("InvalidSpec", violations.to_string())))
        }
    };
    let outcome = match &ending {
        Ending::Succeeded => RunOutcome::Succeeded,
        Ending::Failed(_) => RunOutcome::Failed,
        Ending::Retry { .. } => RunOutcome::Retried,
        Ending::HandedBack => RunOutcome::HandedBack,
        Ending::Waits { .. } => RunOutcome::Waits,
        Ending::Canceled => RunOutcome::Canceled,
    };
    Ok(match claims.finish(claim, &ending, spending.units()).await? {
        Ok(()) => outcome,
        Err(Fenced) => RunOutcome::Fenced,
    })
}

/// How the walk through the pages ended.
enum Walk {
    Ended(Ending),
    /// The claim is another's: whatever was fetched is dropped.
    Fenced,
}

pub(crate) struct Run<'a> {
    engines: &'a Engines,
    claims: &'a Claims,
    claim: &'a Claim,
    pub(crate) plan: Arc<Plan>,
    pub(crate) access: Arc<Access>,
    /// What its requests go by.
    pub(crate) http: Http,
    session: Option<Session>,
    /// What fetched the page that is under way.
    engine: Engine,
    /// With render Auto: the browser did not find what the server's HTML lacks.
    browser_helps_not: bool,
    /// The pages of this run, requested and arrived at: a next link back to one of them ends it.
    visited: HashSet<String>,
    /// Its records, where a page that repeats them ends it.
    seen: Seen,
    /// Pages committed; the ledger counts them from 1.
    pages: i32,
    records: u64,
    /// Attempts at the page that is next, this one included.
    attempt: u32,
    /// When the run has taken as long as it may.
    ends: Option<Instant>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        engines: &'a Engines,
        claims: &'a Claims,
        claim: &'a Claim,
        (plan, (access, http)): (Plan, (Arc<Access>, Http)),
        history: History,
    ) -> Self {
        let ran = Duration::from_secs_f64(claim.running_seconds.clamp(0.0, 1e9));
        Self {
            ends: plan
                .max_duration
                .map(|longest| Instant::now() + longest.saturating_sub(ran)),
            engines,
            claims,
            claim,
            engine: if plan.render == Render::Browser {
                Engine::Browser
            } else {
                Engine::Http
            },
            browser_helps_not: false,
            plan: Arc::new(plan),
            access,
            http,
            session: None,
            visited: history.urls,
            seen: Seen::default(),
            pages: claim.pages,
            records: history.records,
            attempt: u32::try_from(claim.attempts).unwrap_or(1).max(1),
        }
    }

    /// What was committed by earlier claims, as far as it is asked for.
    async fn remember(&mut self) -> Result<(), LedgerError> {
        if !self.plan.stop.repeated_records || self.pages == 0 {
            return Ok(());
        }
        let last = (self.pages - paging::PAGES).max(1);
        for number in [0].into_iter().chain(last..self.pages) {
            if let Some(page) = self.claims.page_after(self.claim, number).await? {
                self.seen.extend(&page.records);
            }
        }
        Ok(())
    }

    /// Reads page after page from where the last committed one leads.
    async fn pages(
        &mut self,
        gate: &mut Gate<'_>,
        stop: &CancellationToken,
        spending: &mut Spending,
    ) -> Result<Walk, LedgerError> {
        let Some(mut next) = self.first() else {
            return Ok(Walk::Ended(self.finished()));
        };
        if let Some(more) = self.plan.visit.more.clone() {
            return self.click_through(&more, gate, stop, spending).await;
        }
        loop {
            if stop.is_cancelled() {
                return Ok(Walk::Ended(Ending::HandedBack));
            }
            if let Some(over) = self.over(spending) {
                return Ok(Walk::Ended(Ending::Failed(told(&over))));
            }
            match gate.pass(&next, &self.plan, stop).await {
                Ok(()) => {}
                Err(Stopped::GivenBack(ending)) => return Ok(Walk::Ended(ending)),
                Err(Stopped::Failed(failure)) => return Ok(Walk::Ended(self.failed(&failure, Instant::now()))),
            }
            let started = Instant::now();
            let (mut page, extracted) = match self.read(&next, gate, stop, spending).await {
                Ok(read) => read,
                Err(Stopped::GivenBack(ending)) => return Ok(Walk::Ended(ending)),
                Err(Stopped::Failed(failure)) => {
                    gate.ended(failure.outcome());
                    if self.is_behind_the_last(&failure) {
                        return Ok(Walk::Ended(self.finished()));
                    }
                    let failure = self.over(spending).unwrap_or(failure);
                    return Ok(Walk::Ended(self.failed(&failure, started)));
                }
            };
            gate.ended(Outcome::Answered);
            if self.repeats(&extracted) {
                return Ok(Walk::Ended(self.finished()));
            }
            let following = self.following(&next, &page.url, &extracted);
            if following.is_none() {
                match self.capture_last().await {
                    Ok(last) => page.captures.extend(last),
                    Err(failure) => return Ok(Walk::Ended(self.failed(&failure, started))),
                }
            }
            // The last page is waited for by whoever asked for the run.
            let spare = following.as_ref().map_or(Duration::ZERO, |_| gate.spare());
            match self.commit(&mut page, extracted, (following.as_ref(), spare)).await? {
                Err(Fenced) => return Ok(Walk::Fenced),
                Ok(renewed) => {
                    self.count_page(committed(&page), started);
                    if conditional::asks(&self.plan, self.claim) {
                        conditional::remember(self.claims, self.claim, &next, &page, self.pages).await;
                    }
                    if renewed.cancel_requested {
                        return Ok(Walk::Ended(Ending::Canceled));
                    }
                    if renewed.paused && following.is_some() {
                        return Ok(Walk::Ended(Ending::HandedBack));
                    }
                }
            }
            match following {
                Some(url) => next = url,
                None => return Ok(Walk::Ended(self.finished())),
            }
        }
    }

    /// Why the run may not go on: it has taken as long or cost as much as its spec allows.
    fn over(&self, spending: &Spending) -> Option<Failure> {
        self.is_late().or_else(|| self.is_dear(spending.units()))
    }

    /// Why the run may not go on: it has taken as long as its spec allows.
    pub(crate) fn is_late(&self) -> Option<Failure> {
        let (ends, longest) = (self.ends?, self.plan.max_duration?);
        let longest = selextract_task::Duration::from_millis(u64::try_from(longest.as_millis()).unwrap_or(u64::MAX));
        (Instant::now() >= ends).then(|| {
            Failure::permanent(
                "MaxDuration",
                format!("the run took longer than its maxDuration of {longest}"),
            )
        })
    }

    /// Why the run may not go on: with these compute units it has cost as much as its spec allows.
    pub(crate) fn is_dear(&self, units: u64) -> Option<Failure> {
        let most = u64::from(self.plan.max_compute_units?);
        let used = u64::try_from(self.claim.units_used).unwrap_or_default() + units;
        (used > most).then(|| {
            let message = format!("the run used {used} compute units and its maxComputeUnits is {most}");
            Failure::permanent("MaxComputeUnits", message)
        })
    }

    /// Where this claim begins. `None` when every page was committed and only the end was not.
    fn first(&self) -> Option<Url> {
        if self.pages == 0 {
            return Some(self.plan.url.clone());
        }
        // It was checked when it was found.
        self.claim.next_url.as_deref().and_then(|next| Url::parse(next).ok())
    }

    /// Fetches and extracts within the page's time.
    pub(crate) async fn read(
        &mut self,
        url: &Url,
        gate: &mut Gate<'_>,
        stop: &CancellationToken,
        spending: &mut Spending,
    ) -> Result<(Page, Extracted), Stopped> {
        let allowed = self.allowed();
        let deadline = Instant::now() + allowed;
        let late = |_: Elapsed| Failure::late(allowed).blaming(Blame::Host);
        let fetched = match self.plan.render {
            Render::Auto => {
                let read = timeout(allowed, self.read_by_either(url, deadline, gate, stop, spending)).await;
                self.charge_browser(spending);
                return read.map_err(late)?;
            }
            Render::Http => timeout(allowed, self.fetch(Engine::Http, url, gate, stop, spending)).await,
            Render::Browser => timeout(allowed, self.fetch(Engine::Browser, url, gate, stop, spending)).await,
        };
        self.charge_browser(spending);
        let page = fetched.map_err(late)??;
        spending.bytes += page.bytes;
        if let Freshness::NotModified(known) = &page.freshness {
            let extracted = self.as_it_was(known).await?;
            return Ok((page, extracted));
        }
        Ok(read_page(Arc::clone(&self.plan), page, deadline).await?)
    }

    /// By one engine; where the session that was logged in is over, once more with another.
    async fn fetch(
        &mut self,
        engine: Engine,
        url: &Url,
        gate: &mut Gate<'_>,
        stop: &CancellationToken,
        spending: &mut Spending,
    ) -> Result<Page, Stopped> {
        loop {
            let fetched = match engine {
                Engine::Browser => self.fetch_by_browser(url, gate, stop, spending).await,
                Engine::Http => self.fetch_by_http(url, gate, stop).await,
            };
            match fetched {
                // The next session is another tab's.
                Err(Stopped::Failed(failure)) if self.access.may_enter_again(&failure) => self.session = None,
                done => return done,
            }
        }
    }

    /// What the run before read in a page that is as it was.
    async fn as_it_was(&self, known: &Known) -> Result<Extracted, Failure> {
        let read = conditional::read(self.claims, known).await;
        read.map_err(|error| Failure::retryable("Ledger", error.to_string()))?
    }

    /// How long the next page may take.
    fn allowed(&self) -> Duration {
        let left = self.ends.map(|ends| ends.saturating_duration_since(Instant::now()));
        self.plan.timeout.min(left.unwrap_or(Duration::MAX))
    }

    fn charge_browser(&self, spending: &mut Spending) {
        if let Some(session) = &self.session {
            spending.charge_browser(session.cpu());
        }
    }

    /// Each document that the main frame is led to is allowed, and each host on the way has its turn.
    async fn fetch_by_browser(
        &mut self,
        url: &Url,
        gate: &mut Gate<'_>,
        stop: &CancellationToken,
        spending: &mut Spending,
    ) -> Result<Page, Stopped> {
        self.engine = Engine::Browser;
        let plan = &self.plan;
        // A tab that cannot be used again goes before the next one comes.
        let session = if let Some(session) = self.session.take().filter(Session::is_usable) {
            session
        } else {
            spending.browser_before = Duration::ZERO;
            Session::open(&self.engines.browsers, Opening::of(plan, &self.access))
                .await
                .map_err(Failure::from)?
        };
        let session = self.session.insert(session);
        session.enter(LoggingIn { gate, plan, stop }).await?;
        gate.back().await;
        let alternates = plan.render == Render::Auto;
        if alternates {
            session.bring_cookies().await.map_err(Failure::from)?;
        }
        // A page that is brought again is the run's first one too.
        let errand = Errand::of(plan, self.pages == 0 || plan.visit.more.is_some());
        let leave = Led {
            gate,
            plan,
            access: &self.access,
            stop,
            url,
        };
        match session.fetch_by_leave(url, &errand, plan.timeout, leave).await? {
            Ok(page) => {
                // For the next page by HTTP, and for the next tab.
                if alternates || self.access.form().is_some() {
                    session.keep_cookies().await.map_err(Failure::from)?;
                }
                Ok(page)
            }
            Err(error) => Err(Failure::from(self.http.explain(url, error).await).into()),
        }
    }

    /// What is captured of the run's last page, which is open.
    async fn capture_last(&mut self) -> Result<Vec<Capture>, Failure> {
        let captures: Vec<_> = self.plan.visit.captures(CaptureWhen::LastPage).collect();
        let Some(session) = self.session.as_mut().filter(|_| !captures.is_empty()) else {
            return Ok(Vec::new());
        };
        let allowed = self.plan.timeout;
        let taken = timeout(allowed, session.capture(&captures)).await;
        Ok(taken.map_err(|_| Failure::late(allowed))??)
    }

    /// Each host on the way has its turn, and each redirect is judged like a page.
    async fn fetch_by_http(
        &mut self,
        url: &Url,
        gate: &mut Gate<'_>,
        stop: &CancellationToken,
    ) -> Result<Page, Stopped> {
        self.engine = Engine::Http;
        let plan = &self.plan;
        http_login::enter(&self.http, &self.access, LoggingIn { gate, plan, stop }).await?;
        gate.back().await;
        let request = Request {
            url,
            home: &plan.url,
            headers: &plan.headers,
        };
        let known = if conditional::asks(plan, self.claim) {
            let key = conditional::key(self.claim, url);
            self.claims
                .known_page(self.claim, key, conditional::needs_links(plan))
                .await
        } else {
            None
        };
        let mut trip = Trip::to(url).with(known).by(&self.access);
        loop {
            let arrived = self.http.go_on(&mut trip, request).await;
            if let Some(page) = arrived.map_err(Failure::from)? {
                return Ok(page);
            }
            crawl::stay_inside(plan, url, trip.next())?;
            gate.follow(trip.next(), plan, stop).await?;
        }
    }

    /// Whether a page that failed tells that the one before it was the last: who counts pages comes to one that is not there.
    fn is_behind_the_last(&self, failure: &Failure) -> bool {
        let empty = self.plan.stop.no_records && failure.class == "NoRecords";
        self.pages > 0 && (empty || (self.plan.template.is_some() && failure.no_page))
    }

    /// Whether the page only repeats what the run has; else it is remembered.
    fn repeats(&mut self, extracted: &Extracted) -> bool {
        if !self.plan.stop.repeated_records {
            return false;
        }
        let repeats = self.seen.has_all(&extracted.records);
        if repeats {
            tracing::info!(task = %self.claim.id, pages = self.pages, "A page repeats what the run has; the run ends.");
        } else {
            self.seen.extend(&extracted.records);
        }
        repeats
    }

    /// The next page, if the run goes there.
    fn following(&mut self, requested: &Url, arrived: &Url, extracted: &Extracted) -> Option<Url> {
        self.visited.insert(key(requested));
        self.visited.insert(key(arrived));
        let pages = self.pages + 1;
        let last = extracted.stops || (self.plan.stop.no_records && extracted.records.is_empty());
        if last || i64::from(pages) >= i64::from(self.plan.max_pages) {
            return None;
        }
        let next = match &self.plan.template {
            Some(template) => template.page(u32::try_from(pages + 1).ok()?),
            None => extracted.next.clone(),
        };
        next.filter(|next| !self.visited.contains(&key(next)))
    }

    async fn commit(
        &mut self,
        page: &mut Page,
        extracted: Extracted,
        (next, spare): (Option<&Url>, Duration),
    ) -> Result<Result<Renewed, Fenced>, LedgerError> {
        let page = NewPage {
            number: self.pages + 1,
            url: key(&page.url),
            next_url: next.map(Url::to_string),
            records: extracted.records,
            warnings: i32::try_from(extracted.left_out).unwrap_or(i32::MAX),
            artifacts: std::mem::take(&mut page.captures).into_iter().map(kept).collect(),
            fill: extracted.fill.counts(),
            not_modified: matches!(page.freshness, Freshness::NotModified(_)),
            spare,
        };
        let committed = self.claims.commit(self.claim, &page).await?;
        self.pages += 1;
        self.records += page.records.len() as u64;
        // The ledger counts anew with each page, and so do we.
        self.attempt = 1;
        Ok(committed)
    }

    /// The end of a run whose pages were all read. One without a single record has a selector that matches nothing.
    fn finished(&self) -> Ending {
        match nothing_found(&self.claim.spec, &self.plan) {
            Some(message) if self.records == 0 => Ending::Failed(RunError {
                class: "NoRecords".into(),
                message,
            }),
            _ => Ending::Succeeded,
        }
    }

    /// The end of a claim whose page ended with a whole browser, and may not have been to blame: the run waits a moment for the next one.
    pub(crate) fn let_off(&self, failure: &Failure) -> Option<Ending> {
        let is_let_off = failure.class == BROWSER_GONE && self.engines.browsers.lets_off(self.claim.id.0);
        is_let_off.then(|| Ending::Waits {
            after: jittered(NEXT_BROWSER),
            reason: Some(told(failure)),
        })
    }

    fn failed(&self, failure: &Failure, started: Instant) -> Ending {
        if let Some(waits) = self.let_off(failure) {
            return waits;
        }
        let retries = u32::from(self.plan.max_retries);
        let again = failure.retryable && self.attempt <= retries;
        self.count_page(
            if failure.retryable {
                PageOutcome::Retryable
            } else {
                PageOutcome::Permanent
            },
            started,
        );
        tracing::info!(
            task = %self.claim.id, page = self.pages, attempt = self.attempt, class = failure.class,
            message = failure.message, again, "A page failed."
        );
        if again {
            Ending::Retry {
                after: backoff(self.plan.retry_delay, self.attempt, failure.retry_after),
                error: told(failure),
            }
        } else {
            Ending::Failed(told(failure))
        }
    }

    pub(crate) fn count_page(&self, outcome: PageOutcome, started: Instant) {
        self.engines.metrics.page(self.engine, outcome, started.elapsed());
    }
}

/// A capture as the ledger keeps it.
pub(crate) fn kept(capture: Capture) -> NewArtifact {
    NewArtifact {
        name: capture.name,
        media_type: capture.media_type,
        bytes: capture.bytes,
    }
}

fn committed(page: &Page) -> PageOutcome {
    match page.freshness {
        Freshness::NotModified(_) => PageOutcome::NotModified,
        Freshness::Unknown | Freshness::Named(_) => PageOutcome::Committed,
    }
}

/// What is said about a run without a single record, where that is a failure.
pub(crate) fn nothing_found(spec: &TaskSpec, plan: &Plan) -> Option<String> {
    match &spec.items {
        Some(items) => Some(format!("no page has anything that items (selector {items:?}) matches")),
        None if !plan.automatic.is_empty() => Some(format!("no page offers any of automatic {:?}", plan.automatic)),
        None => None,
    }
}

/// A URL as loops are told by it.
pub(crate) fn key(url: &Url) -> String {
    let mut url = url.clone();
    url.set_fragment(None);
    url.into()
}

/// A failure as the ledger keeps it.
pub(crate) fn told(failure: &Failure) -> RunError {
    RunError {
        class: failure.class.into(),
        message: failure.message.clone(),
    }
}

/// What a run costs while this claim holds.
pub(crate) struct Spending {
    share: Share,
    browser: Duration,
    /// What the current tab had cost when it was last looked at.
    browser_before: Duration,
    pub(crate) bytes: u64,
}

impl Spending {
    pub(crate) fn new(engines: &Engines) -> Self {
        Self {
            share: engines.cpu.share(),
            browser: Duration::ZERO,
            browser_before: Duration::ZERO,
            bytes: 0,
        }
    }

    /// Adds what a tab has cost since the last look at it.
    fn charge_browser(&mut self, so_far: Duration) {
        self.browser += so_far.saturating_sub(self.browser_before);
        self.browser_before = so_far;
    }

    pub(crate) fn units(&self) -> u64 {
        compute_units(self.share.spent() + self.browser, self.bytes)
    }

    /// In millionths of a compute unit: a microsecond of CPU, and 100 bytes, are one each.
    pub(crate) fn micros(&self) -> u64 {
        let cpu = u64::try_from((self.share.spent() + self.browser).as_micros()).unwrap_or(u64::MAX);
        cpu.saturating_add(self.bytes / 100)
    }
}

/// One for each CPU second and one for each 100 MB through the egress proxy, rounded up together.
fn compute_units(cpu: Duration, bytes: u64) -> u64 {
    const UNIT_BYTES: u128 = 100_000_000;
    const SECOND: u128 = 1_000_000_000;
    // Both in 1/SECOND of a unit.
    let sum = cpu.as_nanos() + u128::from(bytes) * SECOND / UNIT_BYTES;
    u64::try_from(sum.div_ceil(SECOND)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compute_units_are_seconds_and_hundreds_of_megabytes_rounded_up_together() {
        assert_eq!(compute_units(Duration::ZERO, 0), 0);
        assert_eq!(compute_units(Duration::from_millis(1), 0), 1);
        assert_eq!(compute_units(Duration::from_millis(500), 50_000_000), 1);
        assert_eq!(compute_units(Duration::from_secs(2), 100_000_001), 4);
    }

    #[test]
    fn a_fragment_does_not_make_another_page() {
        let url = |text: &str| key(&text.parse().unwrap());
        assert_eq!(url("http://site.test/a?b#c"), url("http://site.test/a?b#d"));
    }
}
