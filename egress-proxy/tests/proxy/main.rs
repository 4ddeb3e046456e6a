//! The proxy over real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails where an assumption does")]

mod audit;
mod forwarding;
mod refusals;
mod selftest;
mod support;
mod upstreams;
