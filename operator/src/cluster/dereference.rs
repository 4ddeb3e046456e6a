//! Everything that a reconcile reads, before it decides anything.

use std::collections::BTreeMap;

use futures::{future::join_all, try_join};
use k8s_openapi::api::core::v1::{Event, Node, Pod, Secret};
use kube::{Api, Client, api::ListParams};
use serde_json::Value;
use snafu::{ResultExt, Snafu};

use super::{
    bucket::UserSecrets,
    objects::{self, Live},
    pods::{self, Cause, Trouble},
    workload,
};
use crate::build::{Names, SANDBOX_LABEL, Served};

/// Why reading broke off; it is tried again.
#[derive(Debug, Snafu)]
pub enum ReadError {
    /// The API server gave no good answer.
    #[snafu(display("cannot read {what}"))]
    Read {
        /// What was read.
        what: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// The API server's discovery documents cannot be used.
    #[snafu(display("the API server's {what} cannot be read"))]
    Issuer {
        /// Which document.
        what: &'static str,
    },
}

/// Whether nodes carry the label of Chromium's seccomp profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxNodes {
    /// At least one does.
    Present,
    /// None does.
    Absent,
    /// The operator has no right to look.
    Unknown,
}

/// What was found.
pub struct Observed {
    /// The children, Secrets apart.
    pub live: Live,
    /// The pods.
    pub pods: Vec<Pod>,
    /// The cluster's own Secrets that are there, by name.
    pub secrets: BTreeMap<String, Secret>,
    /// The data of the user's own Secrets that the spec names and that are there: the external database's, the bucket's.
    pub users: UserSecrets,
    /// Nodes for Chromium's sandbox.
    pub sandbox_nodes: SandboxNodes,
    /// The issuer of service-account tokens.
    pub issuer: String,
    /// Its keys, as JSON.
    pub jwks: String,
    /// Which kinds of the Prometheus operator are served.
    pub served: Served,
    /// Whether the managed Prometheus may ask the kubelets; `None` where it is not wanted or not known.
    pub kubelet_right: Option<bool>,
}

/// Reads everything about a cluster.
///
/// # Errors
/// When something that is needed cannot be read.
pub async fn dereference(
    client: &Client,
    names: &Names<'_>,
    place: (&str, &str),
    users: &[String],
    served: Served,
) -> Result<Observed, ReadError> {
    let (namespace, cluster) = place;
    let own = names.secrets();
    let (live, pods, secrets, users, (issuer, jwks)) = try_join!(
        async {
            objects::fetch_live(client, namespace, cluster, served)
                .await
                .map_err(Box::new)
                .context(ReadSnafu { what: "the children" })
        },
        fetch_pods(client, namespace, cluster),
        fetch_secrets(client, namespace, &own),
        fetch_secrets(client, namespace, users),
        fetch_issuer(client),
    )?;
    Ok(Observed {
        live,
        pods,
        secrets,
        users: users
            .into_iter()
            .map(|(name, secret)| (name, secret.data.unwrap_or_default()))
            .collect(),
        sandbox_nodes: fetch_sandbox_nodes(client).await,
        issuer,
        jwks,
        served,
        kubelet_right: None,
    })
}

async fn fetch_pods(client: &Client, namespace: &str, cluster: &str) -> Result<Vec<Pod>, ReadError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(&objects::selector(cluster));
    Ok(pods
        .list(&params)
        .await
        .map_err(Box::new)
        .context(ReadSnafu { what: "the pods" })?
        .items)
}

/// By name, one by one: a right to list Secrets is a right to read all of them.
async fn fetch_secrets(
    client: &Client,
    namespace: &str,
    names: &[String],
) -> Result<BTreeMap<String, Secret>, ReadError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let found = join_all(names.iter().map(|name| secrets.get_opt(name))).await;
    let mut all = BTreeMap::new();
    for (name, secret) in names.iter().zip(found) {
        let secret = secret.map_err(Box::new).with_context(|_| ReadSnafu {
            what: format!("Secret {name}"),
        })?;
        all.extend(secret.map(|secret| (name.clone(), secret)));
    }
    Ok(all)
}

async fn fetch_sandbox_nodes(client: &Client) -> SandboxNodes {
    let nodes: Api<Node> = Api::all(client.clone());
    let label = format!("{}={}", SANDBOX_LABEL.0, SANDBOX_LABEL.1);
    match nodes
        .list_metadata(&ListParams::default().labels(&label).limit(1))
        .await
    {
        Ok(found) if found.items.is_empty() => SandboxNodes::Absent,
        Ok(_) => SandboxNodes::Present,
        Err(_) => SandboxNodes::Unknown,
    }
}

/// The issuer of service-account tokens and its public keys, which the internal listener checks the operator's token by.
async fn fetch_issuer(client: &Client) -> Result<(String, String), ReadError> {
    let configuration = fetch_text(client, "/.well-known/openid-configuration").await?;
    let jwks = fetch_text(client, "/openid/v1/jwks").await?;
    let issuer = serde_json::from_str::<Value>(&configuration).ok();
    let issuer = issuer
        .as_ref()
        .and_then(|found| found.get("issuer")?.as_str())
        .map(str::to_owned);
    let what = "/.well-known/openid-configuration";
    let issuer = issuer.ok_or(ReadError::Issuer { what })?;
    let keys = serde_json::from_str::<Value>(&jwks).map_err(|_| ReadError::Issuer {
        what: "/openid/v1/jwks",
    })?;
    // Sorted, so that the same keys are the same text.
    Ok((issuer, crate::canonical::sorted(&keys).to_string()))
}

async fn fetch_text(client: &Client, path: &str) -> Result<String, ReadError> {
    let request = http::Request::get(path)
        .body(Vec::new())
        .map_err(|_| ReadError::Issuer { what: "address" })?;
    client
        .request_text(request)
        .await
        .map_err(Box::new)
        .with_context(|_| ReadSnafu { what: path.to_owned() })
}

/// Why `StatefulSet`s and Jobs without all of their pods cannot create them, by component: only their events say so.
pub async fn fetch_refusals(client: &Client, namespace: &str, live: &Live) -> BTreeMap<String, Trouble> {
    let mut refusals = BTreeMap::new();
    for (key, object) in live {
        let component = object
            .pointer("/metadata/labels/app.kubernetes.io~1component")
            .and_then(Value::as_str);
        let Some(component) = component.map(str::to_owned) else {
            continue;
        };
        if let Some(trouble) = workload::refused(object) {
            refusals.insert(component, trouble);
        } else if lacks_pods(object) {
            let events: Api<Event> = Api::namespaced(client.clone(), namespace);
            let fields = format!(
                "involvedObject.kind={},involvedObject.name={},reason=FailedCreate",
                key.kind, key.name
            );
            // Events are a help for the message only: without them the condition says that it is on its way.
            let Ok(found) = events.list(&ListParams::default().fields(&fields).limit(50)).await else {
                continue;
            };
            let newest = found
                .items
                .into_iter()
                .max_by_key(|event| event.last_timestamp.as_ref().map(|at| at.0));
            if let Some(message) = newest.and_then(|event| event.message) {
                let message = format!("The pods are refused: {}", pods::refusal(&message));
                refusals.insert(
                    component,
                    Trouble {
                        cause: Cause::PodsRefused,
                        message,
                    },
                );
            }
        }
    }
    refusals
}

fn lacks_pods(object: &Value) -> bool {
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    match object.get("kind").and_then(Value::as_str) {
        Some("StatefulSet") => number("/status/replicas") < number("/spec/replicas"),
        Some("Job") => {
            workload::progress(object) == workload::Progress::Rolling
                && number("/status/active") + number("/status/failed") + number("/status/succeeded") == 0
        }
        _ => false,
    }
}
