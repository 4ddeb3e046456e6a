//! What is asked of Prometheus, and what is made from it: alerts, dashboards, routes. Pure, but for `client`, which asks.

pub mod alerts;
pub mod client;
pub mod dashboards;
pub mod live;
pub mod queries;
pub mod routing;
