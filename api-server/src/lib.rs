//! The API server's rooms. HTTP lives here; SQL and Redis live in `selextract_platform`.

pub mod admission;
pub mod auth;
pub mod export;
pub mod internal;
pub mod keeper;
pub mod layered;
pub mod metrics;
pub mod offers;
pub mod openapi;
pub mod params;
pub mod pools;
pub mod presence;
pub mod problem;
pub mod program;
pub mod quotas;
pub mod router;
pub mod routes;
pub mod server;
pub mod settings;
pub mod state;
pub mod strict;
pub mod telemetry;

pub use selextract_platform::sealed;
