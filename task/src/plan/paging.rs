//! Checks how a run goes on to further pages.

use url::Url;

use super::{Check, Reads};
use crate::{
    Locator, Pagination, StopCondition,
    pagination::{MAX_NUMBER, PageTemplate, Stop},
};

/// How a run goes on, compiled.
#[derive(Debug, Default)]
pub(super) struct Paging {
    pub(super) next: Option<Locator>,
    pub(super) template: Option<PageTemplate>,
    pub(super) stop: Stop,
}

impl Check {
    /// `home` is the first page, where that is a URL.
    pub(super) fn paging(&mut self, pagination: Option<&Pagination>, home: Option<&Url>, reads: Reads) -> Paging {
        let Some(given) = pagination else {
            return Paging::default();
        };
        self.one_way(given);
        let next = given
            .next_selector
            .as_deref()
            .and_then(|text| self.locator_in(reads, "pagination.nextSelector", text));
        let counts = given.url_template.is_some();
        Paging {
            next,
            template: home.and_then(|home| self.template(given, home)),
            stop: self.stop(given.stop_condition.as_ref(), counts, reads),
        }
    }

    fn one_way(&mut self, given: &Pagination) {
        let ways = [
            given.next_selector.is_some(),
            given.url_template.is_some(),
            given.load_more.is_some(),
            given.scroll,
        ];
        match ways.iter().filter(|given| **given).count() {
            0 => self.refuse(
                "pagination",
                "",
                "says no way to the next page; give nextSelector, urlTemplate, loadMore or scroll: true",
            ),
            1 => {}
            _ => {
                let cure =
                    "gives two ways to the next page; keep one of nextSelector, urlTemplate, loadMore and scroll";
                self.refuse("pagination", "two of them", cure);
            }
        }
        for (field, number, least, most) in [
            ("pagination.start", given.start, 0, MAX_NUMBER),
            ("pagination.step", given.step, 1, 1_000_000),
        ] {
            let Some(number) = number else { continue };
            self.range(field, number.into(), least, most);
            if given.url_template.is_none() {
                self.refuse(field, number, "is read only with urlTemplate; remove it");
            }
        }
    }

    fn template(&mut self, given: &Pagination, home: &Url) -> Option<PageTemplate> {
        const FIELD: &str = "pagination.urlTemplate";
        let text = given.url_template.as_deref()?;
        if text.len() > 2048 {
            self.refuse(FIELD, text, "has more than 2048 characters");
            return None;
        }
        PageTemplate::parse(text, home, given.start, given.step)
            .map_err(|message| self.refuse(FIELD, text, message))
            .ok()
    }

    fn stop(&mut self, given: Option<&StopCondition>, counts: bool, reads: Reads) -> Stop {
        let condition = given.cloned().unwrap_or_default();
        if given == Some(&StopCondition::default()) {
            let cure = "names no condition; give noRecords, repeatedRecords, selector or missingSelector, or remove it";
            self.refuse("pagination.stopCondition", "{}", cure);
        }
        let mut locator = |field: &str, text: Option<&str>| {
            text.and_then(|text| self.locator_in(reads, format!("pagination.stopCondition.{field}"), text))
        };
        Stop {
            no_records: condition.no_records.unwrap_or(counts),
            repeated_records: condition.repeated_records.unwrap_or(counts),
            found: locator("selector", condition.selector.as_deref()),
            missing: locator("missingSelector", condition.missing_selector.as_deref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{Plan, TaskSpec};

    fn compile(pagination: &Value) -> Result<Plan, Vec<String>> {
        let spec = json!({ "url": "https://e.com/list", "fields": [{ "name": "t" }], "pagination": pagination });
        let spec: TaskSpec = serde_json::from_value(spec).unwrap();
        spec.compile()
            .map_err(|violations| violations.iter().map(|v| v.field.clone()).collect())
    }

    #[test]
    fn a_stored_next_link_is_read_as_before() {
        let plan = compile(&json!({ "nextSelector": "a", "maxPages": 7 })).unwrap();
        assert!(plan.next.is_some() && plan.template.is_none() && plan.max_pages == 7);
        assert!(!plan.stop.no_records && !plan.stop.repeated_records);
        let spec: TaskSpec = serde_json::from_value(
            json!({ "url": "https://e.com/list", "fields": [{ "name": "t" }], "pagination": { "nextSelector": "a" } }),
        )
        .unwrap();
        let written = serde_json::to_value(&spec.pagination).unwrap();
        assert_eq!(
            written,
            json!({ "nextSelector": "a", "maxPages": 100 }),
            "its hash must not change"
        );
    }

    #[test]
    fn a_template_ends_by_itself_where_pages_are_empty_or_repeat() {
        let plan = compile(&json!({ "urlTemplate": "https://e.com/list?p={page}" })).unwrap();
        assert!(plan.template.is_some() && plan.stop.no_records && plan.stop.repeated_records);
        let stop = json!({ "noRecords": false, "selector": ".end" });
        let plan = compile(&json!({ "urlTemplate": "https://e.com/{page}", "stopCondition": stop })).unwrap();
        assert!(!plan.stop.no_records && plan.stop.repeated_records && plan.stop.found.is_some());
    }

    #[test]
    fn there_is_one_way_to_the_next_page() {
        assert_eq!(compile(&json!({})).unwrap_err(), ["pagination"]);
        let both = json!({ "nextSelector": "a", "urlTemplate": "https://e.com/{page}" });
        assert_eq!(compile(&both).unwrap_err(), ["pagination"]);
        let counting = json!({ "nextSelector": "a", "start": 3, "step": 0 });
        assert_eq!(
            compile(&counting).unwrap_err(),
            ["pagination.start", "pagination.step", "pagination.step"]
        );
    }

    #[test]
    fn what_is_wrong_with_a_stop_condition_is_named() {
        let with = |stop: Value| compile(&json!({ "nextSelector": "a", "stopCondition": stop })).unwrap_err();
        assert_eq!(with(json!({})), ["pagination.stopCondition"]);
        assert_eq!(
            with(json!({ "selector": "a[", "missingSelector": "$.next" })),
            [
                "pagination.stopCondition.selector",
                "pagination.stopCondition.missingSelector"
            ]
        );
        assert_eq!(
            compile(&json!({ "urlTemplate": "https://other.com/{page}" })).unwrap_err(),
            ["pagination.urlTemplate"]
        );
    }
}
