//! What a journey stands on: the local cluster with the operator and the images, and a namespace of the journey's own in which only
//! restricted pods run.

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api as Objects, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;

use crate::{
    api::Api,
    cluster::{self, Layout},
    demo::Kubernetes,
    ground, images,
    program::Program,
    progress::{Progress, wait_for},
    tools,
};

pub use crate::ground::OPERATOR_NAMESPACE;

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long a Service of ready pods may take until it is routed to them.
const ROUTED: Duration = Duration::from_secs(10);

/// One journey's view of the cluster.
pub struct World {
    /// The API server, as its administrator.
    pub client: Client,
    /// The journey's namespace.
    pub namespace: String,
    /// The tag of the images under test.
    pub tag: String,
    kubernetes: Kubernetes,
}

impl World {
    /// Starts what is missing, and makes the namespace anew.
    ///
    /// # Errors
    /// When the cluster, the images or the operator cannot be had.
    pub async fn enter(namespace: &str) -> Result<Self> {
        Self::in_new_namespace(namespace, ground::prepare()?).await
    }

    /// As [`World::enter`], with at least this many nodes; a cluster that has fewer grows.
    ///
    /// # Errors
    /// When the cluster, the images or the operator cannot be had.
    pub async fn enter_with_nodes(namespace: &str, nodes: u8) -> Result<Self> {
        Self::in_new_namespace(namespace, ground::prepare_nodes(nodes)?).await
    }

    /// As [`World::enter`], on a cluster that has neither operator nor definitions, and so no platform. The next journey that enters
    /// installs them anew.
    ///
    /// # Errors
    /// When the cluster or the images cannot be had, or what is installed does not go.
    pub async fn enter_bare(namespace: &str) -> Result<Self> {
        Self::in_new_namespace(namespace, ground::bare()?).await
    }

    /// Goes on in a namespace that an earlier journey of this program entered.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub async fn join(namespace: &str) -> Result<Self> {
        Self::in_namespace(namespace, ground::prepare()?).await
    }

    async fn in_new_namespace(namespace: &str, tag: String) -> Result<Self> {
        let kubernetes = Kubernetes::local();
        kubernetes.delete_namespace(namespace)?;
        kubernetes.create_namespace(namespace)?;
        Self::in_namespace(namespace, tag).await
    }

    async fn in_namespace(namespace: &str, tag: String) -> Result<Self> {
        let file = Kubeconfig::read_from(Layout::new().kubeconfig())?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Ok(Self {
            client: Client::try_from(config)?,
            namespace: namespace.to_owned(),
            tag,
            kubernetes: Kubernetes::local(),
        })
    }

    /// Applies YAML, in which `NAMESPACE` and `TAG` stand for this journey's.
    ///
    /// # Errors
    /// When the API server refuses it; the message is kubectl's.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        self.kubernetes.apply(&self.fill_in(yaml))
    }

    /// What the API server says against YAML that it must refuse.
    ///
    /// # Errors
    /// When it takes it.
    pub fn refusal(&self, yaml: &str) -> Result<String> {
        match self.apply(yaml) {
            Ok(()) => bail!("the API server took what it must refuse: {yaml}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    /// Runs kubectl in the journey's namespace; what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubernetes
            .kubectl(&["--namespace", &self.namespace])
            .and(arguments)
            .timeout(Duration::from_mins(3))
            .output()
    }

    /// kubectl in the journey's namespace with this at its standard input, to be run.
    pub fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Program {
        self.kubernetes
            .kubectl(&["--namespace", &self.namespace])
            .and(arguments)
            .input(input)
            .timeout(Duration::from_mins(3))
    }

    /// Runs helm in the journey's namespace; what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.kubernetes
            .helm(&["--namespace", &self.namespace])
            .and(arguments)
            .output()
    }

    /// As [`World::kubectl`], in the operator's namespace.
    ///
    /// # Errors
    /// When it fails.
    pub fn kubectl_of_operator(&self, arguments: &[&str]) -> Result<String> {
        self.kubernetes
            .kubectl(&["--namespace", OPERATOR_NAMESPACE])
            .and(arguments)
            .timeout(Duration::from_mins(3))
            .output()
    }

    /// The operator's pods.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn operator_pods(&self) -> Result<Vec<Value>> {
        let label = "app.kubernetes.io/component=operator";
        let mut list: Value =
            serde_json::from_str(&self.kubectl_of_operator(&["get", "pods", "-l", label, "-o", "json"])?)?;
        Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    /// Installs one of our charts; what helm printed. `NAMESPACE` and `TAG` in a setting stand for this journey's.
    ///
    /// # Errors
    /// When helm refuses; the message is its own.
    pub fn install(&self, release: &str, chart: &str, namespace: &str, settings: &[&str]) -> Result<String> {
        let folder = tools::repository()?.join("charts").join(chart);
        let settings = settings
            .iter()
            .map(|setting| format!("--set={}", self.fill_in(setting)));
        self.kubernetes
            .helm(&["install", release, "--namespace", namespace])
            .and([folder])
            .and(settings)
            .output()
    }

    /// One of our charts' templates as it would be installed into the journey's namespace.
    ///
    /// # Errors
    /// When helm refuses; the message is its own.
    pub fn render(&self, chart: &str, template: &str, settings: &[&str]) -> Result<String> {
        let folder = tools::repository()?.join("charts").join(chart);
        self.kubernetes
            .helm(&["template", chart, "--namespace", &self.namespace])
            .and(["--show-only", template, "--kube-version", tools::KUBERNETES])
            .and([folder])
            .and(settings.iter().map(|setting| format!("--set={setting}")))
            .output()
    }

    /// Runs a release's own tests; what helm printed.
    ///
    /// # Errors
    /// When a test fails.
    pub fn test(&self, release: &str, namespace: &str) -> Result<String> {
        self.kubernetes
            .helm(&["test", release, "--namespace", namespace, "--timeout=2m"])
            .output()
    }

    /// Uninstalls a release; what helm printed.
    ///
    /// # Errors
    /// When helm says that something went wrong.
    pub fn uninstall(&self, release: &str, namespace: &str) -> Result<String> {
        self.kubernetes
            .helm(&["uninstall", release, "--namespace", namespace])
            .output()
    }

    /// Leaves the journey's namespace, which goes by itself.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub fn leave(&self) -> Result<()> {
        self.kubectl(&["delete", "namespace", &self.namespace, "--wait=false"])
            .map(drop)
    }

    /// Changes settings of the operator's chart; waits until all of its replicas are ready.
    ///
    /// # Errors
    /// When they do not become ready.
    pub fn set_operator(&self, settings: &[&str]) -> Result<()> {
        let settings = settings.iter().map(|setting| format!("--set={setting}"));
        let flags: Vec<_> = ["--reuse-values".to_owned()].into_iter().chain(settings).collect();
        let release = "selextract-operator";
        self.kubernetes
            .install_with(release, release, OPERATOR_NAMESPACE, &flags)?;
        self.kubernetes.rollout(
            OPERATOR_NAMESPACE,
            "deployment/selextract-operator",
            Duration::from_mins(1),
        )
    }

    /// Waits until a condition is True in the way of the demo: blocking, and with the demo's words when it is in vain.
    ///
    /// # Errors
    /// At the end of the time, with what the demo prints then.
    pub fn wait_as_the_demo(&self, object: &str, condition: &str, timeout: Duration) -> Result<()> {
        self.kubernetes
            .wait(&self.namespace, object, condition, timeout, &Progress::new(1))
    }

    /// An object as JSON.
    ///
    /// # Errors
    /// When it is not there.
    pub fn get(&self, object: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", object, "-o", "json"])?)?)
    }

    /// Waits until a condition of an object, as `kubectl get` names it (`scrapetask/books`), has this status.
    ///
    /// # Errors
    /// At the end of the time, with the object, the pods, and events and logs of those that are not ready.
    pub async fn wait_for_condition(
        &self,
        object: &str,
        condition: &str,
        status: &str,
        timeout: Duration,
    ) -> Result<Value> {
        let what = format!("{object} has {condition}={status}");
        self.wait_until(&what, timeout, || {
            let found = self.get(object)?;
            let generation = found["metadata"]["generation"].as_i64();
            let current = found["status"]["observedGeneration"].as_i64() >= generation;
            let list = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let holds = list.iter().any(|c| c["type"] == condition && c["status"] == status);
            Ok((current && holds).then_some(found))
        })
        .await
        .map_err(|error| match self.kubectl(&["get", object, "-o", "yaml"]) {
            Ok(state) => error.context(format!("{object} is:\n{state}")),
            Err(missing) => error.context(missing),
        })
    }

    /// Asks until there is an answer. A failed question counts as no answer; the last failure is told at the end.
    ///
    /// # Errors
    /// At the end of the time, with the pods, and events and logs of those that are not ready.
    pub async fn wait_until<T>(&self, what: &str, timeout: Duration, ask: impl Fn() -> Result<Option<T>>) -> Result<T> {
        let started = Instant::now();
        loop {
            let failure = match ask() {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => None,
                Err(error) => Some(error),
            };
            if started.elapsed() > timeout {
                let end = failure.unwrap_or_else(|| anyhow::anyhow!("it stayed otherwise"));
                let diagnosis = self.kubernetes.diagnosis(&self.namespace);
                return Err(end.context(format!("not within {} s: {what}\n{diagnosis}", timeout.as_secs())));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// What the PostgreSQL server in this pod answers to SQL, as its superuser.
    ///
    /// # Errors
    /// When the pod or the server does not answer, or refuses.
    pub fn sql(&self, pod: &str, sql: &str) -> Result<String> {
        let script = "PGPASSWORD=$(cat /etc/selextract/postgres-passwords/superuser-password) \
                      exec psql -XAt -h /run/postgresql -U postgres -d selextract -c \"$1\"";
        let exec = ["exec", pod, "--", "bash", "-c", script, "psql", sql];
        Ok(self.kubectl(&exec)?.trim().to_owned())
    }

    /// A key of a Secret.
    ///
    /// # Errors
    /// When there is no such Secret or key.
    pub fn secret(&self, name: &str, key: &str) -> Result<String> {
        use base64::Engine as _;
        let secret = self.get(&format!("secret/{name}"))?;
        let text = secret["data"][key]
            .as_str()
            .with_context(|| format!("the Secret {name} has no {key}"))?;
        Ok(String::from_utf8(
            base64::engine::general_purpose::STANDARD.decode(text)?,
        )?)
    }

    /// A cluster's API, as its administrator.
    ///
    /// # Errors
    /// When it has no such Service or Secret, or refuses.
    pub async fn sign_in(&self, cluster: &str) -> Result<Api> {
        let service = format!("{cluster}-api");
        let password = self.secret(&service, "admin-password")?;
        Api::login(&self.service_address(&service)?, "admin", &password).await
    }

    /// The pods of a component of a cluster.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn pods(&self, cluster: &str, component: &str) -> Result<Vec<Pod>> {
        let labels = format!("app.kubernetes.io/instance={cluster},app.kubernetes.io/component={component}");
        let here = ListParams::default().labels(&labels).match_any();
        let pods = Objects::<Pod>::namespaced(self.client.clone(), &self.namespace);
        Ok(pods.list(&here).await?.items)
    }

    /// The address of a Service's first port; the host reaches Services and pods.
    ///
    /// A pod is ready some moments before its Service is routed to it, and until then the node refuses connections: the address is
    /// given when one is accepted.
    ///
    /// # Errors
    /// When there is no such Service, or nothing accepts a connection.
    pub fn service_address(&self, name: &str) -> Result<String> {
        let service = self.get(&format!("service/{name}"))?;
        let address = service["spec"]["clusterIP"]
            .as_str()
            .with_context(|| format!("the Service {name} has no address"))?;
        let port = service["spec"]["ports"][0]["port"]
            .as_u64()
            .with_context(|| format!("the Service {name} has no port"))?;
        let socket: SocketAddr = format!("{address}:{port}").parse()?;
        wait_for(&format!("a connection to the Service {name}"), ROUTED, || {
            Ok(TcpStream::connect_timeout(&socket, ROUTED).is_ok())
        })?;
        Ok(socket.to_string())
    }

    /// The tag of a next version with one more migration, whose images are on the nodes (all but the data image, which is the same).
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn next_tag(&self) -> Result<String> {
        let next = images::build_next(&self.tag)?;
        let names = ["platform", "browser"].map(|name| format!("{}/{name}:{}", images::REGISTRY, next.tag));
        cluster::load(&names)?;
        Ok(next.tag)
    }

    /// Puts the sites that are scraped into the namespace, as the Service `sites`, and waits until they are served.
    ///
    /// # Errors
    /// When they do not start.
    pub fn serve_sites(&self) -> Result<()> {
        let yaml = include_str!("../demo/sites.yaml").replace("namespace: demo", "namespace: NAMESPACE");
        self.apply(&yaml.replace("SITES_IMAGE", &format!("{}/sites:TAG", images::REGISTRY)))?;
        self.kubernetes
            .rollout(&self.namespace, "deployment/sites", Duration::from_mins(1))
    }

    fn fill_in(&self, yaml: &str) -> String {
        yaml.replace("NAMESPACE", &self.namespace).replace("TAG", &self.tag)
    }
}
