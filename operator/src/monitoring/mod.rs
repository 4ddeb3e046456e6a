//! What is asked of Prometheus, and what is made from it: alerts, dashboards, routes. Pure: whoever sends a query does so elsewhere.

pub mod alerts;
pub mod dashboards;
pub mod queries;
pub mod routing;
