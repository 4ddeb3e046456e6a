//! The handlers, one file for each group of routes. A handler takes a request apart, asks the ledger or the cache, and builds the answer.

pub mod api_keys;
pub mod auth;
pub mod health;
pub mod insight;
pub mod results;
pub mod tasks;
pub mod users;
