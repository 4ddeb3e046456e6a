//! The handlers, one file for each group of routes. A handler takes a request apart, asks the ledger or the cache, and builds the answer.

pub mod api_keys;
pub mod artifacts;
pub mod auth;
pub mod batch;
pub mod changes;
pub mod crawl;
pub mod credentials;
pub mod dead_letters;
pub mod events;
pub mod health;
pub mod insight;
mod new_schedule;
pub mod new_task;
pub mod preview;
pub mod quotas;
pub mod results;
pub mod run_control;
pub mod schedules;
pub mod tasks;
pub mod users;
mod waiting;
pub mod webhooks;
