//! What happens to a page in the browser, as users write it: steps before it is read, captures of it, what is not loaded.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// What happens in the browser besides rendering. Only with render Browser, or Auto for the pages that go there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Browser {
    /// What is done in a page when it has loaded, in this order, before waitConditions are looked at and the page is read. Whatever a step leads to is read; it must be an http or https page. Dialogs are dismissed, downloads and new windows are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub steps: Vec<BrowserStep>,

    /// What is kept of a page beside its records: at most 10 MiB each. Only with render Browser.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub captures: Vec<BrowserCapture>,

    /// What pages do not load. Without it images, fonts and media are left out, unless a Screenshot, Pdf or Mhtml is captured, which needs them; an empty list loads everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "set"))]
    pub block: Option<Vec<Resource>>,
}

/// One thing that is done in a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrowserStep {
    /// What is done.
    #[serde(rename = "type")]
    pub kind: StepType,

    /// A CSS selector of what it is done to; the first match in the main frame. Required with Click, Type and Select; with Scroll what is scrolled into view, and to its own end; with Press what has the focus; with Wait what must appear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub selector: Option<String>,

    /// With Type: what is typed in place of what stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub text: Option<String>,

    /// With Press: which key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,

    /// With Select: the value or the label of the option.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub option: Option<String>,

    /// With Wait and no selector: how long, at most 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,

    /// With Evaluate: which of the platform's own extractors runs. A task's own script never runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extractor: Option<Extractor>,

    /// On which pages of the run it is done.
    #[serde(default, skip_serializing_if = "On::is_every_page")]
    pub on: On,

    /// Whether the page goes on when what the step needs does not appear within its timeout, such as a cookie notice.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,

    /// How long to wait for what it is done to, at most 60s; the page's own timeout bounds it too.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StepType {
    /// Clicks on what is visible, enabled, and covered by nothing else.
    Click,
    /// Clicks on a field, empties it, and types a text.
    Type,
    /// Presses a key.
    Press,
    /// Scrolls to the end of the page, or of an element.
    Scroll,
    /// Waits for an element, or for a while.
    Wait,
    /// Chooses an option of a `select`.
    Select,
    /// Runs one of the platform's own extractors.
    Evaluate,
}

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "a key's name says what it is")]
pub enum Key {
    Enter,
    Tab,
    Escape,
    Space,
    Backspace,
    Delete,
    ArrowUp,
    ArrowDown,
    ArrowLeft,
    ArrowRight,
    PageUp,
    PageDown,
    Home,
    End,
}

/// A script of the platform's that brings into the DOM what selectors do not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Extractor {
    /// What scripts keep in `__NEXT_DATA__`, `__NUXT__`, `__INITIAL_STATE__`, `__PRELOADED_STATE__`, `__APOLLO_STATE__` and `__data`: as JSON in `script#selextract-state`, an object of those that there are.
    PageState,
    /// The content of open shadow roots, as `selextract-shadow` elements at the end of their hosts.
    ShadowRoots,
    /// What forms hold at the moment, as `value`, `checked` and `selected` attributes.
    FormValues,
}

/// On which pages of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum On {
    /// On each of them.
    #[default]
    EveryPage,
    /// On the run's first one only.
    FirstPage,
}

impl On {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "for serde")]
    fn is_every_page(&self) -> bool {
        *self == Self::EveryPage
    }
}

/// Something that is kept of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrowserCapture {
    /// What it is called among the page's artifacts: lower-case letters, digits and hyphens.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// What is captured.
    #[serde(rename = "type")]
    pub kind: CaptureType,

    /// With Screenshot: how the image is written.
    #[serde(default, skip_serializing_if = "ImageFormat::is_png")]
    pub format: ImageFormat,

    /// With Screenshot: the whole page, up to 16,384 pixels of its height, instead of the 1280 × 1024 that are seen first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full_page: bool,

    /// Of which pages it is taken.
    #[serde(default, skip_serializing_if = "CaptureWhen::is_every_page")]
    pub when: CaptureWhen,
}

/// What is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaptureType {
    /// An image of the page.
    Screenshot,
    /// The page as it is printed.
    Pdf,
    /// The DOM as HTML, at the moment when it was read.
    Html,
    /// The page with everything that it shows, as MHTML.
    Mhtml,
}

/// How an image is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImageFormat {
    /// Without loss.
    #[default]
    Png,
    /// Smaller, at quality 80.
    Jpeg,
}

impl ImageFormat {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "for serde")]
    fn is_png(&self) -> bool {
        *self == Self::Png
    }
}

/// Of which pages something is captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaptureWhen {
    /// Of each of them.
    #[default]
    EveryPage,
    /// Of the one that is the run's last.
    LastPage,
}

impl CaptureWhen {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "for serde")]
    fn is_every_page(&self) -> bool {
        *self == Self::EveryPage
    }
}

/// A kind of what pages load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Resource {
    /// Images.
    Image,
    /// Fonts.
    Font,
    /// Sound and films.
    Media,
    /// Style sheets.
    Stylesheet,
    /// Scripts in files of their own.
    Script,
}

/// What has to be in the page before it is read: what a selector matches, a text, or quiet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitCondition {
    /// A CSS selector that must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub selector: Option<String>,

    /// What must be true of what the selector matches.
    #[serde(default, skip_serializing_if = "WaitState::is_present")]
    pub state: WaitState,

    /// A text that must be seen in what the selector matches; without a selector, anywhere in the page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub text: Option<String>,

    /// Instead of selector and text: that nothing was requested and nothing in the DOM was changed for half a second. Requests under way for longer than five seconds do not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub network_idle: bool,

    /// How long to wait for it; the page's own timeout bounds it too.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
}

/// What must be true of an element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WaitState {
    /// It is in the DOM.
    #[default]
    Present,
    /// It is seen: it has a size and is not hidden.
    Visible,
    /// It is not in the DOM, or not seen.
    Gone,
}

impl WaitState {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "for serde")]
    fn is_present(&self) -> bool {
        *self == Self::Present
    }
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_wait_condition_of_an_earlier_version_is_written_as_it_was() {
        let earlier = json!({ "selector": ".a", "timeout": "10s" });
        let wait: WaitCondition = serde_json::from_value(earlier.clone()).unwrap();
        assert_eq!(serde_json::to_value(wait).unwrap(), earlier);
    }
}
