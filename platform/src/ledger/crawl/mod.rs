//! Crawls: runs whose pages are claimed, leased and tried again each by itself, by all workers.
//!
//! A crawl's task is claimed once, to write down where it begins; from then on it is `running` without a lease, and its rows of
//! `crawl_pages` are what waits and runs. The transaction that ends the last of them ends the run. Whoever changes both locks the task
//! first, then pages in the order of their ids.

mod begin;
mod claims;
mod control;
mod ends;
pub(in crate::ledger) mod links;
mod report;
mod rows;
mod settle;
mod upkeep;
pub(in crate::ledger) mod waiting;

pub use begin::{Begun, CrawlStart};
pub use control::{CrawlPageRow, CrawlProgress, PAGE_LIMIT, PageStatus};
pub(super) use ends::CrawlEnds;
pub(super) use ends::gather;
pub use ends::{CrawlEnd, CrawlEnded, ReadPage};
pub use report::CrawlReport;
pub use upkeep::{CrawlCursor, CrawlPlace};
pub use waiting::WaitingPage;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::TaskId;

/// The most sitemaps that a run reads.
pub const MAX_SITEMAPS: i64 = 50;
/// The most of what was found that one transaction writes down.
const FOUND: usize = 5_000;

/// What kind of page a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CrawlKind {
    /// A page, which gives records and links.
    Page,
    /// A sitemap, which gives pages and further sitemaps.
    Sitemap,
    /// A site's robots.txt, which gives sitemaps; its row has the site's URL.
    Robots,
    /// The end of a crawl that is compared with the one before: nothing is fetched, and nobody sees the row.
    Report,
}

impl CrawlKind {
    /// As the ledger writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Sitemap => "sitemap",
            Self::Robots => "robots",
            Self::Report => "report",
        }
    }

    /// Reads what the ledger wrote.
    pub fn from_ledger(text: &str) -> Option<Self> {
        [Self::Page, Self::Sitemap, Self::Robots, Self::Report]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// A page that a crawl has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPage {
    /// What it is.
    pub kind: CrawlKind,
    /// Its URL in the one spelling that it is known by.
    pub url: String,
    /// The URL's host.
    pub host: String,
    /// How many links away from the crawl's beginning it is.
    pub depth: i16,
}

/// The page of a crawl that a worker holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPage {
    /// The run.
    pub task: TaskId,
    /// What it is.
    pub kind: CrawlKind,
    /// Its URL.
    pub url: String,
    /// How many links away from the crawl's beginning it is.
    pub depth: i16,
}

impl TaskId {
    /// The id of a crawl's page: the same for whoever finds it.
    ///
    /// The first 48 bits are the run's, so that the row lies in the run's month and between the run's others; the rest is a hash of run,
    /// kind and URL. Its version is 8, which no task's is.
    pub fn of_crawl_page(task: Self, kind: CrawlKind, url: &str) -> Self {
        let hash = Sha256::new()
            .chain_update(task.0.as_bytes())
            .chain_update(kind.as_str())
            .chain_update([0])
            .chain_update(url)
            .finalize();
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&task.0.as_bytes()[..6]);
        bytes[6..].copy_from_slice(&hash[..10]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// Whether it is the id of a crawl's page, and not of a run.
    pub fn is_crawl_page(self) -> bool {
        self.0.get_version_num() == 8
    }
}

/// A list as a column.
fn column<'r, R, T: 'r>(rows: &'r [R], read: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(read).collect()
}

fn uuids(ids: &[TaskId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pages_id_is_the_same_for_everybody_lies_in_its_runs_month_and_is_no_tasks() {
        let (task, other) = (TaskId::new(), TaskId::of_tick("uid", 1_764_547_200_000));
        let page = |task, kind, url| TaskId::of_crawl_page(task, kind, url);
        let id = page(task, CrawlKind::Page, "http://site.test/");
        assert_eq!(id, page(task, CrawlKind::Page, "http://site.test/"));
        for different in [
            page(task, CrawlKind::Page, "http://site.test/a"),
            page(task, CrawlKind::Sitemap, "http://site.test/"),
            page(other, CrawlKind::Page, "http://site.test/"),
        ] {
            assert_ne!(id, different);
        }
        assert_eq!(id.unix_milliseconds(), task.unix_milliseconds());
        assert!(id.is_crawl_page() && !task.is_crawl_page() && !other.is_crawl_page());
    }
}
