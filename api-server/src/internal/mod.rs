//! The internal listener: what the operator says to the API of a cluster, over TLS, with a service-account token.

pub mod tls;
pub mod tokens;
