//! The worker: claims runs, fetches their pages, extracts records, and commits them page by page.
//!
//! One direction: claim → fetch → extract (pure) → record → let go. It decides no scheduling and knows no Kubernetes; SQL and Redis
//! are behind `selextract-platform`.

pub mod access;
pub mod browser;
pub mod claims;
mod conclusion;
mod conditional;
pub mod contact;
pub mod content;
pub mod cpu;
mod crawl;
pub mod extract;
pub mod failure;
pub mod fetch;
pub mod gate;
mod paging;
pub mod preview;
pub mod probes;
pub mod rendering;
pub mod robots;
pub mod run;
pub mod settings;
pub mod sitemap;
pub mod task_run;
pub mod telemetry;
