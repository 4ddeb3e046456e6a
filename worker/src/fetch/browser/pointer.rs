//! Mouse and keys, by the DevTools protocol's input events: what a page cannot tell from a person's, and what script cannot do.

use std::time::{Duration, Instant};

use chromiumoxide::cdp::browser_protocol::{
    input::{
        DispatchKeyEventParams, DispatchKeyEventType, DispatchMouseEventParams, DispatchMouseEventType,
        InsertTextParams, MouseButton,
    },
    page::{ClientNavigationDisposition, EventFrameRequestedNavigation},
};
use futures::StreamExt;
use selextract_task::Key;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::{failed, world::World};
use crate::fetch::FetchError;

/// How long it takes until a page says that an input leads it elsewhere.
const REACTION: Duration = Duration::from_millis(100);
/// How long the way elsewhere may take until the new document is there.
const COMMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// A place in the viewport, in CSS pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point(f64, f64);

/// The middle of an element after it was scrolled into view, or why it cannot be clicked on.
const TARGET: &str = r"selector => {
    const e = document.querySelector(selector);
    if (!e) return 'is not there';
    e.scrollIntoView({ block: 'center', inline: 'center', behavior: 'instant' });
    const box = [...e.getClientRects()].find(r => r.width > 0 && r.height > 0);
    if (!box || !e.checkVisibility({ visibilityProperty: true })) return 'is not visible';
    if (e.disabled || e.getAttribute('aria-disabled') === 'true') return 'is disabled';
    const middle = (from, size, most) => (Math.max(from, 0) + Math.min(from + size, most)) / 2;
    const x = middle(box.x, box.width, innerWidth), y = middle(box.y, box.height, innerHeight);
    const hit = document.elementFromPoint(x, y);
    if (!hit) return 'lies outside of what can be scrolled to';
    if (!e.contains(hit) && !hit.contains(e) && hit.closest('label')?.control !== e) return 'is covered by something else';
    return [x, y];
}";

/// Where an element can be clicked on at the moment, or why not.
pub(super) async fn target(world: &mut World<'_>, selector: &str) -> Result<Result<Point, String>, FetchError> {
    Ok(match world.call(TARGET, &[selector.into()]).await? {
        Some(Value::Array(point)) => {
            let at = |index: usize| point.get(index).and_then(Value::as_f64).unwrap_or_default();
            Ok(Point(at(0), at(1)))
        }
        Some(Value::String(reason)) => Err(reason),
        _ => Err("went away with its page".to_owned()),
    })
}

/// The same, as soon as it can be clicked on.
pub(super) async fn target_until(
    world: &mut World<'_>,
    selector: &str,
    until: Instant,
) -> Result<Result<Point, String>, FetchError> {
    loop {
        match target(world, selector).await? {
            Err(_) if Instant::now() < until => sleep(POLL).await,
            found => return Ok(found),
        }
    }
}

/// Clicks, and waits for the page that it leads to, if it leads to one.
pub(super) async fn click(world: &mut World<'_>, Point(x, y): Point) -> Result<(), FetchError> {
    input(world, async |world| {
        mouse(
            world,
            DispatchMouseEventParams::new(DispatchMouseEventType::MouseMoved, x, y),
        )
        .await?;
        for kind in [
            DispatchMouseEventType::MousePressed,
            DispatchMouseEventType::MouseReleased,
        ] {
            let mut event = DispatchMouseEventParams::new(kind, x, y);
            event.button = Some(MouseButton::Left);
            event.click_count = Some(1);
            mouse(world, event).await?;
        }
        Ok(())
    })
    .await
}

async fn mouse(world: &World<'_>, event: DispatchMouseEventParams) -> Result<(), FetchError> {
    world.tab.page.execute(event).await.map(drop).map_err(failed)
}

/// Marks what stands in the field that has the focus, so that what is typed takes its place.
const MARK: &str = r"selector => {
    const e = document.querySelector(selector);
    if (!e) return false;
    e.focus();
    if (typeof e.select === 'function') e.select();
    else getSelection().selectAllChildren(e);
    return true;
}";

const FOCUS: &str = r"selector => {
    const e = document.querySelector(selector);
    if (!e) return false;
    e.focus();
    return true;
}";

/// Types a text in place of what stands in a field. `false` when it is gone.
pub(super) async fn fill(world: &mut World<'_>, selector: &str, text: &str) -> Result<bool, FetchError> {
    if world.call(MARK, &[selector.into()]).await? != Some(Value::Bool(true)) {
        return Ok(false);
    }
    if text.is_empty() {
        press(world, Key::Delete).await?;
        return Ok(true);
    }
    let typed = world.tab.page.execute(InsertTextParams::new(text)).await;
    typed.map_err(failed)?;
    Ok(true)
}

/// Gives an element the focus. `false` when it is gone.
pub(super) async fn focus(world: &mut World<'_>, selector: &str) -> Result<bool, FetchError> {
    Ok(world.call(FOCUS, &[selector.into()]).await? == Some(Value::Bool(true)))
}

/// Presses a key, and waits for the page that it leads to, if it leads to one.
pub(super) async fn press(world: &mut World<'_>, key: Key) -> Result<(), FetchError> {
    let (code, number, text) = code(key);
    input(world, async |world| {
        let down = match text {
            Some(_) => DispatchKeyEventType::KeyDown,
            None => DispatchKeyEventType::RawKeyDown,
        };
        for kind in [down, DispatchKeyEventType::KeyUp] {
            let mut event = DispatchKeyEventParams::new(kind.clone());
            event.key = Some(if key == Key::Space { " ".into() } else { code.into() });
            event.code = Some(code.into());
            event.windows_virtual_key_code = Some(number);
            if kind == DispatchKeyEventType::KeyDown {
                event.text = text.map(str::to_owned);
            }
            world.tab.page.execute(event).await.map_err(failed)?;
        }
        Ok(())
    })
    .await
}

/// A key's code, its number on Windows' keyboards, and what it types.
const fn code(key: Key) -> (&'static str, i64, Option<&'static str>) {
    match key {
        Key::Enter => ("Enter", 13, Some("\r")),
        Key::Tab => ("Tab", 9, None),
        Key::Escape => ("Escape", 27, None),
        Key::Space => ("Space", 32, Some(" ")),
        Key::Backspace => ("Backspace", 8, None),
        Key::Delete => ("Delete", 46, None),
        Key::ArrowUp => ("ArrowUp", 38, None),
        Key::ArrowDown => ("ArrowDown", 40, None),
        Key::ArrowLeft => ("ArrowLeft", 37, None),
        Key::ArrowRight => ("ArrowRight", 39, None),
        Key::PageUp => ("PageUp", 33, None),
        Key::PageDown => ("PageDown", 34, None),
        Key::Home => ("Home", 36, None),
        Key::End => ("End", 35, None),
    }
}

const TO_END: &str = r"selector => {
    const e = selector === null ? document.scrollingElement ?? document.documentElement : document.querySelector(selector);
    if (!e) return false;
    if (selector !== null) e.scrollIntoView({ block: 'end', behavior: 'instant' });
    e.scrollTo({ top: e.scrollHeight, behavior: 'instant' });
    return true;
}";

/// Scrolls to the end of the page, or of an element. `false` when it is not there.
pub(super) async fn scroll_to_end(world: &mut World<'_>, selector: Option<&str>) -> Result<bool, FetchError> {
    if world.call(TO_END, &[selector.into()]).await? != Some(Value::Bool(true)) {
        return Ok(false);
    }
    // Some pages listen to the wheel alone.
    let mut wheel = DispatchMouseEventParams::new(DispatchMouseEventType::MouseWheel, 640.0, 512.0);
    wheel.delta_x = Some(0.0);
    wheel.delta_y = Some(200.0);
    mouse(world, wheel).await?;
    Ok(true)
}

/// Does an input. Where it leads elsewhere, what follows is to find the new document and not the old one.
async fn input(
    world: &mut World<'_>,
    what: impl AsyncFnOnce(&World<'_>) -> Result<(), FetchError>,
) -> Result<(), FetchError> {
    let asked = world.tab.page.event_listener::<EventFrameRequestedNavigation>();
    let mut asked = asked.await.map_err(failed)?;
    what(world).await?;
    let frame = &world.tab.frame;
    let leaves = async {
        loop {
            match asked.next().await {
                Some(asked) if asked.frame_id == *frame => {
                    return asked.disposition == ClientNavigationDisposition::CurrentTab;
                }
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    };
    if timeout(REACTION, leaves).await == Ok(true) {
        // One that does not come (204, a download) leaves the page as it is.
        let _ = timeout(COMMIT, world.commit()).await;
    }
    Ok(())
}
