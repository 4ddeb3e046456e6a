//! The Open Graph protocol and what is written like it: `<meta property="og:title" content="…">`.

use selextract_task::absolute;
use serde_json::{Map, Value};

use super::{Head, Page, add_value};
use crate::extract::ExtractError;

const PREFIXES: [&str; 8] = [
    "og:", "article:", "book:", "music:", "product:", "profile:", "twitter:", "video:",
];
/// Properties that are addresses.
const ADDRESSES: [&str; 9] = [
    "og:url",
    "og:image",
    "og:image:url",
    "og:image:secure_url",
    "og:video",
    "og:video:url",
    "og:audio",
    "twitter:image",
    "twitter:url",
];

pub(super) fn find(page: &mut Page<'_>) -> Result<(), ExtractError> {
    let mut data = Map::new();
    for element in page.elements() {
        let element = element?;
        if element.value().name() != "meta" {
            continue;
        }
        let property = element.attr("property").or_else(|| element.attr("name"));
        let property = property.filter(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
        if let (Some(name), Some(content)) = (property, element.attr("content")) {
            let content = content.trim();
            let address = ADDRESSES
                .contains(&name)
                .then(|| absolute(&page.reading.base, content).map(String::from))
                .flatten();
            add_value(
                &mut data,
                name,
                Value::String(address.unwrap_or_else(|| content.to_owned())),
            );
        }
    }
    if data.is_empty() {
        return Ok(());
    }
    let head = Head {
        kind: "OpenGraph",
        type_name: data.get("og:type").and_then(Value::as_str).map(str::to_owned),
        group: 1,
        row: None,
    };
    page.add(head, data)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::found;

    #[test]
    fn a_pages_properties_are_one_record_and_repeated_ones_a_list() {
        let html = r#"<meta property="og:type" content="article"><meta property="og:image" content="/i.png">
            <meta property="og:image" content="http://cdn.test/j.png"><meta name="twitter:card" content=" summary ">
            <meta name="description" content="no"><meta property="og:title">"#;
        assert_eq!(
            found("OpenGraph", html),
            [json!({
                "kind": "OpenGraph", "type": "article", "group": 1, "row": null,
                "data": {
                    "og:type": "article", "og:image": ["http://site.test/i.png", "http://cdn.test/j.png"], "twitter:card": "summary",
                },
            })]
        );
    }
}
