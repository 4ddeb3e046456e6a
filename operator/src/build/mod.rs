//! What a cluster should consist of: pure builders, one file for each component or kind of object. No I/O, no clock, no randomness.
//!
//! The runtime reads first and passes what it read as [`Facts`]. What comes out is complete but for the namespace, the owner and
//! `spec.replicas`: a builder never sets replicas, [`Child::replicas`] says how many the scaler is to set.

mod api;
mod artifacts;
mod egress;
#[cfg(test)]
pub(crate) mod fixture;
mod identity;
mod keeper;
mod labels;
mod migrate;
mod monitoring;
mod names;
mod pgbouncer;
mod pod;
mod policies;
mod postgres;
mod postgres_config;
mod postgres_replica;
mod program;
mod prometheus;
mod prometheus_config;
mod redis;
pub mod secrets;
mod upstreams;
mod worker;

#[cfg(test)]
mod monitoring_tests;
#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use api::audience;
pub use artifacts::{ACCESS_KEY_ID, AUTHORITY, SECRET_ACCESS_KEY};
pub use monitoring::API_VERSION as PROMETHEUS_OPERATOR;
pub use names::{Component, Names, Server};
pub use postgres::{FOREIGN_DATA_EXIT_CODE, SLOT_PREFIX, slot_name};
pub use prometheus::PORT as PROMETHEUS_PORT;
use serde_json::Value;
pub use upstreams::{KEYS as UPSTREAM_KEYS, secrets as upstream_secrets};
pub use worker::sandboxed;

use crate::validated::ValidatedCluster;

/// What the builders read.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// What is wanted.
    pub cluster: &'a ValidatedCluster,
    /// What was found.
    pub facts: &'a Facts,
}

/// What the runtime found before it builds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// A hash of the data of each Secret, by the Secret's name. It goes into the annotations of the pods that use the Secret, so that
    /// they roll when it changes. Every `ConfigMap` is hashed by its builder.
    pub secrets: BTreeMap<String, String>,
    /// Whether there are nodes with the seccomp profile for Chromium (label [`crate::build::SANDBOX_LABEL`]).
    pub sandbox_nodes: bool,
    /// The external database, read from its Secret; `None` where the operator runs one.
    pub external: Option<External>,
    /// The API server's JWKS, as JSON.
    pub jwks: String,
    /// The API server's issuer of service-account tokens.
    pub issuer: String,
    /// The replicas that stream within `maxLag`, by number.
    pub streaming_replicas: Vec<u32>,
    /// Which kinds of the Prometheus operator are served.
    pub served: Served,
    /// Whether the managed Prometheus may read the kubelets' metrics; `None` where that cannot be found out.
    pub kubelet_right: Option<bool>,
}

/// Which kinds of the Prometheus operator the API server serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// `PodMonitor`.
    pub pod_monitors: bool,
    /// `PrometheusRule`.
    pub rules: bool,
}

/// An external database, as its Secret says it.
#[derive(Clone, PartialEq, Eq)]
pub struct External {
    /// Where it is written.
    pub primary: Endpoint,
    /// Where it is read; the primary when there is no other.
    pub read: Endpoint,
}

/// One server of an external database. Its `Debug` form holds no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database there.
    pub database: String,
    /// The role.
    pub role: String,
    /// The role's password.
    pub password: String,
}

impl std::fmt::Debug for External {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("External")
            .field("primary", &self.primary)
            .field("read", &self.read)
            .finish()
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// The label of nodes that have the seccomp profile for Chromium.
pub const SANDBOX_LABEL: (&str, &str) = ("selextract.io/seccomp-chromium", "v1");

/// The steps in which children are applied: a later one is applied first when the earlier one is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Configuration, identities, Services, policies, volumes.
    Foundation,
    /// PostgreSQL, Redis, egress.
    Data,
    /// Read replicas and `PgBouncer`.
    Pooling,
    /// The migration Job.
    Migration,
    /// API, keeper, workers.
    Programs,
}

/// One object that should exist.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// The object, with `apiVersion` and `kind`, without owner and `spec.replicas`.
    pub object: Value,
    /// Whether it outlives the cluster (volumes, and the Secrets that open them, under `deletionPolicy: Retain`).
    pub retained: bool,
    /// How many replicas the scaler is to set, for Deployments and `StatefulSet`s.
    pub replicas: Option<i32>,
}

impl Child {
    fn plain(object: Value) -> Self {
        Self {
            object,
            retained: false,
            replicas: None,
        }
    }

    fn workload(object: Value, replicas: i32) -> Self {
        Self {
            object,
            retained: false,
            replicas: Some(replicas),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }
}

/// Everything that should exist but Secrets (see [`secrets`]), in the order in which it is applied.
pub fn desired(inputs: Inputs<'_>) -> Vec<(Stage, Child)> {
    let mut children: Vec<(Stage, Child)> = Vec::new();
    let mut add = |stage: Stage, more: Vec<Child>| children.extend(more.into_iter().map(|child| (stage, child)));
    add(Stage::Foundation, identity::build(inputs));
    add(Stage::Foundation, policies::build(inputs));
    add(Stage::Foundation, postgres::foundation(inputs));
    add(Stage::Foundation, postgres_replica::foundation(inputs));
    add(Stage::Foundation, redis::foundation(inputs));
    add(Stage::Foundation, egress::foundation(inputs));
    add(Stage::Foundation, pgbouncer::foundation(inputs));
    add(Stage::Foundation, api::foundation(inputs));
    add(Stage::Foundation, prometheus::foundation(inputs));
    add(Stage::Foundation, monitoring::build(inputs));
    add(Stage::Data, postgres::build(inputs));
    add(Stage::Data, redis::build(inputs));
    add(Stage::Data, egress::build(inputs));
    add(Stage::Pooling, postgres_replica::build(inputs));
    add(Stage::Pooling, pgbouncer::build(inputs));
    add(Stage::Migration, migrate::build(inputs));
    add(Stage::Programs, keeper::build(inputs));
    add(Stage::Programs, api::build(inputs));
    add(Stage::Programs, worker::build(inputs));
    add(Stage::Programs, prometheus::build(inputs));
    children
}
