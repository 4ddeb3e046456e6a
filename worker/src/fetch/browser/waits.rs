//! Waiting for what a plan names: by what changes in the DOM, not by asking again and again.

use std::time::{Duration, Instant};

use selextract_task::{Awaited, Wait, WaitState};
use serde_json::Value;
use tokio::time::sleep;

use super::{deadline, more, world::World};
use crate::fetch::{FetchError, WaitingSnafu, millis};

/// The longest that one call waits: a command of the DevTools protocol has a time-out of its own.
const SLICE: Duration = Duration::from_secs(5);
/// Between two documents.
const PAUSE: Duration = Duration::from_millis(20);

/// Whether it holds within so many milliseconds. It is looked at when the DOM changes, at most every 25 ms, and every 250 ms for what
/// changes without it (a style sheet that came).
const WAIT: &str = r"(selector, state, text, ms) => new Promise(done => {
    const seen = e => e.checkVisibility({ visibilityProperty: true }) && [...e.getClientRects()].some(r => r.width > 0 && r.height > 0);
    const all = () => [...document.querySelectorAll(selector)];
    const holds = () => {
        if (selector === null) return document.body !== null && document.body.innerText.includes(text);
        if (state === 'Gone') return !all().some(seen);
        if (text !== null) return all().some(e => (e.innerText ?? e.textContent).includes(text) && (state !== 'Visible' || seen(e)));
        return state === 'Visible' ? all().some(seen) : document.querySelector(selector) !== null;
    };
    if (holds()) return done(true);
    let soon = 0;
    const end = held => { observer.disconnect(); clearTimeout(soon); clearInterval(again); clearTimeout(over); done(held); };
    const look = () => { soon = 0; if (holds()) end(true); };
    const observer = new MutationObserver(() => { soon ||= setTimeout(look, 25); });
    observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
    const again = setInterval(look, 250);
    const over = setTimeout(() => end(false), ms);
})";

/// Waits for each of the conditions in turn.
pub(super) async fn hold(world: &mut World<'_>, conditions: &[Wait]) -> Result<(), FetchError> {
    for wait in conditions {
        let held = match &wait.what {
            Awaited::Quiet => more::settle(world, more::REST, wait.timeout).await?,
            what => holds(world, what, deadline(wait.timeout)).await?,
        };
        if !held {
            return WaitingSnafu {
                what: told(&wait.what),
                timeout: wait.timeout,
            }
            .fail();
        }
    }
    Ok(())
}

/// Whether an element is as wanted before the deadline.
pub(super) async fn element(
    world: &mut World<'_>,
    selector: &str,
    state: WaitState,
    until: Instant,
) -> Result<bool, FetchError> {
    let what = Awaited::Element {
        selector: selector.to_owned(),
        state,
        text: None,
    };
    holds(world, &what, until).await
}

async fn holds(world: &mut World<'_>, what: &Awaited, until: Instant) -> Result<bool, FetchError> {
    let (selector, state, text) = match what {
        Awaited::Element { selector, state, text } => (Value::from(selector.as_str()), *state, text.as_deref()),
        Awaited::Text(text) => (Value::Null, WaitState::Present, Some(text.as_str())),
        Awaited::Quiet => return Ok(false),
    };
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let arguments = [
            selector.clone(),
            format!("{state:?}").into(),
            text.into(),
            millis(left.min(SLICE)).into(),
        ];
        match world.call(WAIT, &arguments).await? {
            Some(Value::Bool(true)) => return Ok(true),
            _ if Instant::now() >= until => return Ok(false),
            Some(_) => {}
            // The document went away; the next one is asked.
            None => sleep(PAUSE).await,
        }
    }
}

/// For the message.
fn told(what: &Awaited) -> String {
    match what {
        Awaited::Element { selector, state, text } => {
            let state = match state {
                WaitState::Present => "",
                WaitState::Visible => " and was seen",
                WaitState::Gone => return format!("{selector:?} was still seen"),
            };
            match text {
                Some(text) => format!("nothing matched {selector:?} with the text {text:?}{state}"),
                None => format!("nothing matched {selector:?}{state}"),
            }
        }
        Awaited::Text(text) => format!("the text {text:?} was not seen"),
        Awaited::Quiet => "the page did not come to rest".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_waited_for_in_vain_is_named() {
        let element = |state, text: Option<&str>| {
            told(&Awaited::Element {
                selector: ".list".into(),
                state,
                text: text.map(str::to_owned),
            })
        };
        assert_eq!(element(WaitState::Present, None), "nothing matched \".list\"");
        assert_eq!(element(WaitState::Gone, None), "\".list\" was still seen");
        assert_eq!(
            element(WaitState::Visible, Some("x")),
            "nothing matched \".list\" with the text \"x\" and was seen"
        );
    }
}
