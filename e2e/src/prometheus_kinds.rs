//! The definitions of the Prometheus operator's kinds, generated from its own Go types into the cache.

use std::{ffi::OsStr, fs, time::Duration};

use anyhow::{Context, Result};

use crate::{program::Program, tools};

const GENERATOR: &str = "sigs.k8s.io/controller-tools/cmd/controller-gen";
const TYPES: &str = "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1";
const TIMEOUT: Duration = Duration::from_mins(15);
/// What we make objects of.
const KINDS: [&str; 3] = ["podmonitors", "prometheusrules", "servicemonitors"];

/// The definitions of `PodMonitor`, `PrometheusRule` and `ServiceMonitor`, as YAML.
///
/// # Errors
/// When they cannot be generated.
pub fn definitions() -> Result<String> {
    let sources = tools::repository()?.join("e2e/peers/prometheus-operator");
    let pinned = ["go.mod", "go.sum"].map(|name| sources.join(name));
    let folder = tools::made("prometheus-kinds", &[&pinned[0], &pinned[1]], |folder| {
        println!("      generating the kinds of the Prometheus operator: about a minute on 2 cores, once");
        let generator = folder.join("controller-gen");
        let run = |program: &OsStr| {
            Program::new(program, [] as [&str; 0])
                .folder(&sources)
                .env("GOFLAGS", "-mod=readonly")
                .timeout(TIMEOUT)
        };
        run("go".as_ref())
            .and([
                "build".as_ref(),
                "-o".as_ref(),
                generator.as_os_str(),
                GENERATOR.as_ref(),
            ])
            .run()?;
        run(generator.as_os_str())
            .and([
                "crd",
                &format!("paths={TYPES}"),
                &format!("output:crd:dir={}", folder.display()),
            ])
            .run()
    })?;
    let read = |kind: &str| {
        let path = folder.join(format!("monitoring.coreos.com_{kind}.yaml"));
        fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))
    };
    Ok(KINDS.map(read).into_iter().collect::<Result<Vec<_>>>()?.join("\n"))
}
