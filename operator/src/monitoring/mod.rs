//! What is asked of Prometheus, and what is made from it: alerts, records, dashboards, routes. Pure, but for `client` and `history`, which ask.

pub mod alerts;
pub mod client;
pub mod dashboards;
pub mod history;
pub mod live;
pub mod queries;
pub mod records;
pub mod routing;
