//! Previews: one page, read at once for a caller who waits, and stored nowhere. One at a time, beside the runs.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use selextract_platform::previews::{Answer, LONGEST, PreviewError, Previews, Request};
use selextract_task::{Plan, Render, feed::RunError};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    access::{Access, http_login},
    claims::jittered,
    extract::Extracted,
    failure::Failure,
    fetch::{
        self, Page,
        browser::{Errand, Leave, Opening, Session},
        http::{Http, Trip},
    },
    rendering::lack,
    robots::{Known, Robots, disallowed, unavailable},
    task_run::{Engines, look_at_page, read_page},
};

/// Records of an answer.
const RECORDS: usize = 100;
/// Bytes of an answer's records; the caller sees that there are more.
const BYTES: usize = 1 << 20;
const PAUSE: Duration = Duration::from_secs(2);

/// Answers previews until `stop`.
pub async fn serve(engines: Engines, previews: Previews, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = forever(&engines, &previews) => {}
    }
}

async fn forever(engines: &Engines, previews: &Previews) {
    loop {
        if let Err(error) = listen(engines, previews).await {
            tracing::warn!(%error, "Previews are not served; it is tried again.");
            sleep(jittered(PAUSE)).await;
        }
    }
}

async fn listen(engines: &Engines, previews: &Previews) -> Result<(), PreviewError> {
    let mut listener = previews.listen().await?;
    loop {
        let Some(request) = listener.next().await? else {
            continue;
        };
        let left = left(&request);
        // Nobody waits for it any more.
        if left.is_zero() {
            continue;
        }
        let answer = read(engines, &request, left).await;
        previews.answer(request.id, &answer).await?;
    }
}

fn left(request: &Request) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let deadline = Duration::from_millis(u64::try_from(request.deadline_milliseconds).unwrap_or_default());
    deadline.saturating_sub(now).min(LONGEST)
}

/// Reads the page of a request within the time that is left.
pub async fn read(engines: &Engines, request: &Request, left: Duration) -> Answer {
    let mut answer = Answer {
        url: request.spec.url.clone(),
        records: Vec::new(),
        found: 0,
        warnings: 0,
        next_url: None,
        error: None,
    };
    match page(engines, request, left).await {
        Ok((url, extracted)) => {
            answer.url = url.into();
            answer.found = extracted.records.len() as u64;
            answer.warnings = extracted.left_out;
            answer.next_url = extracted.next.map(Url::into);
            answer.records = shortened(extracted.records);
        }
        Err(failure) => {
            answer.error = Some(RunError {
                class: failure.class.into(),
                message: failure.message,
            });
        }
    }
    answer
}

async fn page(engines: &Engines, request: &Request, left: Duration) -> Result<(Url, Extracted), Failure> {
    let plan = request.spec.compile();
    let mut plan = plan.map_err(|violations| Failure::permanent("InvalidSpec", violations.to_string()))?;
    // Of a crawl its first page is shown, whatever it leads to.
    plan.crawl = None;
    let plan = Arc::new(plan);
    let allowed = plan.timeout.min(left);
    let deadline = Instant::now() + allowed;
    let opened = timeout(
        allowed,
        engines.vault.open(&plan, request.owner, (&engines.http, request.id)),
    )
    .await;
    let rights = opened.map_err(|_| Failure::late(allowed))?.map_err(|error| {
        tracing::warn!(%error, "Credentials for a preview could not be read.");
        Failure::retryable("Ledger", "the credentials cannot be read now; ask again in a moment")
    })??;
    let preview = Reading {
        engines,
        plan: &plan,
        access: &rights.0,
        http: &rights.1,
    };
    let read = timeout(allowed, preview.read(allowed, deadline)).await;
    let (page, mut extracted) = read.map_err(|_| Failure::late(allowed))??;
    if let Some(template) = &plan.template {
        extracted.next = template.page(2);
    }
    extracted.next = extracted.next.filter(|_| !extracted.stops);
    Ok((page.url, extracted))
}

/// One page on its way to a preview.
struct Reading<'r> {
    engines: &'r Engines,
    plan: &'r Arc<Plan>,
    access: &'r Arc<Access>,
    http: &'r Http,
}

impl Reading<'_> {
    async fn read(&self, allowed: Duration, deadline: Instant) -> Result<(Page, Extracted), Failure> {
        let plan = self.plan;
        if plan.render != Render::Browser {
            let page = self.fetch_by_http().await?;
            let (page, read) = look_at_page(Arc::clone(plan), page, deadline).await?;
            if plan.render == Render::Http || lack(plan, &read).is_none() {
                return Ok((page, read?));
            }
        }
        let page = self.fetch_by_browser(allowed).await?;
        read_page(Arc::clone(plan), page, deadline).await
    }

    async fn fetch_by_http(&self) -> Result<Page, Failure> {
        let (plan, robots) = (self.plan, self.engines.robots.by(self.http));
        http_login::enter(self.http, self.access, AtOnce).await?;
        let request = fetch::Request {
            url: &plan.url,
            home: &plan.url,
            headers: &plan.headers,
        };
        let mut trip = Trip::to(&plan.url).by(self.access);
        loop {
            ask_robots(&robots, plan, trip.next()).await?;
            if let Some(page) = self.http.go_on(&mut trip, request).await? {
                return Ok(page);
            }
        }
    }

    /// A preview stores nothing, so it captures nothing either.
    async fn fetch_by_browser(&self, allowed: Duration) -> Result<Page, Failure> {
        let (plan, robots) = (self.plan, self.engines.robots.by(self.http));
        ask_robots(&robots, plan, &plan.url).await?;
        let mut session = Session::open(&self.engines.browsers, Opening::of(plan, self.access)).await?;
        session.enter(AtOnce).await?;
        let errand = Errand {
            captures: Vec::new(),
            ..Errand::of(plan, true)
        };
        let leave = Obedient { robots: &robots, plan };
        match session.fetch_by_leave(&plan.url, &errand, allowed, leave).await? {
            Ok(page) => Ok(page),
            Err(error) => Err(self.http.explain(&plan.url, error).await.into()),
        }
    }
}

/// A preview that is led on in the browser.
struct Obedient<'o> {
    robots: &'o Robots,
    plan: &'o Plan,
}

impl Leave for Obedient<'_> {
    type Refusal = Failure;

    async fn ask(&mut self, url: &Url) -> Result<(), Failure> {
        ask_robots(self.robots, self.plan, url).await
    }
}

/// The login of a preview, which takes no turns either.
struct AtOnce;

impl Leave for AtOnce {
    type Refusal = Failure;

    async fn ask(&mut self, _: &Url) -> Result<(), Failure> {
        Ok(())
    }
}

/// A preview obeys robots.txt like a run. It takes no turn at the host: it is one page for a caller who waits, and callers are limited.
async fn ask_robots(robots: &Robots, plan: &Plan, url: &Url) -> Result<(), Failure> {
    if !plan.obeys_robots {
        return Ok(());
    }
    let rules = match robots.known(url).await {
        Some(Known::Rules(rules)) => rules,
        Some(Known::Unavailable(status)) => return Err(unavailable(status)),
        None => robots.ask(url).await?,
    };
    match rules.objection(url) {
        Some(rule) => Err(disallowed(url, &rule)),
        None => Ok(()),
    }
}

/// The first records, as many as an answer holds.
fn shortened<T: serde::Serialize>(records: Vec<T>) -> Vec<T> {
    let mut bytes = 0;
    let fits = |record: &T| {
        bytes += serde_json::to_string(record).map_or(usize::MAX / 2, |text| text.len());
        bytes <= BYTES
    };
    records.into_iter().take(RECORDS).take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_bounded_in_records_and_in_bytes() {
        assert_eq!(shortened(vec!["x"; 500]).len(), RECORDS);
        assert_eq!(shortened(vec!["x".repeat(BYTES / 3); 5]).len(), 2);
    }
}
