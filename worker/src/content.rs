//! What a page is, told by its media type.

use std::fmt;

use url::Url;

/// A kind of page that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// HTML, also as XHTML.
    Html,
    /// XML, also RSS, Atom and SVG.
    Xml,
    /// One JSON value.
    Json,
    /// One JSON value on each line.
    JsonLines,
    /// Comma-separated values with a header; commas may be semicolons, tabs or bars.
    Csv,
}

impl Content {
    /// What the server's `Content-Type` says; where it says nothing of use, what the address ends with. `None` is read by nobody.
    pub fn of(content_type: Option<&str>, url: &Url) -> Option<Self> {
        let Some(content_type) = content_type else {
            return Some(Self::of_name(url).unwrap_or(Self::Html));
        };
        let essence = content_type.split(';').next().unwrap_or_default();
        match essence.trim().to_ascii_lowercase().as_str() {
            "text/html" | "application/xhtml+xml" => Some(Self::Html),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => {
                Some(Self::JsonLines)
            }
            "application/json" | "text/json" => Some(Self::Json),
            "application/xml" | "text/xml" => Some(Self::Xml),
            "text/csv" | "application/csv" | "text/tab-separated-values" => Some(Self::Csv),
            essence if essence.ends_with("+json") => Some(Self::Json),
            essence if essence.ends_with("+xml") => Some(Self::Xml),
            "text/plain" | "application/octet-stream" | "binary/octet-stream" | "" => Self::of_name(url),
            _ => None,
        }
    }

    fn of_name(url: &Url) -> Option<Self> {
        let (_, extension) = url.path().rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "html" | "htm" => Some(Self::Html),
            "json" | "geojson" => Some(Self::Json),
            "ndjson" | "jsonl" => Some(Self::JsonLines),
            "xml" | "rss" | "atom" => Some(Self::Xml),
            "csv" | "tsv" => Some(Self::Csv),
            _ => None,
        }
    }

    /// Whether it is a tree of elements, which CSS and XPath read.
    pub const fn is_tree(self) -> bool {
        matches!(self, Self::Html | Self::Xml)
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Html => "HTML",
            Self::Xml => "XML",
            Self::Json => "JSON",
            Self::JsonLines => "JSON lines",
            Self::Csv => "CSV",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_media_type_says_what_a_page_is_and_its_address_where_it_does_not() {
        let of =
            |content_type, path: &str| Content::of(content_type, &format!("http://site.test/{path}").parse().unwrap());
        for (content_type, path, expected) in [
            (Some("Text/HTML; charset=utf-8"), "a.json", Some(Content::Html)),
            (Some("application/json"), "", Some(Content::Json)),
            (Some("application/ld+json"), "", Some(Content::Json)),
            (Some("application/rss+xml"), "", Some(Content::Xml)),
            (Some("text/csv"), "", Some(Content::Csv)),
            (Some("text/plain"), "a.csv", Some(Content::Csv)),
            (Some("text/plain"), "a.txt", None),
            (Some("application/pdf"), "a.html", None),
            (None, "", Some(Content::Html)),
            (None, "feed.xml", Some(Content::Xml)),
        ] {
            assert_eq!(of(content_type, path), expected, "{content_type:?} {path}");
        }
    }
}
