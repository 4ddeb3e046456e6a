//! What a run passes before each of its pages: the site's robots.txt, and its turn at the host.
//!
//! Short waits are waited for here; longer ones give the run back, so that it holds no slot of the worker meanwhile.

use std::time::Duration;

use rand::Rng;
use selextract_platform::{
    frontier::hosts::{Admission, GivesWay, Outcome, Visit},
    ledger::claims::{Claim, Ending},
};
use selextract_task::{Plan, feed::RunError};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    claims::{Claims, jittered},
    failure::Failure,
    robots::{Known, Robots, disallowed, rules::Rules, unavailable},
    telemetry::Metrics,
};

/// The longest wait for a host that is waited for in place.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest that is waited for in place with a page open in a browser: the longest rest that a task may ask for, twice.
const LONG_PATIENCE: Duration = Duration::from_mins(2);
/// How often a host that is full is asked again meanwhile.
const FULL_POLL: Duration = Duration::from_millis(150);
/// The wait of a run that gave up on a full host.
const FULL_WAIT: Duration = Duration::from_secs(1);
/// How long a silent frontier is asked again before the run is given back. Without its word no host is visited.
const SILENCE: Duration = Duration::from_secs(10);
const SILENCE_WAIT: Duration = Duration::from_secs(5);
/// How long a run may keep its slot of the worker while other owners wait for one.
const SLICE: Duration = Duration::from_secs(30);
/// A page's slot outlives the page's own time by this: for its extraction, and for what the network delays.
const MARGIN: Duration = Duration::from_secs(10);
/// The longest that a page waits for others to commit with: a crash costs what waits, and somebody may look at the run.
const COMPANY: Duration = Duration::from_millis(50);
/// What a commit and the question for the next turn may take.
const COMMITS: Duration = Duration::from_millis(50);
/// The wait of a run whose site's robots.txt was unavailable for another one lately.
const ROBOTS_WAIT: Duration = Duration::from_mins(1);

/// Why a page does not begin.
#[derive(Debug)]
pub enum Stopped {
    /// The run is given back: it waits, or the worker stops.
    GivenBack(Ending),
    /// The page fails.
    Failed(Failure),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// One run's way to its pages.
pub struct Gate<'a> {
    claims: &'a Claims,
    robots: &'a Robots,
    metrics: &'a Metrics,
    claim: &'a Claim,
    since: Instant,
    /// Pages that this claim began.
    pages: u32,
    /// Whether it had a turn at any host.
    had_turn: bool,
    held: Option<Held>,
    /// Turns at other hosts for what the page under way needs there, which keeps its own meanwhile.
    asides: Vec<Held>,
    /// Until when the host of the last turn rests before it may be visited again.
    rests_until: Instant,
}

/// A page under way, or one that ended and whose end the host was not told yet.
struct Held {
    host: String,
    ended: Option<Outcome>,
}

impl Held {
    fn is_under_way_at(&self, host: &str) -> bool {
        self.ended.is_none() && self.host == host
    }
}

impl<'a> Gate<'a> {
    /// For a run that was claimed just now.
    pub fn new(claims: &'a Claims, robots: &'a Robots, metrics: &'a Metrics, claim: &'a Claim) -> Self {
        Self {
            claims,
            robots,
            metrics,
            claim,
            since: Instant::now(),
            pages: 0,
            had_turn: false,
            held: None,
            asides: Vec::new(),
            rests_until: Instant::now(),
        }
    }

    /// Waits until the page may be fetched.
    ///
    /// # Errors
    /// When it may not, or not soon.
    pub async fn pass(&mut self, url: &Url, plan: &Plan, stop: &CancellationToken) -> Result<(), Stopped> {
        let own = plan.politeness.min_delay.get();
        if plan.obeys_robots {
            let (rules, has_turn) = self.rules(url, plan, stop).await?;
            if let Some(rule) = rules.objection(url) {
                return Err(Stopped::Failed(disallowed(url, &rule)));
            }
            let delay = own.max(rules.crawl_delay.unwrap_or_default());
            // A turn that was taken without knowing of the site's delay is too short for it.
            if !has_turn || delay > own {
                self.turn(url, delay, plan, stop).await?;
            }
        } else {
            self.turn(url, own, plan, stop).await?;
        }
        self.pages += 1;
        Ok(())
    }

    /// Waits until a redirect of the page under way may be followed. On the same host it belongs to the page's turn; what robots.txt says
    /// of it is asked all the same.
    ///
    /// # Errors
    /// As [`Gate::pass`].
    pub async fn follow(&mut self, url: &Url, plan: &Plan, stop: &CancellationToken) -> Result<(), Stopped> {
        let host = url.host_str().unwrap_or_default();
        let has_turn = self.held.as_ref().is_some_and(|held| held.is_under_way_at(host));
        if has_turn && !plan.obeys_robots {
            return Ok(());
        }
        // Another scheme or port is another origin, with a robots.txt of its own; asking for it takes a turn.
        if has_turn && let Some(known) = self.robots.known(url).await {
            return match settled(known)?.objection(url) {
                Some(rule) => Err(Stopped::Failed(disallowed(url, &rule))),
                None => Ok(()),
            };
        }
        self.ended(Outcome::Answered);
        self.pass(url, plan, stop).await
    }

    /// The sitemaps that the robots.txt of a URL's site names.
    ///
    /// # Errors
    /// As [`Gate::pass`].
    pub async fn sitemaps(&mut self, url: &Url, plan: &Plan, stop: &CancellationToken) -> Result<Vec<String>, Stopped> {
        let (rules, _) = self.rules(url, plan, stop).await?;
        Ok(rules.sitemaps.clone())
    }

    /// The same for more of a page that is open in a browser: what it shows would have to be brought again, so the run waits in place,
    /// and gives way to nobody.
    ///
    /// # Errors
    /// As [`Gate::pass`]; the run is given back when its host rests for minutes.
    pub async fn stay(&mut self, url: &Url, plan: &Plan, stop: &CancellationToken) -> Result<(), Stopped> {
        loop {
            self.pages = 0;
            match self.pass(url, plan, stop).await {
                Err(Stopped::GivenBack(Ending::Waits { after, reason: None })) if after < LONG_PATIENCE => {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return Err(Stopped::GivenBack(Ending::HandedBack)),
                        () = sleep(after) => {}
                    }
                }
                passed => return passed,
            }
        }
    }

    /// The same as [`Gate::follow`] for a document that a page open in a browser leads to, by a redirect or by script: it would have to be
    /// brought again, so it gives way to nobody.
    ///
    /// # Errors
    /// As [`Gate::pass`].
    pub async fn lead(&mut self, url: &Url, plan: &Plan, stop: &CancellationToken) -> Result<(), Stopped> {
        let pages = std::mem::take(&mut self.pages);
        let led = self.follow(url, plan, stop).await;
        self.pages += pages;
        led
    }

    /// Waits until what the page under way needs first, its login, may ask for this document. At the page's own host it belongs to the
    /// page's turn, elsewhere it has one turn at each host, until [`Gate::back`]. The page keeps its own meanwhile: after a long rest it
    /// would have to log in again. Runs that wait for each other's hosts do so for seconds, and then one is given back.
    ///
    /// robots.txt is not asked, but the delay that it names is kept where it is known.
    ///
    /// # Errors
    /// When the host may not be visited soon.
    pub async fn aside(&mut self, url: &Url, plan: &Plan, stop: &CancellationToken) -> Result<(), Stopped> {
        let host = url.host_str().unwrap_or_default();
        if self
            .held
            .iter()
            .chain(&self.asides)
            .any(|held| held.is_under_way_at(host))
        {
            return Ok(());
        }
        let own = plan.politeness.min_delay.get();
        let delay = match self.robots.known(url).await {
            Some(Known::Rules(rules)) if plan.obeys_robots => own.max(rules.crawl_delay.unwrap_or_default()),
            _ => own,
        };
        let wait = self.admitted(host, delay, GivesWay::ToNobody, plan, stop).await?;
        self.asides.push(Held {
            host: host.to_owned(),
            ended: None,
        });
        rested(wait, stop).await
    }

    /// The page goes on at its own host: what it needed elsewhere is done.
    pub async fn back(&mut self) {
        self.end_asides(Outcome::Answered).await;
    }

    /// What the page's end says about its host; it is told with the next page, or when the run is let go. Of one that ends while its run is
    /// elsewhere, it is said about the host there.
    pub fn ended(&mut self, outcome: Outcome) {
        let own = match self.asides.last_mut() {
            Some(aside) => {
                aside.ended = Some(outcome);
                Outcome::Unknown
            }
            None => outcome,
        };
        if let Some(held) = &mut self.held {
            held.ended = Some(own);
        }
    }

    /// How long a page may wait for its commit without its run being late for the next one: its host rests anyway.
    pub fn spare(&self) -> Duration {
        let rest = self.rests_until.saturating_duration_since(Instant::now());
        rest.saturating_sub(COMMITS).min(COMPANY)
    }

    /// Tells the host that the run is gone; `taken_for` is the one that it was taken for.
    pub async fn leave_for_good(&mut self, taken_for: Option<&str>) {
        if let (false, Some(host)) = (self.had_turn, taken_for) {
            self.claims.unvisited(host, self.claim).await;
        }
        self.leave().await;
    }

    async fn leave(&mut self) {
        self.end_asides(Outcome::Unknown).await;
        if let Some(held) = self.held.take() {
            let outcome = held.ended.unwrap_or(Outcome::Unknown);
            self.claims.end(&held.host, self.claim, outcome).await;
        }
    }

    /// Gives the turns at other hosts back. `last` is what the one where the run is says, if nothing else was said of it.
    async fn end_asides(&mut self, mut last: Outcome) {
        while let Some(aside) = self.asides.pop() {
            let outcome = aside.ended.unwrap_or(last);
            self.claims.end(&aside.host, self.claim, outcome).await;
            // Who was led on was answered.
            last = Outcome::Answered;
        }
    }

    /// The site's rules, and whether the page has its turn already: asking the site takes one, and meanwhile another run may have asked.
    async fn rules(
        &mut self,
        url: &Url,
        plan: &Plan,
        stop: &CancellationToken,
    ) -> Result<(std::sync::Arc<Rules>, bool), Stopped> {
        if let Some(known) = self.robots.known(url).await {
            return Ok((settled(known)?, false));
        }
        self.turn(url, plan.politeness.min_delay.get(), plan, stop).await?;
        if let Some(known) = self.robots.known(url).await {
            return Ok((settled(known)?, true));
        }
        let asked = self.robots.ask(url).await;
        self.ended(asked.as_ref().map_or_else(Failure::outcome, |_| Outcome::Answered));
        asked.map(|rules| (rules, false)).map_err(Stopped::Failed)
    }

    /// Takes the run's turn at the host of this URL.
    async fn turn(&mut self, url: &Url, delay: Duration, plan: &Plan, stop: &CancellationToken) -> Result<(), Stopped> {
        let host = url.host_str().unwrap_or_default();
        // Where the page before ended while its run was elsewhere.
        self.end_asides(Outcome::Unknown).await;
        if self.held.as_ref().is_some_and(|held| held.host != host) {
            self.leave().await;
        }
        let wait = self.admitted(host, delay, self.gives_way(), plan, stop).await?;
        self.had_turn = true;
        self.rests_until = Instant::now() + wait + delay;
        self.held = Some(Held {
            host: host.to_owned(),
            ended: None,
        });
        rested(wait, stop).await
    }

    /// Waits until a host admits the run, and says how long it still rests then.
    async fn admitted(
        &mut self,
        host: &str,
        delay: Duration,
        gives_way: GivesWay,
        plan: &Plan,
        stop: &CancellationToken,
    ) -> Result<Duration, Stopped> {
        let visit = Visit {
            host,
            id: self.claim.id,
            owner: self.claim.user_id,
            max_concurrent: plan.politeness.max_concurrent,
            delay,
            takes: plan.timeout + MARGIN,
            patience: PATIENCE,
            gives_way,
        };
        let begun = Instant::now();
        loop {
            match self.ask(&visit).await? {
                Admission::Start(wait) => return Ok(wait),
                Admission::Full if begun.elapsed() < PATIENCE => sleep(jittered(FULL_POLL)).await,
                Admission::Full => return Err(waits(FULL_WAIT, None)),
                Admission::Later(after) => return Err(waits(after, None)),
                Admission::GiveWay => return Err(waits(Duration::ZERO, None)),
                Admission::Unavailable(after) => return Err(host_unavailable(host, after)),
            }
            if stop.is_cancelled() {
                return Err(Stopped::GivenBack(Ending::HandedBack));
            }
        }
    }

    /// Asks the frontier, patiently.
    async fn ask(&mut self, visit: &Visit<'_>) -> Result<Admission, Stopped> {
        let give_up = Instant::now() + SILENCE;
        loop {
            let held = self.held.as_ref().filter(|held| held.host == visit.host);
            let before = held.map(|held| held.ended.unwrap_or(Outcome::Unknown));
            match self.claims.begin(visit, before).await {
                Ok(admission) => {
                    if before.is_some() {
                        self.held = None;
                    }
                    self.metrics.host_answered(admission);
                    return Ok(admission);
                }
                Err(error) if Instant::now() < give_up => {
                    tracing::warn!(host = visit.host, %error, "The frontier is asked again whether a host may be visited.");
                    sleep(jittered(Duration::from_millis(500))).await;
                }
                Err(_) => return Err(waits(SILENCE_WAIT, None)),
            }
        }
    }

    fn gives_way(&self) -> GivesWay {
        if self.pages == 0 {
            GivesWay::ToNobody
        } else if self.since.elapsed() < SLICE {
            GivesWay::AtTheHost
        } else {
            GivesWay::Everywhere
        }
    }
}

/// Until a host that has admitted the run has rested.
async fn rested(rest: Duration, stop: &CancellationToken) -> Result<(), Stopped> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Stopped::GivenBack(Ending::HandedBack)),
        () = sleep(rest) => Ok(()),
    }
}

fn settled(known: Known) -> Result<std::sync::Arc<Rules>, Stopped> {
    match known {
        Known::Rules(rules) => Ok(rules),
        // This run has asked nothing, so it is not its failure.
        Known::Unavailable(status) => {
            let Failure { class, message, .. } = unavailable(status);
            let reason = RunError {
                class: class.into(),
                message,
            };
            Err(waits(jittered(ROBOTS_WAIT), Some(reason)))
        }
    }
}

/// Everything that waits for a host would come back in the same moment, so it comes a little later than that.
fn host_unavailable(host: &str, after: Duration) -> Stopped {
    let seconds = after.as_secs().max(1);
    let reason = RunError {
        class: "HostUnavailable".into(),
        message: format!("{host} failed too often and is left alone; it is tried again in about {seconds} s"),
    };
    waits(after + after.mul_f64(rand::rng().random_range(0.0..0.1)), Some(reason))
}

fn waits(after: Duration, reason: Option<RunError>) -> Stopped {
    Stopped::GivenBack(Ending::Waits { after, reason })
}
