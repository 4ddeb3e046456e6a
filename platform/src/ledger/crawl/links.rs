//! The links of a page as they are kept with it, and read by the run that is told that the page is as it was. Pure.

use super::FoundPage;
use crate::{
    ledger::{LedgerError, error::StoredSnafu},
    packing,
};

/// The most bytes that a page's links may unpack to: 10,000 of 2,048.
const MAX_BYTES: u64 = 32 << 20;

fn unreadable(message: String) -> LedgerError {
    let what = "a page's links";
    StoredSnafu { what, message }.build()
}

/// URLs have no line breaks.
pub(super) fn pack(found: &[FoundPage]) -> Result<Vec<u8>, LedgerError> {
    let urls: Vec<&str> = found.iter().map(|page| page.url.as_str()).collect();
    packing::pack(urls.join("\n").as_bytes(), packing::STORED).map_err(|error| unreadable(error.to_string()))
}

/// The URLs that a page led to.
pub(in crate::ledger) fn unpack(bytes: &[u8]) -> Result<Vec<String>, LedgerError> {
    let text = packing::unpack(bytes, MAX_BYTES).map_err(|error| unreadable(error.to_string()))?;
    let text = String::from_utf8(text).map_err(|error| unreadable(error.to_string()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::crawl::CrawlKind;

    #[test]
    fn the_links_of_a_page_read_back_as_they_were() {
        for count in [0, 1, 10_000] {
            let found: Vec<FoundPage> = (0..count)
                .map(|n| FoundPage {
                    kind: CrawlKind::Page,
                    url: format!("http://site.test/{n}"),
                    host: "site.test".to_owned(),
                    depth: 1,
                })
                .collect();
            let urls: Vec<String> = found.iter().map(|page| page.url.clone()).collect();
            assert_eq!(unpack(&pack(&found).unwrap()).unwrap(), urls);
        }
        assert!(unpack(b"no pack").is_err());
    }
}
