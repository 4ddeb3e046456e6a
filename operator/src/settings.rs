//! What the operator is told at its start: flags, each with an environment variable. No I/O.

use std::{collections::BTreeSet, net::SocketAddr};

use clap::{ArgAction, Parser};
use kube::{
    Api, Client, Resource,
    core::{DynamicResourceScope, NamespaceResourceScope},
};

/// The operator of Selextract: keeps `SelextractCluster`s and `ScrapeTask`s true.
#[derive(Clone, Debug, Parser)]
#[command(name = "selextract-operator", version)]
pub struct Settings {
    /// The namespaces to watch, comma separated; without any, the operator's own.
    #[arg(long, env = "SELEXTRACT_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// Watch every namespace. Needs cluster-wide rights, among them to create and read Secrets everywhere.
    #[arg(long, env = "SELEXTRACT_ALL_NAMESPACES", action = ArgAction::Set, num_args = 0..=1, default_value_t = false,
          default_missing_value = "true", conflicts_with = "watch_namespaces")]
    pub all_namespaces: bool,

    /// The registry (and path) of the images `platform`, `browser` and `data`, where a cluster names none.
    #[arg(long, env = "SELEXTRACT_IMAGE_REGISTRY", default_value = "")]
    pub image_registry: String,

    /// The tag of those images, where a cluster names none.
    #[arg(long, env = "SELEXTRACT_IMAGE_TAG", default_value = env!("CARGO_PKG_VERSION"))]
    pub image_tag: String,

    /// The namespace that the operator runs in; its lease lies there.
    #[arg(long, env = "SELEXTRACT_NAMESPACE", default_value = "selextract-system")]
    pub namespace: String,

    /// The service account that the operator runs as; the internal listeners of the clusters let it in.
    #[arg(long, env = "SELEXTRACT_SERVICE_ACCOUNT", default_value = "selextract-operator")]
    pub service_account: String,

    /// The name of the lease that makes one replica the leader.
    #[arg(long, env = "SELEXTRACT_LEASE_NAME", default_value = "selextract-operator")]
    pub lease_name: String,

    /// Who this replica is in the lease: the pod's name.
    #[arg(long, env = "SELEXTRACT_POD_NAME")]
    pub identity: Option<String>,

    /// Where `/healthz`, `/readyz` and `/metrics` are served.
    #[arg(long, env = "SELEXTRACT_TELEMETRY_ADDR", default_value = "0.0.0.0:9090")]
    pub telemetry_addr: SocketAddr,

    /// What is logged, as a filter of tracing-subscriber.
    #[arg(long, env = "SELEXTRACT_LOG", default_value = "info,kube=warn")]
    pub log: String,
}

/// Where the operator looks: one namespace, or all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One namespace, with the rights of a Role there.
    Namespace(String),
    /// Every namespace, with the rights of a `ClusterRole`.
    All,
}

impl Settings {
    /// The scopes to watch, each once; blank names are ignored.
    pub fn scopes(&self) -> Vec<Scope> {
        if self.all_namespaces {
            return vec![Scope::All];
        }
        let named: BTreeSet<&str> = self
            .watch_namespaces
            .iter()
            .map(|n| n.trim())
            .filter(|n| !n.is_empty())
            .collect();
        if named.is_empty() {
            return vec![Scope::Namespace(self.namespace.clone())];
        }
        named.into_iter().map(|n| Scope::Namespace(n.to_owned())).collect()
    }

    /// The operator as the subject of a service-account token.
    pub fn subject(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.service_account)
    }
}

impl Scope {
    /// The API of a namespaced kind within this scope.
    pub fn api<K>(&self, client: Client) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match self {
            Self::Namespace(namespace) => Api::namespaced(client, namespace),
            Self::All => Api::all(client),
        }
    }

    /// The API of a kind that is known by its name only, within this scope.
    pub fn dynamic_api<K>(&self, client: Client, resource: &K::DynamicType) -> Api<K>
    where
        K: Resource<Scope = DynamicResourceScope>,
    {
        match self {
            Self::Namespace(namespace) => Api::namespaced_with(client, namespace, resource),
            Self::All => Api::all_with(client, resource),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Settings {
        Settings::try_parse_from([&["selextract-operator"], args].concat()).unwrap()
    }

    #[test]
    fn the_own_namespace_is_watched_when_none_is_named() {
        let settings = parse(&["--namespace", "ops"]);
        assert_eq!(settings.scopes(), [Scope::Namespace("ops".into())]);
    }

    #[test]
    fn named_namespaces_are_watched_once_each() {
        let settings = parse(&["--watch-namespaces", "b, a,,b"]);
        assert_eq!(
            settings.scopes(),
            [Scope::Namespace("a".into()), Scope::Namespace("b".into())]
        );
    }

    #[test]
    fn every_namespace_is_watched_only_when_asked_for_by_name() {
        assert_eq!(parse(&["--all-namespaces"]).scopes(), [Scope::All]);
        assert!(Settings::try_parse_from(["o", "--all-namespaces", "--watch-namespaces", "a"]).is_err());
    }
}
