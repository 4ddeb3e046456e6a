//! The page's article: the part with the most running text and the fewest links, and what the page says about it.
//!
//! Paragraphs give points to the element that they are in and to the one around it; names of classes that speak of content or of
//! furniture weigh in, links weigh against. A page without enough running text has no article.

use std::collections::HashMap;

use ego_tree::NodeId;
use scraper::ElementRef;
use serde_json::{Map, Value, json};

use super::{Head, Page};
use crate::extract::{ExtractError, Reading, text};

/// The least characters of an article.
const MIN_ARTICLE: usize = 250;
/// The least characters of a paragraph that counts.
const MIN_PARAGRAPH: usize = 25;
/// How many of the best are looked at closely.
const FINALISTS: usize = 5;

const CONTENT: [&str; 9] = [
    "article", "body", "content", "entry", "main", "post", "story", "text", "blog",
];
const FURNITURE: [&str; 14] = [
    "comment",
    "footer",
    "header",
    "menu",
    "nav",
    "promo",
    "related",
    "share",
    "sidebar",
    "sponsor",
    "widget",
    "cookie",
    "banner",
    "breadcrumb",
];

pub(super) fn find(page: &mut Page<'_>) -> Result<(), ExtractError> {
    let Some(article) = best(page)? else {
        return Ok(());
    };
    let mut blocks = Vec::new();
    paragraphs(article, page.reading, &mut blocks)?;
    let text = blocks.join("\n\n");
    if text.chars().count() < MIN_ARTICLE {
        return Ok(());
    }
    let about = About::read(page)?;
    let mut data = Map::new();
    data.insert("title".to_owned(), about.title(article).into());
    data.insert("byline".to_owned(), about.byline.into());
    data.insert("published".to_owned(), about.published.into());
    data.insert("language".to_owned(), page.root.attr("lang").into());
    data.insert("description".to_owned(), about.description.into());
    data.insert("words".to_owned(), json!(text.split_whitespace().count()));
    data.insert("text".to_owned(), Value::String(text));
    let head = Head {
        kind: "Article",
        group: 1,
        ..Head::default()
    };
    page.add(head, data)
}

/// The element that the article is in.
fn best<'p>(page: &Page<'p>) -> Result<Option<ElementRef<'p>>, ExtractError> {
    let mut points: HashMap<NodeId, (ElementRef<'p>, f64)> = HashMap::new();
    for element in page.elements() {
        let element = element?;
        if !matches!(element.value().name(), "p" | "pre" | "blockquote") || in_furniture(element) {
            continue;
        }
        let text = text::folded(element);
        page.reading.budget.read(text.len())?;
        if text.len() < MIN_PARAGRAPH {
            continue;
        }
        let worth = 1.0 + count(text.matches(',').count()) + count(text.len() / 100).min(3.0);
        let around = element.ancestors().filter_map(ElementRef::wrap);
        for (element, share) in around.zip([1.0, 0.5]) {
            points
                .entry(element.id())
                .or_insert_with(|| (element, weight(element)))
                .1 += worth * share;
        }
    }
    let mut candidates: Vec<_> = points.into_values().collect();
    candidates.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.id().cmp(&b.id())));
    candidates.truncate(FINALISTS);
    let scored = candidates
        .into_iter()
        .map(|(element, points)| (element, points * (1.0 - link_density(element))));
    let best = scored.max_by(|(_, x), (_, y)| x.total_cmp(y));
    Ok(best.filter(|(_, points)| *points > 0.0).map(|(element, _)| element))
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// What an element's name and class say before its text is looked at.
fn weight(element: ElementRef<'_>) -> f64 {
    let by_name = match element.value().name() {
        "article" | "main" => 25.0,
        "div" | "section" => 5.0,
        "form" | "ul" | "ol" | "address" | "aside" | "nav" | "footer" | "header" => -25.0,
        _ => 0.0,
    };
    let has = |words: &[&str]| labels(element).any(|label| words.iter().any(|word| label.contains(word)));
    by_name + f64::from(u8::from(has(&CONTENT))) * 25.0 - f64::from(u8::from(has(&FURNITURE))) * 25.0
}

fn labels(element: ElementRef<'_>) -> impl Iterator<Item = String> {
    [element.attr("class"), element.attr("id")]
        .into_iter()
        .flatten()
        .map(str::to_ascii_lowercase)
}

fn in_furniture(element: ElementRef<'_>) -> bool {
    let around = element.ancestors().filter_map(ElementRef::wrap);
    around.map(|element| element.value().name()).any(is_furniture)
}

fn is_furniture(name: &str) -> bool {
    matches!(
        name,
        "nav"
            | "aside"
            | "footer"
            | "form"
            | "button"
            | "script"
            | "style"
            | "template"
            | "noscript"
            | "svg"
            | "iframe"
    )
}

/// The share of the text that stands in links.
fn link_density(element: ElementRef<'_>) -> f64 {
    let (mut all, mut linked) = (0, 0);
    let mut inside = 0_usize;
    for edge in element.traverse() {
        let (node, opens) = match edge {
            ego_tree::iter::Edge::Open(node) => (node, true),
            ego_tree::iter::Edge::Close(node) => (node, false),
        };
        if node.value().as_element().is_some_and(|element| element.name() == "a") {
            inside = if opens { inside + 1 } else { inside - 1 };
        } else if let (Some(text), true) = (node.value().as_text(), opens) {
            all += text.len();
            linked += if inside > 0 { text.len() } else { 0 };
        }
    }
    if all == 0 { 1.0 } else { count(linked) / count(all) }
}

/// The blocks of text below an element, without furniture and lists of links. Elements are at most 512 deep.
fn paragraphs(within: ElementRef<'_>, reading: &Reading, blocks: &mut Vec<String>) -> Result<(), ExtractError> {
    for element in within.child_elements() {
        reading.budget.work(1)?;
        let name = element.value().name();
        if is_furniture(name) {
            continue;
        }
        let is_block = matches!(
            name,
            "p" | "pre"
                | "blockquote"
                | "h1"
                | "h2"
                | "h3"
                | "h4"
                | "h5"
                | "h6"
                | "li"
                | "dt"
                | "dd"
                | "figcaption"
                | "td"
                | "th"
        );
        if !is_block {
            paragraphs(element, reading, blocks)?;
            continue;
        }
        let text = text::folded(element);
        reading.budget.read(text.len())?;
        let is_link_list = name == "li" && link_density(element) > 0.5;
        if !text.is_empty() && !is_link_list {
            blocks.push(text);
        }
    }
    Ok(())
}

/// What the page says about its article.
#[derive(Default)]
struct About {
    title: Option<String>,
    document_title: Option<String>,
    byline: Option<String>,
    published: Option<String>,
    description: Option<String>,
}

impl About {
    fn read(page: &Page<'_>) -> Result<Self, ExtractError> {
        let mut about = Self::default();
        for element in page.elements() {
            let element = element?;
            match element.value().name() {
                "meta" => about.meta(element),
                "title" => set(&mut about.document_title, Some(&text::folded(element))),
                "time" => set(&mut about.published, element.attr("datetime")),
                "a" if element
                    .attr("rel")
                    .is_some_and(|rel| rel.split_ascii_whitespace().any(|word| word == "author")) =>
                {
                    set(&mut about.byline, Some(&text::folded(element)));
                }
                _ => {}
            }
        }
        Ok(about)
    }

    fn meta(&mut self, element: ElementRef<'_>) {
        let name = element
            .attr("property")
            .or_else(|| element.attr("name"))
            .unwrap_or_default();
        let slot = match name.to_ascii_lowercase().as_str() {
            "og:title" | "twitter:title" => &mut self.title,
            "author" | "article:author" => &mut self.byline,
            "article:published_time" | "date" => &mut self.published,
            "description" | "og:description" => &mut self.description,
            _ => return,
        };
        set(slot, element.attr("content"));
    }

    /// What the page says, else its one main heading, else the document's title.
    fn title(&self, article: ElementRef<'_>) -> Option<String> {
        let heading = || {
            let headings = article.descendants().filter_map(ElementRef::wrap);
            headings
                .filter(|element| element.value().name() == "h1")
                .map(text::folded)
                .next()
        };
        self.title
            .clone()
            .or_else(heading)
            .or_else(|| self.document_title.clone())
    }
}

/// The first word on a thing holds.
fn set(slot: &mut Option<String>, text: Option<&str>) {
    let text = text.map(str::trim).filter(|text| !text.is_empty());
    if slot.is_none() {
        *slot = text.map(str::to_owned);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;

    #[test]
    fn the_article_is_found_among_the_furniture_with_what_the_page_says_about_it() {
        let paragraph =
            "A sentence with a comma, and with some more words, so that it is long enough to count as text. ".repeat(3);
        let html = format!(
            "<html lang=en><head><title>Site - Shoes</title><meta name=author content='A. Author'><meta property=article:published_time
             content=2026-11-24></head><body><nav><p>{paragraph}</p><ul><li><a href=/>Home, sweet home</a></ul></nav>
             <div class=sidebar><p><a href=/x>{paragraph}</a></p></div>
             <article class=post><h1>On shoes</h1><p>{paragraph}</p><aside>Buy now</aside><h2>More</h2><p>{paragraph}</p>
             <ul><li><a href=/r>Related</a><li>A point</ul></article><footer><p>{paragraph}</p></footer></body></html>"
        );
        let records = found("Article", &html);
        let data = &records[0]["data"];
        assert_eq!(
            (&data["title"], &data["byline"]),
            (&"On shoes".into(), &"A. Author".into())
        );
        assert_eq!(
            (&data["published"], &data["language"]),
            (&"2026-11-24".into(), &"en".into())
        );
        let blocks: Vec<_> = data["text"].as_str().unwrap().split("\n\n").collect();
        assert_eq!(
            blocks,
            ["On shoes", paragraph.trim(), "More", paragraph.trim(), "A point"]
        );
    }
}
