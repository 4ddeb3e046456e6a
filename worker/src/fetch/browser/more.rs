//! More of a page in the page: a click or a scroll, and the rest that comes after it.

use std::time::{Duration, Instant};

use selextract_task::More;
use serde_json::Value;
use tokio::time::sleep;

use super::{deadline, pointer, world::World};
use crate::fetch::{FetchError, millis};

/// How long nothing must be requested and nothing in the DOM changed.
pub(super) const REST: Duration = Duration::from_millis(500);
/// The same for a page that seems to have no more.
pub(super) const LONG_REST: Duration = Duration::from_millis(1500);
/// What a page that never rests may take of the time that there is.
const PATIENCE: f64 = 0.75;
const SLICE: Duration = Duration::from_secs(5);

/// Whether the DOM did not change for so long, within so many milliseconds.
const RESTS: &str = r"(rest, ms) => new Promise(done => {
    const end = rests => { observer.disconnect(); clearTimeout(quiet); clearTimeout(over); done(rests); };
    const observer = new MutationObserver(() => { clearTimeout(quiet); quiet = setTimeout(end, rest, true); });
    observer.observe(document, { subtree: true, childList: true, characterData: true });
    let quiet = setTimeout(end, rest, true);
    const over = setTimeout(end, ms, false);
})";

/// Clicks or scrolls. `false` when there is nothing to click on.
pub(super) async fn bring(world: &mut World<'_>, more: &More) -> Result<bool, FetchError> {
    match more {
        More::Click(selector) => {
            // The page has come to rest: what is not there now does not come any more.
            match pointer::target(world, selector).await? {
                Ok(point) => pointer::click(world, point).await.map(|()| true),
                Err(_) => Ok(false),
            }
        }
        More::Scroll => {
            pointer::scroll_to_end(world, None).await?;
            Ok(true)
        }
    }
}

/// Whether the page came to rest in the time that it may take.
pub(super) async fn settle(world: &mut World<'_>, rest: Duration, timeout: Duration) -> Result<bool, FetchError> {
    let until = deadline(timeout.mul_f64(PATIENCE));
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let arguments = [millis(rest).into(), millis(left.min(SLICE)).into()];
        match world.call(RESTS, &arguments).await? {
            Some(Value::Bool(true)) if world.tab.traffic.rests(rest) => return Ok(true),
            _ if Instant::now() >= until => return Ok(false),
            Some(_) => {}
            // The document went away; the next one is asked.
            None => sleep(Duration::from_millis(20)).await,
        }
    }
}
