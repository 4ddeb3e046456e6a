//! Render Auto: whether the server's HTML is enough, or the page goes to the browser. Pure.

use selextract_task::{Items, Plan};

use crate::extract::{ExtractError, Extracted};

/// What fetches a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The server's HTML as it came.
    Http,
    /// Chromium.
    Browser,
}

/// What the server's HTML lacks; also the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Nothing that is one record each.
    Items,
    /// A required field, in every item.
    Required,
    /// More than half of the fields, in every item.
    MostFields,
}

impl Lack {
    pub(crate) const ALL: [Self; 3] = [Self::Items, Self::Required, Self::MostFields];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Items => "items",
            Self::Required => "required",
            Self::MostFields => "most_fields",
        }
    }
}

/// What a page lacks, so that it looks as if a script had still to bring it. `None` where it is whole, and where it failed in a way that
/// a browser does not mend, such as a page that is too large.
///
/// A field counts as missing when no item of the page has it. Half of the fields may be missing: they are often optional.
pub fn lack(plan: &Plan, read: &Result<Extracted, ExtractError>) -> Option<Lack> {
    let page = match read {
        Ok(page) => page,
        Err(ExtractError::NoRecords { .. }) => return Some(Lack::Required),
        Err(_) => return None,
    };
    if !plan.automatic.is_empty() {
        return page.records.is_empty().then_some(Lack::Items);
    }
    if !matches!(plan.items, Items::Page) && page.fill.items == 0 {
        return Some(Lack::Items);
    }
    let missing = page.fill.found.iter().filter(|found| **found == 0).count();
    (missing * 2 > plan.fields.len()).then_some(Lack::MostFields)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        content::Content,
        extract::{Document, extract},
    };

    fn lacks(spec: &Value, html: &str) -> Option<Lack> {
        let mut whole = json!({ "url": "http://site.test/", "render": "Auto" });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let spec: selextract_task::TaskSpec = serde_json::from_value(whole).unwrap();
        let plan = spec.compile().unwrap();
        let document = Document {
            url: &plan.url,
            content: Content::Html,
            text: html,
        };
        let read = extract(&plan, document, Instant::now() + Duration::from_secs(5));
        lack(&plan, &read)
    }

    #[test]
    fn a_shell_without_items_goes_to_the_browser_and_a_list_does_not() {
        let spec =
            json!({ "items": "li", "fields": [{ "name": "a", "selector": "b" }, { "name": "c", "selector": "i" }] });
        assert_eq!(
            lacks(&spec, "<div id=root></div><script src=app.js></script>"),
            Some(Lack::Items)
        );
        assert_eq!(lacks(&spec, "<li><b>x</b><i>y</i>"), None);
    }

    #[test]
    fn a_field_that_some_item_has_is_not_missing_and_half_of_the_fields_may_be() {
        let spec = json!({ "items": "li", "fields": [
            { "name": "a", "selector": "b" }, { "name": "c", "selector": "i" }, { "name": "d", "selector": "u" }, { "name": "e", "selector": "s" },
        ]});
        assert_eq!(lacks(&spec, "<li><b>x</b><li><i>y</i>"), None);
        assert_eq!(lacks(&spec, "<li><b>x</b><li>"), Some(Lack::MostFields));
    }

    #[test]
    fn a_required_field_that_every_item_lacks_is_missing() {
        let spec =
            json!({ "items": "li", "fields": [{ "name": "a", "selector": "b", "required": true }, { "name": "c" }] });
        assert_eq!(lacks(&spec, "<li>x<li>y"), Some(Lack::Required));
        assert_eq!(lacks(&spec, "<li>x<li><b>y</b>"), None);
    }

    #[test]
    fn a_page_that_is_one_record_is_judged_by_its_fields() {
        let spec = json!({ "fields": [{ "name": "a", "selector": "h1" }, { "name": "b", "selector": ".price" }] });
        assert_eq!(lacks(&spec, "<p>loading"), Some(Lack::MostFields));
        assert_eq!(lacks(&spec, "<h1>x</h1>"), None);
    }

    #[test]
    fn automatic_records_are_missing_when_there_are_none() {
        let spec = json!({ "automatic": ["Tables"] });
        assert_eq!(lacks(&spec, "<p>x"), Some(Lack::Items));
        assert_eq!(
            lacks(&spec, "<table><tr><th>a<th>b<tr><td>1<td>2<tr><td>3<td>4</table>"),
            None
        );
    }

    #[test]
    fn a_page_that_a_browser_does_not_mend_stays_with_http() {
        let spec = json!({ "items": "li", "fields": [{ "name": "a" }] });
        assert_eq!(lacks(&spec, &"<div>".repeat(2000)), None);
    }
}
