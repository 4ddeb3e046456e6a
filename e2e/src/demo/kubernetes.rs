//! The cluster that the demo or a journey works on, by `kubectl` and `helm`; and what is printed when a wait is in vain.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    cluster::Layout,
    program::Program,
    progress::{Progress, wait_for},
    tools,
};

const HELM_TIMEOUT: Duration = Duration::from_mins(3);
const PUSH_TIMEOUT: Duration = Duration::from_mins(15);

/// A cluster and the programs to speak with it.
pub struct Kubernetes {
    /// `None`: what the environment names.
    kubeconfig: Option<PathBuf>,
    kubectl: PathBuf,
    helm: PathBuf,
}

impl Kubernetes {
    /// This machine's own.
    pub fn local() -> Self {
        let layout = Layout::new();
        let bin = layout.bin();
        Self {
            kubeconfig: Some(layout.kubeconfig()),
            kubectl: bin.join("kubectl"),
            helm: bin.join("helm"),
        }
    }

    /// The kubeconfig's current context, with the user's own programs where there are any.
    pub fn current() -> Result<Self> {
        let own = |name: &str| {
            Program::new("which", [name])
                .output()
                .ok()
                .map(|path| PathBuf::from(path.trim()))
        };
        let (kubectl, helm) = (own("kubectl"), own("helm"));
        if kubectl.is_none() || helm.is_none() {
            tools::provide()?;
        }
        let built = |found: Option<PathBuf>, name: &str| found.map_or_else(|| tools::path(name), Ok);
        let found = Self {
            kubeconfig: None,
            kubectl: built(kubectl, "kubectl")?,
            helm: built(helm, "helm")?,
        };
        found
            .version()
            .context("the kubeconfig's current context does not answer")?;
        Ok(found)
    }

    /// The server's version.
    pub fn version(&self) -> Result<String> {
        let text = self
            .kubectl(&["version", "-o", "json", "--request-timeout=10s"])
            .output()?;
        let version: Value = serde_json::from_str(&text)?;
        Ok(version["serverVersion"]["gitVersion"]
            .as_str()
            .unwrap_or("no version")
            .to_owned())
    }

    /// `kubectl` with these arguments.
    pub fn kubectl(&self, arguments: &[&str]) -> Program {
        self.with_config(Program::new(&self.kubectl, arguments))
    }

    /// The command line of `kubectl`, for a process that goes on.
    pub fn kubectl_command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.kubectl);
        if let Some(path) = &self.kubeconfig {
            command.env("KUBECONFIG", path);
        }
        command
    }

    /// `helm` with these arguments.
    pub fn helm(&self, arguments: &[&str]) -> Program {
        self.with_config(Program::new(&self.helm, arguments))
            .timeout(HELM_TIMEOUT)
    }

    fn with_config(&self, program: Program) -> Program {
        match &self.kubeconfig {
            Some(path) => program.env("KUBECONFIG", path),
            None => program,
        }
    }

    /// What a user's shell needs to speak with it.
    pub fn environment(&self) -> String {
        let config = self
            .kubeconfig
            .as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default();
        let bin = self
            .kubectl
            .parent()
            .map(|path| path.display().to_string())
            .unwrap_or_default();
        format!("export KUBECONFIG={config} PATH={bin}:$PATH")
    }

    /// Applies YAML.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"])
            .input(yaml)
            .run()
    }

    /// A namespace in which only restricted pods run.
    pub fn create_namespace(&self, name: &str) -> Result<()> {
        self.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
        ))
    }

    /// Deletes a namespace and waits for its end.
    pub fn delete_namespace(&self, name: &str) -> Result<()> {
        self.kubectl(&["delete", "namespace", name, "--ignore-not-found", "--timeout=180s"])
            .timeout(Duration::from_secs(200))
            .run()
    }

    /// Deletes our kinds, which the chart leaves.
    pub fn delete_definitions(&self) -> Result<()> {
        let names = ["selextractclusters.selextract.io", "scrapetasks.selextract.io"];
        self.kubectl(&["delete", "crd", "--ignore-not-found", "--timeout=60s"])
            .and(names)
            .timeout(Duration::from_secs(70))
            .run()
    }

    /// Installs or upgrades one of our charts with these settings.
    pub fn install(&self, release: &str, chart: &str, namespace: &str, settings: &[String]) -> Result<()> {
        let flags: Vec<_> = settings.iter().map(|setting| format!("--set={setting}")).collect();
        self.install_with(release, chart, namespace, &flags)
    }

    /// Installs or upgrades the definitions and the operator, and waits until that is ready. `watched` says which namespaces, as a chart's
    /// setting.
    pub fn install_operator(&self, namespace: &str, watched: &str, registry: &str, tag: &str) -> Result<()> {
        self.create_namespace(namespace)?;
        self.install("selextract-crds", "selextract-crds", namespace, &[])?;
        let settings = [
            watched.to_owned(),
            format!("image.registry={registry}"),
            format!("image.tag={tag}"),
        ];
        self.install("selextract-operator", "selextract-operator", namespace, &settings)?;
        self.rollout(namespace, "deployment/selextract-operator", Duration::from_mins(2))
    }

    /// Installs or upgrades one of our charts with these flags.
    pub fn install_with(&self, release: &str, chart: &str, namespace: &str, flags: &[String]) -> Result<()> {
        let path = tools::repository()?.join("charts").join(chart);
        let path = path.to_string_lossy();
        self.helm(&["upgrade", "--install", release, &path, "--namespace", namespace])
            .and(flags)
            .run()
            .with_context(|| format!("the chart {chart} cannot be installed"))
    }

    /// Uninstalls a release if it is there.
    pub fn uninstall(&self, release: &str, namespace: &str) -> Result<()> {
        self.helm(&[
            "uninstall",
            release,
            "--namespace",
            namespace,
            "--ignore-not-found",
            "--wait",
        ])
        .run()
    }

    /// Waits until a workload has rolled out.
    pub fn rollout(&self, namespace: &str, workload: &str, timeout: Duration) -> Result<()> {
        let limit = format!("--timeout={}s", timeout.as_secs());
        self.kubectl(&["rollout", "status", workload, "-n", namespace, &limit])
            .timeout(timeout + Duration::from_secs(10))
            .run()
            .map_err(|error| error.context(self.diagnosis(namespace)))
    }

    /// Waits until a condition of an object is True, and tells of the other conditions that become True on the way.
    pub fn wait(
        &self,
        namespace: &str,
        object: &str,
        condition: &str,
        timeout: Duration,
        progress: &Progress,
    ) -> Result<()> {
        let what = format!("{object}: condition {condition}");
        wait_for(&what, timeout, || {
            let conditions = self.conditions(namespace, object)?;
            for (kind, _) in conditions.iter().filter(|(_, status)| status["status"] == "True") {
                if kind != condition && kind != "Reconciling" {
                    progress.note(&format!("{object}: {kind}"));
                }
            }
            let found = conditions
                .iter()
                .find(|(kind, _)| kind == condition)
                .map(|(_, value)| value);
            if condition == "Succeeded" && found.is_some_and(|value| value["status"] == "False") {
                bail!("{object} failed: {}", found.map(Value::to_string).unwrap_or_default());
            }
            Ok(found.is_some_and(|value| value["status"] == "True"))
        })
        .map_err(|error| {
            let state = self
                .kubectl(&["get", object, "-n", namespace, "-o", "yaml"])
                .output()
                .unwrap_or_default();
            error
                .context(self.diagnosis(namespace))
                .context(format!("{object} is:\n{state}"))
        })
    }

    fn conditions(&self, namespace: &str, object: &str) -> Result<Vec<(String, Value)>> {
        let text = self.kubectl(&["get", object, "-n", namespace, "-o", "json"]).output()?;
        let object: Value = serde_json::from_str(&text)?;
        let generation = object["metadata"]["generation"].as_i64().unwrap_or_default();
        if object["status"]["observedGeneration"]
            .as_i64()
            .is_some_and(|seen| seen < generation)
        {
            return Ok(Vec::new());
        }
        let list = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(list
            .into_iter()
            .map(|c| (c["type"].as_str().unwrap_or_default().to_owned(), c))
            .collect())
    }

    /// The pods, and events and logs of those that are not ready.
    pub fn diagnosis(&self, namespace: &str) -> String {
        let run = |arguments: &[&str]| {
            self.kubectl(arguments)
                .output()
                .unwrap_or_else(|error| format!("{error:#}\n"))
        };
        let mut text = vec![run(&["get", "pods", "-n", namespace, "-o", "wide"])];
        let pods: Value =
            serde_json::from_str(&run(&["get", "pods", "-n", namespace, "-o", "json"])).unwrap_or_default();
        for pod in pods["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|pod| !is_well(pod))
            .take(5)
        {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let of_pod = format!("--for=pod/{name}");
            let logs = ["logs", "-n", namespace, name, "--all-containers", "--tail=25"];
            text.push(format!(
                "--- events of {name}\n{}",
                run(&["events", "-n", namespace, &of_pod])
            ));
            text.push(format!("--- logs of {name}\n{}", run(&logs)));
            // Only a container that was started again has earlier logs.
            text.extend(self.kubectl(&logs).and(["--previous"]).output());
        }
        text.concat()
    }

    /// Loads images into the kind cluster that the current context names.
    pub fn load_into_kind(&self, images: &[String]) -> Result<()> {
        let context = self.kubectl(&["config", "current-context"]).output()?;
        let Some(cluster) = context.trim().strip_prefix("kind-") else {
            bail!(
                "the context {} is no kind cluster: say with REGISTRY=… where to push the images for it",
                context.trim()
            );
        };
        let folder = tempfile::tempdir()?;
        let archive = folder.path().join("images.tar");
        let engine = engine();
        let save: &[&str] = if engine == "podman" {
            &["save", "--multi-image-archive", "-o"]
        } else {
            &["save", "-o"]
        };
        Program::new(engine, save)
            .and([&archive])
            .and(images)
            .timeout(PUSH_TIMEOUT)
            .run()?;
        Program::new("kind", ["load", "image-archive", "--name", cluster])
            .and([&archive])
            .timeout(PUSH_TIMEOUT)
            .run()
    }
}

/// Pushes images under other names.
pub fn push(images: &[String], names: &[String]) -> Result<()> {
    for (image, name) in images.iter().zip(names) {
        Program::new(engine(), ["tag", image, name]).run()?;
        Program::new(engine(), ["push", "--quiet", name])
            .timeout(PUSH_TIMEOUT)
            .run()?;
    }
    Ok(())
}

/// As `images/build` picks it.
fn engine() -> &'static str {
    if Program::new("podman", ["--version"]).succeeds() {
        "podman"
    } else {
        "docker"
    }
}

fn is_well(pod: &Value) -> bool {
    let ready = pod["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Ready" && c["status"] == "True");
    ready || pod["status"]["phase"] == "Succeeded"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_well_when_it_is_ready_or_has_done_its_work() {
        assert!(is_well(
            &json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } })
        ));
        assert!(is_well(&json!({ "status": { "phase": "Succeeded" } })));
        assert!(!is_well(
            &json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "False" }] } })
        ));
        assert!(!is_well(&json!({ "status": { "phase": "Pending" } })));
    }
}
