//! What is asked of Prometheus, and what is made from it: rules, alerts, dashboards. Pure: whoever sends a query does so elsewhere.

pub mod queries;
