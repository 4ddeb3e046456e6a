//! The API server's rooms. HTTP lives here; SQL and Redis live in `selextract_platform`.

pub mod auth;
pub mod export;
pub mod metrics;
pub mod problem;
pub mod server;
pub mod strict;
