//! The checks of what happens in the browser, and what becomes of it in a plan.

use std::collections::HashSet;

use super::{Check, Duration, MAX_TIMEOUT};
use crate::{
    BrowserCapture, BrowserStep, CaptureType, CaptureWhen, Extractor, ImageFormat, Items, Key, Locator, On, Pagination,
    Render, Resource, StepType, TaskSpec, WaitState,
};

const MAX_WAITS: usize = 8;
const MAX_STEPS: usize = 16;
const MAX_CAPTURES: usize = 8;
const MAX_STEP_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_PAUSE: Duration = Duration::from_secs(30);
const SHORTEST: Duration = Duration::from_millis(1);

/// What happens to pages in the browser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visit {
    /// What is done before a page is read.
    pub steps: Vec<Step>,
    /// What must hold after that.
    pub waits: Vec<Wait>,
    /// What is kept of a page.
    pub captures: Vec<BrowserCapture>,
    /// What pages do not load; `None` for the images, fonts and media that a lean browser leaves out.
    pub block: Option<Vec<Resource>>,
    /// How more of a page is brought into it.
    pub more: Option<More>,
}

impl Visit {
    /// Whether pages need a browser that loads images, fonts and media.
    pub fn is_full(&self) -> bool {
        let heavy = [Resource::Image, Resource::Font, Resource::Media];
        let asked = |block: &Vec<Resource>| heavy.iter().any(|kind| !block.contains(kind));
        self.block.as_ref().is_some_and(asked) || self.captures.iter().any(|capture| capture.kind != CaptureType::Html)
    }

    /// The captures of each page, or of the last.
    pub fn captures(&self, when: CaptureWhen) -> impl Iterator<Item = &BrowserCapture> {
        self.captures.iter().filter(move |capture| capture.when == when)
    }
}

/// One thing that is done in a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub act: Act,
    /// On which pages.
    pub on: On,
    /// Whether the page goes on without it.
    pub optional: bool,
    /// How long what it is done to may take to appear.
    pub timeout: std::time::Duration,
}

/// What a step does; selectors are CSS.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "`StepType` says what they are")]
pub enum Act {
    Click { selector: String },
    Type { selector: String, text: String },
    Press { key: Key, selector: Option<String> },
    Scroll { selector: Option<String> },
    WaitFor { selector: String },
    Pause(std::time::Duration),
    Select { selector: String, option: String },
    Evaluate(Extractor),
}

/// What must hold, and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// What.
    pub what: Awaited,
    /// How long.
    pub timeout: std::time::Duration,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// An element that a CSS selector matches, or that it does not.
    Element {
        /// The selector.
        selector: String,
        /// What must be true of it.
        state: WaitState,
        /// What must be seen in it.
        text: Option<String>,
    },
    /// A text anywhere in the page.
    Text(String),
    /// That nothing is requested and nothing changes.
    Quiet,
}

/// How more of a page is brought into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum More {
    /// By a click on what this CSS selector matches.
    Click(String),
    /// By scrolling to its end.
    Scroll,
}

impl Check {
    /// Everything that is for the browser alone.
    pub(super) fn visit(&mut self, spec: &TaskSpec, items: &Items) -> Visit {
        let waits = self.wait_conditions(spec);
        let more = self.more(spec, items);
        let Some(browser) = &spec.browser else {
            return Visit {
                waits,
                more,
                ..Visit::default()
            };
        };
        if spec.render == Render::Http {
            let cure = "is read only with render Browser or Auto; set one of them or remove it";
            self.refuse("browser", "", cure);
        }
        let steps = self.steps(&browser.steps);
        self.captures(spec.render, &browser.captures);
        if let Some(block) = &browser.block
            && block.iter().collect::<HashSet<_>>().len() < block.len()
        {
            self.refuse(
                "browser.block",
                format!("{block:?}"),
                "names a kind twice; name each once",
            );
        }
        Visit {
            steps,
            waits,
            captures: browser.captures.clone(),
            block: browser.block.clone(),
            more,
        }
    }

    fn wait_conditions(&mut self, spec: &TaskSpec) -> Vec<Wait> {
        let count = spec.wait_conditions.len();
        if spec.render == Render::Http && count > 0 {
            let cure = "are read only with render Browser or Auto; set one of them or remove them";
            self.refuse("waitConditions", count, cure);
        }
        if count > MAX_WAITS {
            self.refuse("waitConditions", count, format!("at most {MAX_WAITS} are allowed"));
        }
        let mut waits = Vec::with_capacity(count);
        for (index, wait) in spec.wait_conditions.iter().enumerate() {
            let path = format!("waitConditions[{index}]");
            self.within(&format!("{path}.timeout"), wait.timeout, SHORTEST, MAX_TIMEOUT);
            if let Some(selector) = &wait.selector {
                self.css(format!("{path}.selector"), selector);
            }
            if let Some(text) = &wait.text {
                self.shortened(&format!("{path}.text"), text, 256);
            }
            let what = match (&wait.selector, &wait.text, wait.network_idle) {
                (Some(selector), text, false) if text.is_none() || wait.state != WaitState::Gone => Awaited::Element {
                    selector: selector.clone(),
                    state: wait.state,
                    text: text.clone(),
                },
                (None, Some(text), false) if wait.state == WaitState::Present => Awaited::Text(text.clone()),
                (None, None, true) if wait.state == WaitState::Present => Awaited::Quiet,
                _ => {
                    let cure = "must have a selector (with a state, or with a text), a text, or networkIdle: true, and no two of these three";
                    self.refuse(path, format!("{wait:?}"), cure);
                    continue;
                }
            };
            waits.push(Wait {
                what,
                timeout: wait.timeout.get(),
            });
        }
        waits
    }

    fn steps(&mut self, steps: &[BrowserStep]) -> Vec<Step> {
        if steps.len() > MAX_STEPS {
            self.refuse("browser.steps", steps.len(), format!("at most {MAX_STEPS} are allowed"));
        }
        let mut compiled = Vec::with_capacity(steps.len());
        for (index, step) in steps.iter().enumerate() {
            let path = format!("browser.steps[{index}]");
            self.within(&format!("{path}.timeout"), step.timeout, SHORTEST, MAX_STEP_TIMEOUT);
            if let Some(selector) = &step.selector {
                self.css(format!("{path}.selector"), selector);
            }
            self.only_its_own(&path, step);
            if let Some(act) = self.act(&path, step) {
                compiled.push(Step {
                    act,
                    on: step.on,
                    optional: step.optional,
                    timeout: step.timeout.get(),
                });
            }
        }
        compiled
    }

    /// Refuses what is not read by a step of this type: it would be left undone silently.
    fn only_its_own(&mut self, path: &str, step: &BrowserStep) {
        use StepType as T;
        let kind = step.kind;
        let extra = [
            ("selector", step.selector.is_some(), kind == T::Evaluate),
            ("text", step.text.is_some(), kind != T::Type),
            ("key", step.key.is_some(), kind != T::Press),
            ("option", step.option.is_some(), kind != T::Select),
            ("duration", step.duration.is_some(), kind != T::Wait),
            ("extractor", step.extractor.is_some(), kind != T::Evaluate),
        ];
        for (name, given, foreign) in extra {
            if given && foreign {
                let cure = "is not read by a step of this type; remove it";
                self.refuse(format!("{path}.{name}"), format!("{kind:?}"), cure);
            }
        }
    }

    fn act(&mut self, path: &str, step: &BrowserStep) -> Option<Act> {
        let selector = step.selector.clone();
        match step.kind {
            StepType::Click => Some(Act::Click {
                selector: self.needed(path, "selector", step, selector)?,
            }),
            StepType::Type => {
                let text = self.needed(path, "text", step, step.text.clone())?;
                self.shortened(&format!("{path}.text"), &text, 4096);
                let selector = self.needed(path, "selector", step, selector)?;
                Some(Act::Type { selector, text })
            }
            StepType::Press => Some(Act::Press {
                key: self.needed(path, "key", step, step.key)?,
                selector,
            }),
            StepType::Scroll => Some(Act::Scroll { selector }),
            StepType::Wait => match (selector, step.duration) {
                (Some(selector), None) => Some(Act::WaitFor { selector }),
                (None, Some(pause)) => {
                    self.within(&format!("{path}.duration"), pause, SHORTEST, MAX_PAUSE);
                    Some(Act::Pause(pause.get()))
                }
                _ => {
                    let cure = "waits for a selector or for a duration; give one of them";
                    self.refuse(path, "Wait", cure);
                    None
                }
            },
            StepType::Select => {
                let option = self.needed(path, "option", step, step.option.clone())?;
                self.shortened(&format!("{path}.option"), &option, 256);
                let selector = self.needed(path, "selector", step, selector)?;
                Some(Act::Select { selector, option })
            }
            StepType::Evaluate => Some(Act::Evaluate(self.needed(path, "extractor", step, step.extractor)?)),
        }
    }

    fn needed<T>(&mut self, path: &str, name: &str, step: &BrowserStep, given: Option<T>) -> Option<T> {
        if given.is_none() {
            let cure = format!("is required by a step of type {:?}", step.kind);
            self.refuse(format!("{path}.{name}"), "", cure);
        }
        given
    }

    fn captures(&mut self, render: Render, captures: &[BrowserCapture]) {
        if captures.is_empty() {
            return;
        }
        let path = "browser.captures";
        if render != Render::Browser {
            let cure =
                "are taken in the browser alone, and with this render not every page goes there; set render Browser";
            self.refuse(path, format!("{render:?}"), cure);
        }
        if captures.len() > MAX_CAPTURES {
            self.refuse(path, captures.len(), format!("at most {MAX_CAPTURES} are allowed"));
        }
        let mut names = HashSet::new();
        for (index, capture) in captures.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if !is_label(&capture.name) {
                let cure =
                    "must be 1 to 63 lower-case letters, digits and hyphens, and begin and end with a letter or digit";
                self.refuse(format!("{path}.name"), &capture.name, cure);
            } else if !names.insert(&capture.name) {
                self.refuse(
                    format!("{path}.name"),
                    &capture.name,
                    "is the name of another capture; give it one of its own",
                );
            }
            if capture.kind != CaptureType::Screenshot && (capture.full_page || capture.format != ImageFormat::Png) {
                let cure = "has fullPage or format, which only a Screenshot has; remove them";
                self.refuse(path, format!("{:?}", capture.kind), cure);
            }
        }
    }

    /// How more is brought into the page.
    fn more(&mut self, spec: &TaskSpec, items: &Items) -> Option<More> {
        let Pagination { load_more, scroll, .. } = spec.pagination.as_ref()?;
        let (field, more) = match (load_more, scroll) {
            (Some(selector), false) => {
                self.css("pagination.loadMore", selector);
                ("pagination.loadMore", More::Click(selector.clone()))
            }
            (None, true) => ("pagination.scroll", More::Scroll),
            _ => return None,
        };
        if spec.render != Render::Browser {
            self.refuse(
                field,
                format!("{:?}", spec.render),
                "happens in the browser; set render Browser",
            );
        }
        if matches!(items, Items::Page) && spec.automatic.is_empty() {
            let cure = "brings more items into one page; say in items what is one record each";
            self.refuse(field, "", cure);
        }
        Some(more)
    }

    /// A selector that is matched by the browser.
    fn css(&mut self, path: impl Into<String>, text: &str) {
        let path = path.into();
        let located = self.locator(path.as_str(), text);
        if located.is_some_and(|locator| !matches!(locator, Locator::Css(_))) {
            self.refuse(path, text, "is looked for by the browser; write CSS");
        }
    }

    fn shortened(&mut self, path: &str, text: &str, most: usize) {
        if text.chars().count() > most {
            self.refuse(path, text, format!("has more than {most} characters"));
        }
    }
}

/// RFC 1123, as names in Kubernetes.
fn is_label(name: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn compile(extra: &Value) -> Result<Visit, Vec<String>> {
        let mut spec = json!({
            "url": "https://example.com/list", "render": "Browser", "items": "li", "fields": [{ "name": "title" }],
        });
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let spec: TaskSpec = serde_json::from_value(spec).unwrap();
        let plan = spec.compile();
        plan.map(|plan| plan.visit)
            .map_err(|violations| violations.iter().map(|v| v.field.clone()).collect())
    }

    fn steps(steps: &Value) -> Result<Vec<Act>, Vec<String>> {
        let visit = compile(&json!({ "browser": { "steps": steps } }))?;
        Ok(visit.steps.into_iter().map(|step| step.act).collect())
    }

    #[test]
    fn every_type_of_step_compiles_with_what_it_needs() {
        let acts = steps(&json!([
            { "type": "Click", "selector": "#more", "optional": true },
            { "type": "Type", "selector": "input", "text": "shoes" },
            { "type": "Press", "key": "Enter" },
            { "type": "Scroll" },
            { "type": "Wait", "selector": ".list" },
            { "type": "Wait", "duration": "300ms" },
            { "type": "Select", "selector": "select", "option": "Size 9" },
            { "type": "Evaluate", "extractor": "PageState", "on": "FirstPage" },
        ]));
        assert_eq!(acts.unwrap().len(), 8);
    }

    #[test]
    fn a_step_that_lacks_something_or_has_what_another_type_reads_is_refused_with_its_place() {
        assert_eq!(
            steps(&json!([{ "type": "Click" }])).unwrap_err(),
            ["browser.steps[0].selector"]
        );
        assert_eq!(steps(&json!([{ "type": "Wait" }])).unwrap_err(), ["browser.steps[0]"]);
        let wrong = json!([{ "type": "Scroll" }, { "type": "Press", "key": "Tab", "text": "x", "timeout": "2m" }]);
        assert_eq!(
            steps(&wrong).unwrap_err(),
            ["browser.steps[1].timeout", "browser.steps[1].text"]
        );
        let xpath = json!([{ "type": "Click", "selector": "//a" }]);
        assert_eq!(steps(&xpath).unwrap_err(), ["browser.steps[0].selector"]);
        let long = json!([{ "type": "Wait", "duration": "31s" }]);
        assert_eq!(steps(&long).unwrap_err(), ["browser.steps[0].duration"]);
    }

    #[test]
    fn a_wait_condition_is_one_thing() {
        let waits = |waits: Value| compile(&json!({ "waitConditions": waits })).map(|visit| visit.waits.len());
        let all = json!([
            { "selector": "a" }, { "selector": "a", "state": "Gone" }, { "selector": "a", "text": "x", "state": "Visible" },
            { "text": "x" }, { "networkIdle": true },
        ]);
        assert_eq!(waits(all), Ok(5));
        for wrong in [
            json!({}),
            json!({ "text": "x", "networkIdle": true }),
            json!({ "selector": "a", "networkIdle": true }),
            json!({ "selector": "a", "text": "x", "state": "Gone" }),
            json!({ "text": "x", "state": "Visible" }),
        ] {
            assert_eq!(waits(json!([wrong])).unwrap_err(), ["waitConditions[0]"], "{wrong}");
        }
    }

    #[test]
    fn what_needs_the_browser_is_refused_without_it() {
        let refused = |spec: Value| compile(&spec).unwrap_err();
        assert_eq!(refused(json!({ "render": "Http", "browser": {} })), ["browser"]);
        assert_eq!(
            refused(json!({ "render": "Http", "waitConditions": [{ "selector": "a" }] })),
            ["waitConditions"]
        );
        let captures = json!([{ "name": "shot", "type": "Screenshot" }]);
        assert_eq!(
            refused(json!({ "render": "Auto", "browser": { "captures": captures } })),
            ["browser.captures"]
        );
        assert_eq!(
            refused(json!({ "render": "Auto", "pagination": { "scroll": true } })),
            ["pagination.scroll"]
        );
        let steps = json!([{ "type": "Scroll" }]);
        assert!(compile(&json!({ "render": "Auto", "browser": { "steps": steps } })).is_ok());
    }

    #[test]
    fn captures_have_names_of_their_own() {
        let refused = |captures: Value| compile(&json!({ "browser": { "captures": captures } })).unwrap_err();
        assert_eq!(
            refused(
                json!([{ "name": "a", "type": "Pdf" }, { "name": "a", "type": "Html" }, { "name": "A/b", "type": "Html" }])
            ),
            ["browser.captures[1].name", "browser.captures[2].name"]
        );
        assert_eq!(
            refused(json!([{ "name": "a", "type": "Pdf", "fullPage": true }])),
            ["browser.captures[0]"]
        );
    }

    #[test]
    fn a_page_is_loaded_whole_when_it_is_looked_at_or_when_the_task_says_what_is_not_loaded() {
        let full = |browser: Value| compile(&json!({ "browser": browser })).unwrap().is_full();
        assert!(!full(json!({})));
        assert!(!full(json!({ "captures": [{ "name": "a", "type": "Html" }] })));
        assert!(full(json!({ "captures": [{ "name": "a", "type": "Screenshot" }] })));
        assert!(full(json!({ "block": [] })));
        assert!(full(json!({ "block": ["Image", "Script"] })));
        assert!(!full(json!({ "block": ["Image", "Font", "Media", "Script"] })));
    }

    #[test]
    fn more_is_brought_by_a_click_or_by_scrolling_and_needs_items() {
        let more = |pagination: Value| compile(&json!({ "pagination": pagination })).map(|visit| visit.more);
        assert_eq!(
            more(json!({ "loadMore": "button.more" })),
            Ok(Some(More::Click("button.more".into())))
        );
        assert_eq!(more(json!({ "scroll": true })), Ok(Some(More::Scroll)));
        let page = json!({ "items": null, "pagination": { "scroll": true } });
        assert_eq!(compile(&page).unwrap_err(), ["pagination.scroll"]);
    }
}
