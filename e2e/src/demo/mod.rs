//! From nothing to scraped rows: the cluster, the charts, a platform and two tasks, each step with its seconds.

mod kubernetes;
mod rows;

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::{
    cluster::{self, Wanted},
    images::{self, Built},
    progress::Progress,
    tools,
};
pub use kubernetes::Kubernetes;

/// Where the demo's objects are.
const NAMESPACE: &str = "demo";
/// Where the operator is.
const OPERATOR_NAMESPACE: &str = "selextract-system";
/// The demo's `SelextractCluster`.
const CLUSTER: &str = "demo";
/// The demo's tasks, with the word that each is introduced by.
const TASKS: [(&str, &str); 2] = [
    (
        "postgres-parameters",
        "Every server parameter of PostgreSQL, from its documentation, page by page",
    ),
    (
        "kubernetes-api",
        "Every operation of a Kubernetes API, from Swagger UI rendered in Chromium",
    ),
];

/// Which cluster, and how images get there.
#[derive(Args)]
pub struct Target {
    /// The cluster: one that is started on this machine, or the kubeconfig's current context.
    #[arg(long, env = "CLUSTER", value_enum, default_value_t = Choice::Local)]
    cluster: Choice,
    /// Where to push the images for the current context; a kind cluster needs none.
    #[arg(long, env = "REGISTRY")]
    registry: Option<String>,
}

/// Which cluster.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// A Kubernetes of this machine's own.
    Local,
    /// The current context.
    Current,
}

/// What the demo is told.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
}

/// Runs the demo.
pub fn run(options: &Options) -> Result<()> {
    let target = &options.target;
    introduce(target);
    let mut progress = Progress::new(8);
    let kubernetes = open(target)?;
    progress.done(&format!("Kubernetes answers ({})", kubernetes.version()?));
    let built = images::build()?;
    progress.done(&format!("Programs and images built, tag {}", built.tag));
    let registry = deliver(target, &kubernetes, &built)?;
    progress.done("Images are on the nodes");
    install_operator(&kubernetes, &registry, &built)?;
    progress.done("Operator ready");
    apply_platform(&kubernetes, &registry, &built)?;
    kubernetes.wait(
        NAMESPACE,
        &platform(),
        "DatabaseReady",
        Duration::from_mins(4),
        &progress,
    )?;
    progress.done("PostgreSQL primary ready");
    kubernetes.wait(NAMESPACE, &platform(), "Ready", Duration::from_mins(5), &progress)?;
    progress.done("Platform Ready");
    kubernetes.rollout(NAMESPACE, "deployment/sites", Duration::from_mins(1))?;
    kubernetes.apply(&fs::read_to_string(tools::repository()?.join("e2e/demo/tasks.yaml"))?)?;
    for (task, _) in TASKS {
        kubernetes.wait(
            NAMESPACE,
            &format!("scrapetask/{task}"),
            "Ready",
            Duration::from_mins(1),
            &progress,
        )?;
    }
    progress.done("Tasks accepted");
    for (task, _) in TASKS {
        kubernetes.wait(
            NAMESPACE,
            &format!("scrapetask/{task}"),
            "Succeeded",
            Duration::from_mins(3),
            &progress,
        )?;
    }
    progress.done("Tasks succeeded");
    show(&kubernetes, target)
}

fn introduce(target: &Target) {
    let needs = match target.cluster {
        Choice::Local => {
            "It needs root, a Debian with Rust, Go and npm, about 8 GB of disk, 4 GB of memory and the package registries.\n\
             It installs Debian packages, builds Kubernetes once (about 6 minutes on 2 cores), the product (about 8 minutes the first\n\
             time) and its images (about 1 minute), and starts a cluster in network namespaces of its own. Warm it takes about 2 minutes."
        }
        Choice::Current => {
            "It needs kubectl and helm (or Go, to build them), Rust and npm, podman or docker, and a kubeconfig whose current context may\n\
             install CRDs. It builds the product and its images (about 9 minutes the first time on 2 cores) and installs into the\n\
             namespaces demo, selextract-system and selextract-node."
        }
    };
    println!("The demo of Selextract: from a clone to scraped rows on a real Kubernetes.\n{needs}\n");
}

fn open(target: &Target) -> Result<Kubernetes> {
    match target.cluster {
        Choice::Local => {
            cluster::up(Wanted {
                nodes: 1,
                audit_log: false,
            })?;
            Ok(Kubernetes::local())
        }
        Choice::Current => Kubernetes::current(),
    }
}

/// Brings the images to where the cluster finds them; the registry that their names begin with there.
fn deliver(target: &Target, kubernetes: &Kubernetes, built: &Built) -> Result<String> {
    let names = built.names(images::REGISTRY);
    match (target.cluster, &target.registry) {
        (Choice::Local, _) => cluster::load(&names).map(|_| images::REGISTRY.to_owned()),
        (Choice::Current, Some(registry)) => {
            kubernetes::push(&names, &built.names(registry)).map(|()| registry.clone())
        }
        (Choice::Current, None) => kubernetes.load_into_kind(&names).map(|()| images::REGISTRY.to_owned()),
    }
}

fn install_operator(kubernetes: &Kubernetes, registry: &str, built: &Built) -> Result<()> {
    kubernetes.create_namespace(NAMESPACE)?;
    let watched = format!("watchNamespaces={{{NAMESPACE}}}");
    kubernetes.install_operator(OPERATOR_NAMESPACE, &watched, registry, &built.tag)
}

fn apply_platform(kubernetes: &Kubernetes, registry: &str, built: &Built) -> Result<()> {
    let folder = tools::repository()?.join("e2e/demo");
    let sites = fs::read_to_string(folder.join("sites.yaml")).context("e2e/demo/sites.yaml cannot be read")?;
    kubernetes.apply(&sites.replace("SITES_IMAGE", &format!("{registry}/sites:{}", built.tag)))?;
    // Named in the spec as well, so that a new build is a new generation, whose conditions are waited for.
    let flags = [
        format!("--values={}", folder.join("values.yaml").display()),
        format!("--set=spec.image.registry={registry}"),
        format!("--set-string=spec.image.tag={}", built.tag),
    ];
    kubernetes.install_with(CLUSTER, "selextract-cluster", NAMESPACE, &flags)
}

fn platform() -> String {
    format!("selextractcluster/{CLUSTER}")
}

fn show(kubernetes: &Kubernetes, target: &Target) -> Result<()> {
    for (task, title) in TASKS {
        println!("\n{title}:");
        print!("{}", rows::read(kubernetes, NAMESPACE, CLUSTER, task)?);
    }
    println!("\n$ kubectl get selextract -n {NAMESPACE}");
    print!(
        "{}",
        kubernetes.kubectl(&["get", "selextract", "-n", NAMESPACE]).output()?
    );
    let port = rows::service_port(kubernetes, NAMESPACE, CLUSTER)?;
    println!("\nTo use it:");
    if target.cluster == Choice::Local {
        println!("  {}", kubernetes.environment());
    }
    println!(
        "  kubectl port-forward -n {NAMESPACE} service/{CLUSTER}-api 8080:{port}    # then http://localhost:8080/docs"
    );
    println!(
        "  kubectl get secret -n {NAMESPACE} {CLUSTER}-api -o jsonpath='{{.data.admin-password}}' | base64 -d    # the password of admin"
    );
    println!(
        "To stop and clean up:\n  make demo-down{}",
        if target.cluster == Choice::Local {
            ""
        } else {
            " CLUSTER=current"
        }
    );
    Ok(())
}

/// Takes the demo away.
pub fn clean_up(target: &Target) -> Result<()> {
    if target.cluster == Choice::Local {
        return cluster::down();
    }
    let kubernetes = Kubernetes::current()?;
    kubernetes.delete_namespace(NAMESPACE)?;
    for release in ["selextract-operator", "selextract-crds"] {
        kubernetes.uninstall(release, OPERATOR_NAMESPACE)?;
    }
    kubernetes.delete_definitions()?;
    kubernetes.delete_namespace(OPERATOR_NAMESPACE)?;
    println!("The demo is gone from the cluster.");
    Ok(())
}
