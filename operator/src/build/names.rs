//! The names of everything that belongs to a cluster, as in the table of docs/ARCHITECTURE.md.

use crate::validated::ValidatedCluster;

/// A component, as in the label `app.kubernetes.io/component`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// The API.
    Api,
    /// The keeper.
    Keeper,
    /// The workers.
    Worker,
    /// The egress proxy.
    Egress,
    /// The pooler in front of the primary.
    PgBouncerRw,
    /// The pooler in front of the replicas.
    PgBouncerRo,
    /// The primary.
    Postgres,
    /// The read replicas.
    PostgresReplica,
    /// The queue.
    RedisQueue,
    /// The cache.
    RedisCache,
    /// The migration Job.
    Migrate,
    /// Prometheus.
    Prometheus,
}

impl Component {
    /// Every component.
    pub const ALL: [Self; 12] = [
        Self::Api,
        Self::Keeper,
        Self::Worker,
        Self::Egress,
        Self::PgBouncerRw,
        Self::PgBouncerRo,
        Self::Postgres,
        Self::PostgresReplica,
        Self::RedisQueue,
        Self::RedisCache,
        Self::Migrate,
        Self::Prometheus,
    ];

    /// As in the label and, after the cluster's name, in names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Keeper => "keeper",
            Self::Worker => "worker",
            Self::Egress => "egress",
            Self::PgBouncerRw => "pgbouncer-rw",
            Self::PgBouncerRo => "pgbouncer-ro",
            Self::Postgres => "postgres",
            Self::PostgresReplica => "postgres-replica",
            Self::RedisQueue => "redis-queue",
            Self::RedisCache => "redis-cache",
            Self::Migrate => "migrate",
            Self::Prometheus => "prometheus",
        }
    }
}

/// A server with a certificate of the cluster's authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Primary and replicas.
    Postgres,
    /// Both poolers.
    PgBouncer,
    /// The internal listener of the API.
    Api,
}

impl Server {
    /// Every server.
    pub const ALL: [Self; 3] = [Self::Postgres, Self::PgBouncer, Self::Api];
}

/// Names within one cluster.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    cluster: &'a str,
    namespace: &'a str,
}

impl<'a> Names<'a> {
    /// The names of this cluster.
    pub fn new(cluster: &'a ValidatedCluster) -> Self {
        Self {
            cluster: &cluster.name,
            namespace: &cluster.namespace,
        }
    }

    /// The names of a cluster that could not be validated, such as one that is going.
    pub fn of(cluster: &'a str, namespace: &'a str) -> Self {
        Self { cluster, namespace }
    }

    /// `N-<component>`.
    pub fn component(&self, component: Component) -> String {
        self.with(component.as_str())
    }

    /// `N-<suffix>`.
    pub fn with(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.cluster)
    }

    /// `N-postgres-replica-K`.
    pub fn replica(&self, number: u32) -> String {
        format!("{}-postgres-replica-{number}", self.cluster)
    }

    /// The volume of a workload.
    pub fn volume(&self, workload: &str) -> String {
        format!("{workload}-data")
    }

    /// Every Secret of a cluster that the operator makes.
    pub fn secrets(&self) -> Vec<String> {
        let parts = [
            "ca",
            "postgres",
            "database",
            "redis",
            "api",
            "postgres-tls",
            "pgbouncer-tls",
            "api-tls",
            "pgbouncer",
        ];
        parts.iter().map(|part| self.with(part)).collect()
    }

    /// The Secret with a server's certificate.
    pub fn tls_secret(&self, server: Server) -> String {
        self.with(match server {
            Server::Postgres => "postgres-tls",
            Server::PgBouncer => "pgbouncer-tls",
            Server::Api => "api-tls",
        })
    }

    /// The DNS names of a server's certificate: each Service's, short and in full.
    pub fn certificate(&self, server: Server) -> Vec<String> {
        let services: &[&str] = match server {
            Server::Postgres => &["postgres-rw", "postgres-ro"],
            Server::PgBouncer => &["pgbouncer-rw", "pgbouncer-ro"],
            Server::Api => &["api-internal"],
        };
        services
            .iter()
            .flat_map(|service| self.forms(&self.with(service)))
            .collect()
    }

    fn forms(&self, service: &str) -> [String; 4] {
        let namespace = self.namespace;
        [
            service.to_owned(),
            format!("{service}.{namespace}"),
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
        ]
    }

    /// A Service as the operator dials it, which runs in another namespace.
    pub fn host(&self, service: &str) -> String {
        format!("{}.{}.svc", self.with(service), self.namespace)
    }
}
