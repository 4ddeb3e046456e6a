//! The programs that the cluster is made of: Debian packages, and Go programs built once and kept outside the repository.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::program::Program;

/// The version of Kubernetes that `e2e/tools/go.mod` names.
pub const KUBERNETES: &str = "1.34.4";
const MANIFEST: &str = "manifest.json";

/// What is built, by name of the program.
const PROGRAMS: [(&str, &str); 9] = [
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    (
        "kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
    ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ("coredns", "github.com/coredns/coredns"),
    ("helm", "helm.sh/helm/v3/cmd/helm"),
    ("pause", "./pause"),
];

/// A program that must be there, and the Debian package that brings it.
const PACKAGES: [(&str, &str); 15] = [
    ("/usr/bin/etcd", "etcd-server"),
    ("/usr/bin/containerd", "containerd"),
    ("/usr/bin/ctr", "containerd"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("/usr/sbin/iptables", "iptables"),
    ("/usr/sbin/conntrack", "conntrack"),
    ("/usr/bin/podman", "podman"),
    ("/usr/bin/buildah", "buildah"),
    ("/usr/bin/mmdebstrap", "mmdebstrap"),
    ("/usr/bin/socat", "socat"),
    ("/usr/sbin/ethtool", "ethtool"),
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/bin/nsenter", "util-linux"),
    ("/usr/bin/mount", "mount"),
];

/// What a finished build wrote; a program that differs from it is torn.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Manifest {
    /// The hash of `go.mod`, `go.sum` and the programs of our own.
    source: String,
    programs: BTreeMap<String, Built>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Built {
    size: u64,
    sha256: String,
}

/// Where everything is cached: `SELEXTRACT_CACHE`, or a folder in the user's cache.
pub fn cache() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("SELEXTRACT_CACHE").filter(|v| !v.is_empty()) {
        return Ok(folder.into());
    }
    let home = std::env::var_os("HOME").context("neither SELEXTRACT_CACHE nor HOME is set")?;
    Ok(Path::new(&home).join(".cache/selextract"))
}

/// `selextract-local` itself: this program, or beside it where this one is a test or a benchmark (cargo puts tests one folder deeper).
pub fn own_program() -> Result<PathBuf> {
    let here = env::current_exe()?;
    here.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("selextract-local"))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "selextract-local is not beside {}; build it with make tool",
                here.display()
            )
        })
}

/// The root of the repository that this program was built from.
pub fn repository() -> Result<PathBuf> {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = crate_folder.parent().context("the crate has no parent folder")?;
    ensure!(
        root.join("e2e/tools/go.mod").is_file(),
        "{} is no checkout of Selextract any more",
        root.display()
    );
    Ok(root.to_owned())
}

/// A folder of the cache whose name follows these sources, made when it is not there; whole or not at all.
pub fn made(name: &str, sources: &[&Path], make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let sums = sha256(sources)?;
    let hashes: Vec<_> = sums.split('-').filter_map(|sum| sum.get(..12)).collect();
    let folder = cache()?.join(format!("{name}-{}", hashes.join("-")));
    if !folder.is_dir() {
        let partial = folder.with_extension("partial");
        // What an interrupted run left.
        drop(fs::remove_dir_all(&partial));
        fs::create_dir_all(&partial).with_context(|| format!("{} cannot be made", partial.display()))?;
        make(&partial)?;
        fs::rename(&partial, &folder)?;
    }
    Ok(folder)
}

/// The folder of the Go programs; they are there after [`provide`].
pub fn bin() -> Result<PathBuf> {
    Ok(cache()?.join(format!("kubernetes-{KUBERNETES}/bin")))
}

/// One of the Go programs.
pub fn path(name: &str) -> Result<PathBuf> {
    Ok(bin()?.join(name))
}

/// Installs the packages that are missing.
pub fn install_packages() -> Result<()> {
    let missing = missing_packages(|path| Path::new(path).exists());
    if missing.is_empty() {
        return Ok(());
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "these Debian packages are needed, and this machine has no apt-get: {}",
            missing.join(" ")
        );
    }
    println!("      installing {}", missing.join(" "));
    let apt = |arguments: &[&str]| {
        Program::new("apt-get", arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .timeout(Duration::from_mins(10))
            .run()
    };
    apt(&["update", "-qq"])?;
    let mut arguments = vec!["install", "-qqy", "--no-install-recommends"];
    arguments.extend(&missing);
    apt(&arguments)
}

fn missing_packages(is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut missing: Vec<_> = PACKAGES
        .iter()
        .filter(|(path, _)| !is_there(path))
        .map(|(_, package)| *package)
        .collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// The Go programs: as they are when they are whole, else built anew. Two at once wait for each other.
pub fn provide() -> Result<()> {
    let folder = cache()?.join(format!("kubernetes-{KUBERNETES}"));
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock().context("the lock of the tools' cache cannot be taken")?;
    let source = source_hash()?;
    match torn(&folder, &source) {
        None => Ok(()),
        Some(why) => {
            println!("      building the Kubernetes programs ({why}): about 10 minutes on 2 cores, once");
            build(&folder, source)
        }
    }
}

/// Why the cache cannot be used, if it cannot.
fn torn(folder: &Path, source: &str) -> Option<String> {
    let text = fs::read(folder.join(MANIFEST)).ok();
    let Some(manifest) = text.and_then(|text| serde_json::from_slice::<Manifest>(&text).ok()) else {
        return Some("no finished build is there".to_owned());
    };
    if manifest.source != source {
        return Some("their sources changed".to_owned());
    }
    PROGRAMS.iter().find_map(|(name, _)| {
        let whole = manifest
            .programs
            .get(*name)
            .is_some_and(|built| measure(&folder.join("bin").join(name)).is_ok_and(|found| found == *built));
        (!whole).then(|| format!("{name} is torn"))
    })
}

fn build(folder: &Path, source: String) -> Result<()> {
    let bin = folder.join("bin");
    // The manifest goes first and comes last, so that an interrupted build is never taken for a whole one.
    drop(fs::remove_file(folder.join(MANIFEST)));
    fs::create_dir_all(&bin)?;
    let version = "k8s.io/component-base/version";
    let flags = format!("-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor=34");
    let mut manifest = Manifest {
        source,
        ..Manifest::default()
    };
    for (name, package) in PROGRAMS {
        let partial = bin.join(format!("{name}.partial"));
        let arguments = ["build", "-trimpath", "-ldflags", &flags, "-o"].map(Into::into);
        Program::new(
            "go",
            arguments
                .into_iter()
                .chain([partial.clone().into_os_string(), package.into()]),
        )
        .folder(repository()?.join("e2e/tools"))
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly")
        .timeout(Duration::from_mins(30))
        .run()
        .with_context(|| format!("{name} cannot be built"))?;
        let target = bin.join(name);
        fs::rename(&partial, &target)?;
        manifest.programs.insert(name.to_owned(), measure(&target)?);
    }
    let partial = folder.join("manifest.partial");
    fs::write(&partial, serde_json::to_vec_pretty(&manifest)?)?;
    fs::rename(partial, folder.join(MANIFEST))?;
    Ok(())
}

fn measure(path: &Path) -> Result<Built> {
    let size = fs::metadata(path)?.len();
    Ok(Built {
        size,
        sha256: sha256(&[path])?,
    })
}

fn source_hash() -> Result<String> {
    let tools = repository()?.join("e2e/tools");
    sha256(&[
        &tools.join("go.mod"),
        &tools.join("go.sum"),
        &tools.join("pause/main.go"),
    ])
}

/// The hashes of files, by the system's own fast program.
pub fn sha256(paths: &[&Path]) -> Result<String> {
    let sums = Program::new("sha256sum", paths)
        .timeout(Duration::from_mins(2))
        .output()?;
    let words: Vec<_> = sums.lines().filter_map(|line| line.split_whitespace().next()).collect();
    Ok(words.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(folder: &Path) -> Manifest {
        fs::create_dir_all(folder.join("bin")).unwrap();
        let mut manifest = Manifest {
            source: "s".to_owned(),
            ..Manifest::default()
        };
        for (name, _) in PROGRAMS {
            let path = folder.join("bin").join(name);
            fs::write(&path, name).unwrap();
            manifest.programs.insert(name.to_owned(), measure(&path).unwrap());
        }
        fs::write(folder.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        manifest
    }

    #[test]
    fn a_whole_cache_is_used_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        whole(folder.path());
        assert_eq!(torn(folder.path(), "s"), None);
    }

    #[test]
    fn a_cache_without_manifest_of_other_sources_or_with_a_changed_program_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(torn(folder.path(), "s").unwrap(), "no finished build is there");
        whole(folder.path());
        assert_eq!(torn(folder.path(), "t").unwrap(), "their sources changed");
        fs::write(folder.path().join("bin/kubelet"), "kubele").unwrap();
        assert_eq!(torn(folder.path(), "s").unwrap(), "kubelet is torn");
        fs::remove_file(folder.path().join("bin/kubelet")).unwrap();
        assert_eq!(torn(folder.path(), "s").unwrap(), "kubelet is torn");
    }

    #[test]
    fn a_package_is_asked_for_once() {
        let missing = missing_packages(|path| !path.contains("ctr") && !path.contains("containerd"));
        assert_eq!(missing, ["containerd"]);
    }
}
