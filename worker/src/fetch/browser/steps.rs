//! The steps of a plan, one after another.

use selextract_task::{Act, Extractor, Step, WaitState};
use serde_json::Value;
use tokio::time::sleep;

use super::{deadline, pointer, waits, world::World};
use crate::fetch::{FetchError, StepSnafu};

/// The most characters of JSON that an extractor brings.
const MOST_STATE: usize = 4 << 20;

/// Why a step was not done.
enum Undone {
    /// What it is done to is not there, as a sentence without its subject.
    Missing(String),
    Failed(FetchError),
}

impl From<FetchError> for Undone {
    fn from(error: FetchError) -> Self {
        Self::Failed(error)
    }
}

/// Does the steps. One that is optional may lack what it is done to.
pub(super) async fn run(world: &mut World<'_>, steps: &[&Step]) -> Result<(), FetchError> {
    for (index, step) in steps.iter().enumerate() {
        match done(world, step).await {
            Ok(()) => {}
            Err(Undone::Missing(_)) if step.optional => {}
            Err(Undone::Missing(reason)) => {
                return StepSnafu {
                    number: index + 1,
                    reason,
                    timeout: step.timeout,
                }
                .fail();
            }
            Err(Undone::Failed(error)) => return Err(error),
        }
    }
    Ok(())
}

async fn done(world: &mut World<'_>, step: &Step) -> Result<(), Undone> {
    let until = deadline(step.timeout);
    match &step.act {
        Act::Click { selector } => {
            let point = pointer::target_until(world, selector, until).await?;
            let point = point.map_err(|reason| missing(selector, &reason))?;
            Ok(pointer::click(world, point).await?)
        }
        Act::Type { selector, text } => {
            let point = pointer::target_until(world, selector, until).await?;
            let point = point.map_err(|reason| missing(selector, &reason))?;
            pointer::click(world, point).await?;
            there(selector, pointer::fill(world, selector, text).await?)
        }
        Act::Press { key, selector } => {
            if let Some(selector) = selector {
                let visible = waits::element(world, selector, WaitState::Visible, until).await?;
                there(selector, visible && pointer::focus(world, selector).await?)?;
            }
            Ok(pointer::press(world, *key).await?)
        }
        Act::Scroll { selector } => {
            if let Some(selector) = selector {
                there(
                    selector,
                    waits::element(world, selector, WaitState::Present, until).await?,
                )?;
            }
            let selector = selector.as_deref();
            there(
                selector.unwrap_or("html"),
                pointer::scroll_to_end(world, selector).await?,
            )
        }
        Act::WaitFor { selector } => there(
            selector,
            waits::element(world, selector, WaitState::Present, until).await?,
        ),
        Act::Pause(pause) => {
            sleep(*pause).await;
            Ok(())
        }
        Act::Select { selector, option } => {
            there(
                selector,
                waits::element(world, selector, WaitState::Visible, until).await?,
            )?;
            match world
                .call(SELECT, &[selector.as_str().into(), option.as_str().into()])
                .await?
            {
                Some(Value::Bool(true)) => Ok(()),
                _ => Err(Undone::Missing(format!("{selector:?} has no option {option:?}"))),
            }
        }
        Act::Evaluate(extractor) => evaluate(world, *extractor).await.map_err(Undone::Failed),
    }
}

fn there(selector: &str, is: bool) -> Result<(), Undone> {
    if is {
        Ok(())
    } else {
        Err(missing(selector, "is not there"))
    }
}

fn missing(selector: &str, reason: &str) -> Undone {
    Undone::Missing(format!("{selector:?} {reason}"))
}

const SELECT: &str = r"(selector, wanted) => {
    const e = document.querySelector(selector);
    const option = [...e?.options ?? []].find(o => o.value === wanted || o.label.trim() === wanted);
    if (!option || option.disabled) return false;
    option.selected = true;
    e.dispatchEvent(new Event('input', { bubbles: true }));
    e.dispatchEvent(new Event('change', { bubbles: true }));
    return true;
}";

/// An extractor that finds nothing has done its work.
async fn evaluate(world: &mut World<'_>, extractor: Extractor) -> Result<(), FetchError> {
    match extractor {
        Extractor::ShadowRoots => world.call(SHADOW_ROOTS, &[]).await.map(drop),
        Extractor::FormValues => world.call(FORM_VALUES, &[]).await.map(drop),
        // Only the page's own world has its variables. Whatever the page has made of JSON and strings there, its answer is text.
        Extractor::PageState => match world.call_among_the_pages_own(PAGE_STATE).await? {
            Some(Value::String(state)) if state.len() <= MOST_STATE => {
                world.call(KEEP_STATE, &[state.into()]).await.map(drop)
            }
            _ => Ok(()),
        },
    }
}

/// What leaves Chromium must be UTF-16 without half pairs, or no answer comes at all; the page may have replaced every function that could
/// see to it, and may throw such a text. So what it says is looked at with syntax alone: JSON has such halves escaped.
const PAGE_STATE: &str = r"() => {
    const names = ['__NEXT_DATA__', '__NUXT__', '__INITIAL_STATE__', '__PRELOADED_STATE__', '__APOLLO_STATE__', '__data'];
    const state = {};
    let text = null;
    try {
        for (const name of names) if (window[name] !== undefined) state[name] = window[name];
        text = JSON.stringify(state);
    } catch {}
    if (typeof text !== 'string' || text.length > 4194304) return null;
    for (let i = 0; i < text.length; i++) {
        if (text[i] < '\ud800' || text[i] > '\udfff') continue;
        const next = i + 1 < text.length ? text[i + 1] : '';
        if (text[i] > '\udbff' || next < '\udc00' || next > '\udfff') return null;
        i++;
    }
    return text;
}";

const KEEP_STATE: &str = r"state => {
    document.getElementById('selextract-state')?.remove();
    const script = document.createElement('script');
    script.type = 'application/json';
    script.id = 'selextract-state';
    script.textContent = state.replaceAll('<', '\\u003c');
    (document.body ?? document.documentElement).append(script);
}";

/// Roots within roots come by walking what was brought, too.
const SHADOW_ROOTS: &str = r"() => {
    let left = 10000;
    const walk = root => {
        for (const host of [...root.querySelectorAll('*')]) {
            if (!host.shadowRoot || left-- <= 0) continue;
            walk(host.shadowRoot);
            const light = document.createElement('selextract-shadow');
            for (const child of host.shadowRoot.childNodes) light.append(child.cloneNode(true));
            host.append(light);
        }
    };
    walk(document);
}";

const FORM_VALUES: &str = r"() => {
    for (const e of document.querySelectorAll('input, textarea, select')) {
        if (e.type === 'checkbox' || e.type === 'radio') e.toggleAttribute('checked', e.checked);
        else if (e.options) for (const option of e.options) option.toggleAttribute('selected', option.selected);
        else if (e.localName === 'textarea') e.textContent = e.value;
        else if (e.type !== 'password') e.setAttribute('value', e.value);
    }
}";
